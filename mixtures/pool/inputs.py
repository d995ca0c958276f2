"""What a recipe stands on: one revision of each source in the pool, and its comparisons.

Besides: the tokenizer and the leak index that the recipe names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixtures.pool.clusters import Comparison, Leak, Pairs, compared
from mixtures.pool.columns import REMEDY, Clips
from mixtures.recipe.types import HeldOut, Recipe, Source
from shards.errors import UserError
from shards.id_arrays import find, ids_of
from shards.index import (
    LEAKED_TEXTS,
    LEAKS,
    NAMED,
    PAIRS,
    REFERENCES,
    REFUSED,
    TEXT_PAIRS,
    TOKENIZERS,
    UNREAD,
)
from shards.leak_index import LeakIndex, open_index
from shards.pool import Pool, Provenance, Receipt
from shards.receipts import latest


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A source at one revision: the one receipt that admitted it, and what that counted."""

    name: str
    dataset: str
    revision: str
    receipts: tuple[Receipt, ...]
    records: int
    records_refused: int
    samples: int
    samples_refused: int


def read_tokenizer(recipe: Recipe, pool: Pool) -> bytes:
    """The bytes of the tokenizer that the recipe names; one at an address lies in the pool."""
    where = recipe.text.tokenizer
    if "://" in where:
        return _kept_tokenizer(recipe, pool)
    try:
        return Path(where).read_bytes()
    except OSError as error:
        raise UserError(
            f"{where}: {error.strerror}; {recipe.path}: text: tokenizer: must name a tokenizer.json"
        ) from error


def _kept_tokenizer(recipe: Recipe, pool: Pool) -> bytes:
    """What a build found at the tokenizer's address (stage `tokenizer`)."""
    where = recipe.text.tokenizer
    fetched = [
        receipt for receipt in pool.receipts("tokenizer") if receipt.parameters["address"] == where
    ]
    if len(fetched) != 1:
        held = (
            "holds no tokenizer"
            if not fetched
            else f"holds {len(fetched)} files, one after another,"
        )
        raise UserError(
            f"{recipe.path}: text: tokenizer: {pool.store.url} {held} of {where}; "
            f"{REMEDY if not fetched else 'fetch the one that is meant, and name its file'}"
        )
    (data,) = pool.table(fetched, "tokenizers", TOKENIZERS)["json"].to_pylist()
    return bytes(data)


def admitted_sources(
    recipe: Recipe, pool: Pool, pins: Mapping[str, str]
) -> tuple[list[Admitted], dict[str, str]]:
    """The recipe's sources, and the revisions of its held-out sets.

    `pins` maps names to revisions, or to the work ids of their admissions: where media moved, a
    revision has several, which differ in addresses and notes; without an id the first one is taken.
    UserError where the pool holds a source in no revision or in several.
    """
    receipts = pool.receipts("admit")
    sources = [_admitted(receipts, source, pins, recipe) for source in recipe.sources]
    held_out = [_admitted(receipts, each, pins, recipe) for each in recipe.held_out]
    return sources, {each.name: each.revision for each in held_out}


def _admitted(
    receipts: Sequence[Receipt],
    published: Source | HeldOut,
    pins: Mapping[str, str],
    recipe: Recipe,
) -> Admitted:
    name = published.name
    pin = pins.get(published.name, published.revision)
    # a pin is the id of one admission, or the head of a revision
    admissions = [receipt for receipt in receipts if receipt.parameters["source"] == name]
    admissions = [
        receipt
        for receipt in admissions
        if receipt.work_id == pin or str(receipt.parameters["revision"]).startswith(pin)
    ]
    if not admissions:
        at = f" at revision {pin}" if pin else ""
        raise UserError(f"{recipe.path}: the pool holds no source {name!r}{at}; {REMEDY}")
    # one revision of a source: what was read of two may not be mixed
    revisions = sorted({receipt.parameters["revision"] for receipt in admissions})
    if len(revisions) > 1:
        raise UserError(
            f"{recipe.path}: the pool holds {len(revisions)} revisions of {name!r}; "
            f"give it one as `revision`: {', '.join(revisions)}"
        )
    if isinstance(published, Source):
        admissions = _as_published(admissions, published, recipe)
    # two adapters may read one file differently: never mix what they made
    if len({(receipt.version, receipt.parameters.get("format")) for receipt in admissions}) > 1:
        raise UserError(
            f"{recipe.path}: {name!r} was admitted under several versions of its adapter; "
            "build another pool"
        )
    return Admitted(
        name=name,
        dataset=str(admissions[0].parameters.get("dataset", name)),
        revision=str(revisions[0]),
        receipts=(admissions[0],),
        **{
            what: admissions[0].counts[what]
            for what in ("records", "records_refused", "samples", "samples_refused")
        },
    )


