"""How full packs are, and how fast they are planned, beside padded batches of 2 and 8.

Samples of 40 sources as in image and video instruction data: text, images, and videos of which
many show 128 frames; packs of 32,768 tokens and 262,144 patches. The synthetic index is planned by
the shipped code; utilisation counts every pack, those of the last, partial window included.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, equal
from benchmarks.inputs.made_index import make_index, write_recipe
from mixtures.manifest.draws import Draws
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.packs import Packs
from mixtures.order.packing import pack_windows
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe

SAMPLES = 300_000


def run(console: Console) -> list[Bar]:
    manifest = planned()
    draws, rule = Draws(manifest), manifest.pack
    records = draws.records(draws.draw(0, manifest.length))
    tokens, packs = records["tokens"].astype(np.int64), manifest.contents.packs
    full = records["frames"] >= 128
    console.print(
        f"{len(records)} samples: mean {tokens.mean():.0f} tokens, {full.mean():.0%} show 128 "
        f"frames; {packs} packs of {len(records) / packs:.1f} samples"
    )
    table = Table("", "tokens / 32,768", "patches / 262,144")
    used = float(tokens.sum() / packs / rule.tokens)
    patches = float(records["patches"].sum(dtype=np.int64) / packs / rule.patches)
    table.add_row("packs", f"{used:.4f}", f"{patches:.4f}")
    padded = {size: padded_use(tokens, size) for size in (2, 8)}
    for size, share in padded.items():
        table.add_row(f"batches of {size}, padded to the longest", f"{share:.4f}", "")
    console.print(table)
    rate = packed_per_second(records, manifest)
    console.print(f"{rate / 1e6:.2f} million samples packed per CPU second")
    return [
        at_least("mean tokens of a pack / 32,768", used, 0.99),
        at_least("samples packed per CPU second", rate, 1e6),
        at_least("packs / padded batches of 2", used / padded[2], 1.0),
        at_least("packs / padded batches of 8", used / padded[8], 1.0),
        equal("samples in no pack or in two", lost(Packs(manifest), packs, manifest.length), 0),
    ]


def planned() -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        pool, names = make_index(Path(folder) / "pool", SAMPLES)
        recipe = Path(folder) / "recipe.yaml"
        ratios = dict.fromkeys(names, "repeat: 1")
        write_recipe(recipe, Path(folder) / "pool", ratios)
        return build_manifest(load_recipe(recipe), pool).manifest


def padded_use(tokens: NDArray[np.int64], size: int) -> float:
    """Tokens / places of batches of `size` neighbours padded to their longest."""
    batches = tokens[: len(tokens) // size * size].reshape(-1, size)
    return float(batches.sum() / (batches.max(1) * size).sum())


def packed_per_second(records: NDArray[np.void], manifest: Manifest) -> float:
    rule = manifest.pack
    whole = len(records) // rule.window * rule.window
    tokens, patches = (
        records[name][:whole].reshape(-1, rule.window) for name in ("tokens", "patches")
    )
    start = time.process_time()
    pack_windows(tokens, patches, rule.tokens, rule.patches)
    return whole / (time.process_time() - start)


def lost(order: Packs, packs: int, length: int) -> int:
    """Positions that are not in exactly one pack."""
    seen = np.zeros(length, np.int64)
    for number in range(packs):
        seen[[drawn.position for drawn in order.pack(number)]] += 1
    return int((seen != 1).sum())
