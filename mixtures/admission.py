"""Which receipts of a pool a recipe stands on: one revision of each source, and its comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixtures.columns import find, ids_of
from mixtures.facts import REMEDY, Clips
from mixtures.recipe import HeldOut, Recipe, Source
from mixtures.verdict import Comparison, compared
from shards.errors import UserError
from shards.index import LEAKS, PAIRS, REFUSED
from shards.pool import Pool, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The receipts that admitted one source at one revision, and what they counted."""

    name: str
    dataset: str
    revision: str
    receipts: tuple[Receipt, ...]
    records: int
    records_refused: int
    samples: int
    samples_refused: int


def read_tokenizer(recipe: Recipe) -> bytes:
    """The bytes of the tokenizer file that the recipe names."""
    try:
        return Path(recipe.text.tokenizer).read_bytes()
    except OSError as error:
        raise UserError(
            f"{recipe.text.tokenizer}: {error.strerror}; {recipe.path}: text: tokenizer: must name "
            "a tokenizer.json"
        ) from error


def admitted_sources(
    recipe: Recipe, pool: Pool, pins: Mapping[str, str]
) -> tuple[list[Admitted], dict[str, str]]:
    """The recipe's sources, and the revisions of its held-out sets; `pins` maps names to revisions.

    UserError where the pool holds a source in no revision or in several.
    """
    receipts = pool.receipts("admit")
    sources = [_admitted(receipts, source, pins, recipe) for source in recipe.sources]
    held_out = [_admitted(receipts, each, pins, recipe) for each in recipe.held_out]
    return sources, {each.name: each.revision for each in held_out}


def _admitted(
    receipts: Sequence[Receipt], source: Source | HeldOut, pins: Mapping[str, str], recipe: Recipe
) -> Admitted:
    name, pin = source.name, pins.get(source.name, source.revision)
    found = [receipt for receipt in receipts if receipt.parameters["source"] == name]
    found = [one for one in found if not pin or one.parameters["revision"].startswith(pin)]
    if not found:
        at = f" at revision {pin}" if pin else ""
        raise UserError(f"{recipe.path}: the pool holds no source {name!r}{at}; {REMEDY}")
    revisions = sorted({one.parameters["revision"] for one in found})
    if len(revisions) > 1:
        raise UserError(
            f"{recipe.path}: the pool holds {len(revisions)} revisions of {name!r}; "
            f"give it one as `revision`: {', '.join(revisions)}"
        )
    if len({(one.version, one.parameters.get("format")) for one in found}) > 1:
        raise UserError(
            f"{recipe.path}: {name!r} was admitted under several versions of its adapter; "
            "build another pool"
        )
    return Admitted(
        name=name,
        dataset=str(found[0].parameters.get("dataset", name)),
        revision=str(revisions[0]),
        receipts=tuple(found),
        **{
            what: sum(receipt.counts[what] for receipt in found)
            for what in ("records", "records_refused", "samples", "samples_refused")
        },
    )


def refused_before(pool: Pool, sources: Sequence[Admitted]) -> list[pa.Table]:
    """Per source: what fetching and admission refused."""
    return [pool.table(each.receipts, "refused", REFUSED) for each in sources]


def comparison(
    recipe: Recipe,
    pool: Pool,
    sources: Sequence[Admitted],
    held_out: Mapping[str, str],
    clips: Clips,
    wanted: NDArray[np.bool_],
) -> Comparison:
    """Duplicates and leaks of the clips `wanted`, from comparisons that covered all of them."""
    revisions = {each.name: each.revision for each in sources}
    receipts = [
        receipt
        for receipt in pool.receipts("compare")
        if revisions.items() <= receipt.parameters["sources"].items()
        and held_out.items() <= receipt.parameters["held_out"].items()
    ]
    if not receipts:
        raise UserError(
            f"{recipe.path}: the clips of {sorted(revisions)} were never compared with each "
            f"other and with {sorted(held_out)} in {pool.store.url}; {REMEDY}"
        )
    pairs = pool.table(receipts, "clusters", PAIRS)
    ends = np.stack([find(clips.ids, ids_of(pairs[name])) for name in ("clip_a", "clip_b")])
    ends = np.unique(ends[:, wanted[ends].all(0) & (ends >= 0).all(0)], axis=1)
    leaks = pool.table(receipts, "leaks", LEAKS)
    leaks = leaks.filter(pc.is_in(leaks["benchmark"], value_set=pa.array(held_out, pa.string())))
    places = find(clips.ids, ids_of(leaks["clip_id"])).tolist()
    found: dict[int, tuple[str, str]] = {}
    for clip, row in zip(places, leaks.to_pylist(), strict=True):
        if clip >= 0 and wanted[clip]:
            place = (row["benchmark"], row["held_out"])
            found[clip] = min(found.get(clip, place), place)
    return compared(len(clips.ids), ends.T.tolist(), found)