def _as_published(admissions: Sequence[Receipt], source: Source, recipe: Recipe) -> list[Receipt]:
    """Those as the recipe's dataset under the recipe's licence; UserError if there is none."""
    held = [(said.dataset, said.licence) for said in map(Provenance.of, admissions)]
    wanted = source.dataset, source.licence
    published = [one for one, said in zip(admissions, held, strict=True) if said == wanted]
    if not published:
        others = sorted({f"{dataset} under {licence}" for dataset, licence in held})
        raise UserError(
            f"{recipe.path}: the pool holds {source.name!r} as {', '.join(others)}, and not as "
            f"{source.dataset} under {source.licence}; {REMEDY}"
        )
    return published


def refused_before(pool: Pool, sources: Sequence[Admitted]) -> list[pa.Table]:
    """Per source: what fetching and admission refused."""
    return [pool.table(each.receipts, "refused", REFUSED) for each in sources]


def unread(pool: Pool, admitted: Admitted) -> dict[str, int]:
    """The fields of a source that nobody reads, and of how many samples."""
    counts: Counter[str] = Counter()
    for row in pool.table(admitted.receipts, "unread", UNREAD).to_pylist():
        counts[row["field"]] += row["records"]
    return dict(sorted(counts.items()))


def named(pool: Pool, admitted: Admitted) -> dict[str, int]:
    """What the names of a source's media made necessary, and how often."""
    counts: Counter[str] = Counter()
    for row in pool.table(admitted.receipts, "named", NAMED).to_pylist():
        counts[row["what"]] += row["count"]
    return dict(sorted(counts.items()))


