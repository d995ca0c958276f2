"""Draw orders over made samples, without a pool."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs.made_index import write_recipe
from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.epochs import Epochs
from mixtures.manifest.npy_tables import ROW
from mixtures.plan.quotas import resolve
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import PackRule

PACK = PackRule(tokens=32_768, patches=262_144, window=1024)
SEED = 17


def made_tables(kept: Sequence[int], means: Sequence[int]) -> list[NDArray[np.void]]:
    """Tables of so many samples, their tokens log-normal around these means."""
    rng, tables = np.random.default_rng(7), []
    for count, mean in zip(kept, means, strict=True):
        table = np.zeros(count, ROW)
        number = np.arange(count, dtype=">u8")
        table["key"] = np.stack([number, rng.integers(0, 1 << 62, count).astype(">u8")], 1).view(
            "V16"
        )[:, 0]
        table["tokens"] = np.clip(rng.lognormal(np.log(mean), 0.8, count), 8, 30_000)
        table["patches"] = np.where(table["tokens"] > 2000, table["tokens"].astype(np.int64) * 7, 0)
        tables.append(table)
    return tables


def made_order(
    kept: Sequence[int],
    ratio: str,
    values: Sequence[Fraction],
    *,
    unit: str = "samples",
    length: int = 10**6,
    means: Sequence[int] | None = None,
) -> DrawOrder:
    """The order of sources with these ratios."""
    tables = made_tables(kept, means or [500] * len(kept))
    ratios = {f"source-{i}": f"{ratio}: {float(value)}" for i, value in enumerate(values)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        more = [f"unit: {unit}", *([f"length: {length}"] if ratio == "weight" else [])]
        write_recipe(path, Path(folder), ratios, *more)
        recipe = load_recipe(path)
    epochs = Epochs(SEED, list(ratios), [table["key"] for table in tables])
    _, source_at = resolve(recipe, tables, epochs)
    return DrawOrder(
        seed=SEED,
        names=list(ratios),
        tables=tables,
        source_at=source_at,
        loop=0,
        is_finite=ratio != "weight",
        pack=PACK,
    )