def comparison(
    recipe: Recipe,
    pool: Pool,
    sources: Sequence[Admitted],
    held_out: Mapping[str, str],
    clips: Clips,
    wanted: NDArray[np.bool_],
    index: LeakIndex | None,
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
    receipts = latest(receipts)
    if any("references" not in one.outputs for one in receipts):
        raise UserError(
            f"{recipe.path}: the clips of {sorted(revisions)} were compared in {pool.store.url} by "
            f"an older version, which knows no references; {REMEDY}"
        )
    # duplicates are facts about pairs; which of them matter hangs on the recipe's clips
    pairs = pool.table(receipts, "clusters", PAIRS)
    pairs = pairs.filter(pc.equal(pairs["judged"], "same"))
    copies = pool.table(receipts, "references", REFERENCES)
    # both ends of each as places among the clips; references besides are numbered behind these
    (left, right), copies_of = _numbered(
        clips, [(pairs, ("clip_a", "clip_b")), (copies, ("clip_id", "reference"))]
    )
    whole = np.asarray(pc.is_in(pairs["relation"], value_set=pa.array(["exact", "near"])), bool)
    same = np.stack([left, right])
    leaks = pool.table(receipts, "leaks", LEAKS)
    # only benchmarks that this recipe holds out, then those of its leak index
    leaks = leaks.filter(pc.is_in(leaks["benchmark"], value_set=pa.array(held_out, pa.string())))
    if index:
        matched = _index_matches(recipe, pool, index, "leak_media", _shown(pool, clips, wanted))
        leaks = pa.concat_tables([leaks, pool.table(matched, "leaks", LEAKS)])
    places = find(clips.ids, ids_of(leaks["clip_id"])).tolist()
    leaks_of_clips = [
        (clip, Leak(row["benchmark"], row["judged"], row["held_out"], row["relation"]))
        for clip, row in zip(places, leaks.to_pylist(), strict=True)
        if clip >= 0 and wanted[clip]
    ]
    every, upright = (Pairs(each, copies_of) for each in (same, same[:, whole]))
    return compared(every, upright, wanted, leaks_of_clips)


def _numbered(
    clips: Clips, tables: Sequence[tuple[pa.Table, tuple[str, str]]]
) -> list[NDArray[np.int64]]:
    """[2, n] of two columns of ids of each table: their places among the clips, or numbers behind
    these of ids that no recipe's sample need name."""
    ids = [[ids_of(table[name]) for name in names] for table, names in tables]
    places = [np.stack([find(clips.ids, each) for each in two]) for two in ids]
    every = np.concatenate([each for two in ids for each in two])
    unknown = np.concatenate([place.ravel() for place in places]) < 0
    numbers = np.concatenate([place.ravel() for place in places])
    # equal ids get one number
    numbers[unknown] = (
        len(clips.ids) + np.unique(every[unknown].view("S16"), return_inverse=True)[1]
    )
    ends = np.cumsum([place.size for place in places])[:-1]
    return [each.reshape(2, -1) for each in np.split(numbers, ends)]


def leak_index(recipe: Recipe) -> LeakIndex | None:
    """The leak index that the recipe names, opened."""
    return open_index(recipe.leaks.index) if recipe.leaks else None


def _shown(pool: Pool, clips: Clips, wanted: NDArray[np.bool_]) -> dict[str, str]:
    """Tables of fingerprints that hold clips `wanted` -> the first of those clips."""
    first_clips: dict[str, str] = {}
    for receipt in pool.receipts("decode"):
        at = find(clips.ids, ids_of(pa.array(receipt.inputs, pa.string())))
        # a table of fingerprints matters if one of its clips is shown
        shown = np.flatnonzero((at >= 0) & wanted[at])
        if len(shown):
            first_clips |= dict.fromkeys(
                receipt.outputs["index/fingerprints"], f"clip {receipt.inputs[shown[0]]}"
            )
    return first_clips


def _index_matches(
    recipe: Recipe, pool: Pool, index: LeakIndex, stage: str, needed: Mapping[str, str]
) -> list[Receipt]:
    """The receipts of matches of the tables `needed` with the index; UserError if one lacks."""
    found = [one for one in pool.receipts(stage) if one.parameters["index"] == index.index_id]
    # the newest match of every table; each must have been matched once at least
    receipts = latest([one for one in found if needed.keys() & set(one.inputs)])
    missing = needed.keys() - {name for receipt in receipts for name in receipt.inputs}
    if missing:
        raise UserError(
            f"{recipe.path}: leaks: {needed[min(missing)]} was never compared with the leak index "
            f"{index.index_id} in {pool.store.url}; {REMEDY}"
        )
    return receipts


def leaked_texts(
    recipe: Recipe, pool: Pool, admitted: Admitted, index: LeakIndex | None
) -> pa.Table:
    """Rows of LEAKED_TEXTS: which samples of a source ask what a benchmark of the index asks."""
    if index is None:
        return LEAKED_TEXTS.empty_table()
    tables = [name for one in admitted.receipts for name in one.outputs["index/samples"]]
    needed = dict.fromkeys(tables, f"the text of {admitted.name!r}")
    receipts = _index_matches(recipe, pool, index, "leak_text", needed)
    return pool.table(receipts, "leaks/text", LEAKED_TEXTS)


def text_pairs(recipe: Recipe, pool: Pool, sources: Sequence[Admitted]) -> pa.Table:
    """Rows of TEXT_PAIRS at least as alike as the recipe says.

    Which pairs are looked at depends on all texts that are compared, so only a comparison of
    exactly these sources counts.
    """
    if recipe.near_text is None:
        return TEXT_PAIRS.empty_table()
    revisions = {each.name: each.revision for each in sources}
    found = [one for one in pool.receipts("twins") if one.parameters["sources"] == revisions]
    receipts = latest(found)
    # a comparison of texts is cut into parts: all of them must be there
    if {one.parameters["part"] for one in receipts} != set(
        range(receipts[0].parameters["parts"] if receipts else 1)
    ):
        raise UserError(
            f"{recipe.path}: near_text: the texts of {sorted(revisions)} were never compared with "
            f"each other in {pool.store.url}; {REMEDY}"
        )
    pairs = pool.table(receipts, "clusters/text", TEXT_PAIRS)
    return pairs.filter(pc.greater_equal(pairs["permille"], ceil(recipe.near_text * 1000)))
