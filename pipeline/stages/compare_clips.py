"""The stages that compare a recipe's clips with each other and with held-out ones.

    crowds       the crowds that fall to a part of all -> which clips stand for others of them
    candidates   clips that ask (a part of all) -> pairs of pictures whose hashes are near
    same         those of the candidates that fall to a part -> pairs of clips that show the same
    compare      all of these -> references, duplicate pairs and leak matches: the facts that
                 planning reads

How many parts there are depends on the number of clips only; what is found depends on neither.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dedup import verify
from pipeline.dedup.candidates import candidates_with_crowds
from pipeline.dedup.crowds import Crowded
from pipeline.dedup.crowds import crowds as crowds_of
from pipeline.dedup.fingerprint_arrays import HASHED, PICTURES, fingerprints_of, hashed_of, only
from shards.errors import UserError
from shards.ids import ListHash, short_hash
from shards.index import CANDIDATES, CROWDS, FINGERPRINTS, PAIRS
from shards.pool import Pool, Receipt
from shards.receipts import Work

VERSION = "8"
CLIPS_PER_PART = 4096
AT_ONCE = 1 << 16
"""Names of clips of which there are objects at one time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareUnit:
    """The clips of a recipe, the held-out clips with their benchmark's name, and which part of the
    work this is; `previous_tables` are those of the stage before, `crowded` those of the crowds.

    A unit that is `listed` names no clips: they lie in that table of the pool, under `digest`.
    """

    pool: str
    sources: dict[str, str]
    held_out: dict[str, str]
    clip_ids: tuple[str, ...]
    benchmark: dict[str, str]
    part: tuple[int, int] = (0, 1)
    previous_tables: tuple[str, ...] = ()
    crowded: tuple[str, ...] = ()
    listed: str = ""
    count: int = 0
    digest: str = ""

    def clips(self, pool: Pool) -> set[str]:
        """The clips of the recipe."""
        if not self.listed:
            return set(self.clip_ids)
        return set(pool.read(f"compared/{self.listed}")["clip_id"].to_pylist())

    def whole(self) -> Work:
        """The last stage, over all parts."""
        benchmark = short_hash(sorted(self.benchmark.items()))
        parameters = {"sources": self.sources, "held_out": self.held_out}
        clips = self.digest or short_hash(sorted(self.clip_ids))
        return Work("compare", VERSION, parameters, [clips, benchmark])

    def partial(self, stage: str) -> Work:
        """One of the first three stages, over this part."""
        whole = self.whole()
        part = "part {} of {}".format(*self.part)
        return replace(whole, stage=stage, inputs=[*whole.inputs, part])


def parts(unit: CompareUnit) -> list[CompareUnit]:
    """The units of the first three stages."""
    # ceiling division, by held-out clips too: they ask as well
    clips = max(len(unit.clip_ids), unit.count) + len(unit.benchmark)
    count = -(-max(1, clips) // CLIPS_PER_PART)
    return [replace(unit, part=(number, count)) for number in range(count)]


def listed(unit: CompareUnit, clip_names: pa.Array) -> CompareUnit:
    """The unit of the clips of this `digest`, with their names, ascending, in a table of the pool:
    what names millions does not travel."""
    pool = Pool(unit.pool)
    table = pa.table({"clip_id": clip_names.cast(pa.string())})
    receipt = pool.commit(Work("compared", VERSION, {}, [unit.digest]), {"compared": table})
    (name,) = receipt.outputs["compared"]
    return replace(unit, listed=name)


def digest_of(clip_names: pa.Array) -> str:
    """H of the list of these names, read some at a time."""
    hashed = ListHash()
    for start in range(0, len(clip_names), AT_ONCE):
        hashed.add(clip_names[start : start + AT_ONCE].to_pylist())
    return hashed.short()


def tables(receipts: Sequence[Receipt]) -> tuple[str, ...]:
    """The tables that these receipts name, in an order of their own."""
    return tuple(sorted(t for r in receipts for names in r.outputs.values() for t in names))


def finished(unit: CompareUnit) -> bool:
    """Whether these clips were compared before."""
    return Pool(unit.pool).done(unit.whole()) is not None


def crowds(unit: CompareUnit) -> Receipt:
    """The crowds of the recipe's clips whose least clip falls to this part."""
    pool = Pool(unit.pool)
    work = unit.partial("crowds")
    if done := pool.done(work):
        return done
    hashed = hashed_of(_fingerprints(pool, unit, unit.clips(pool), HASHED))
    ours = [names for names in crowds_of(hashed) if _falls_to(names[0], unit.part)]
    tables = [CROWDS.empty_table()]
    if ours:
        table = _fingerprints(pool, unit, [name for names in ours for name in names])
        tables += (verify.crowd_of(only(table, names)) for names in ours)
    return pool.commit(work, {"crowds": pa.concat_tables(tables)})


def candidates(unit: CompareUnit) -> Receipt:
    """What the clips of this part ask of all clips."""
    pool = Pool(unit.pool)
    work = unit.partial("candidates")
    if done := pool.done(work):
        return done
    # a part asks of all clips: what is found does not depend on the number of parts
    ours = unit.clips(pool)
    clips = {*ours, *unit.benchmark}
    asking = {name for name in clips if _falls_to(name, unit.part)}
    asks = fingerprints_of(_fingerprints(pool, unit, asking, PICTURES))
    stored = hashed_of(_fingerprints(pool, unit, clips, HASHED))
    crowded = Crowded.of(_crowds(pool, unit))
    nearby = candidates_with_crowds(asks, stored, ours, clips, crowded)
    return pool.commit(work, {"candidates": nearby})


def same(unit: CompareUnit) -> Receipt:
    """Those candidates of this part that show the same; a pair's part is its first clip's."""
    pool = Pool(unit.pool)
    work = unit.partial("same")
    if done := pool.done(work):
        return done
    nearby = pa.concat_tables(
        [
            CANDIDATES.empty_table(),
            *(pool.read(f"candidates/{name}") for name in unit.previous_tables),
        ]
    )
    # each pair falls to one part, that of its lesser clip id
    first = pc.min_element_wise(nearby["asking"], nearby["stored"])
    ours = [_falls_to(name, unit.part) for name in first.to_pylist()]
    nearby = nearby.filter(pa.array(ours, pa.bool_()))
    names = {*nearby["asking"].to_pylist(), *nearby["stored"].to_pylist()}
    fingerprints = fingerprints_of(_fingerprints(pool, unit, names))
    return pool.commit(work, {"same": verify.same(nearby, fingerprints)})


def compare(unit: CompareUnit) -> Receipt:
    """Duplicate pairs among the recipe's clips, and their matches with held-out clips."""
    pool = Pool(unit.pool)
    ours = unit.clips(pool)
    pairs = pa.concat_tables(
        [PAIRS.empty_table(), *(pool.read(f"same/{name}") for name in unit.previous_tables)]
    ).sort_by([("clip_a", "ascending"), ("clip_b", "ascending")])
    references = verify.references(_crowds(pool, unit))
    comparison = {
        "clusters": verify.duplicates(pairs, ours),
        "leaks": verify.leaks(pairs, ours, unit.benchmark, verify.copies_of(references)),
        "references": references,
    }
    # no check for work done: the caller asks `finished` before it plans the parts
    return pool.commit(unit.whole(), comparison)


def _crowds(pool: Pool, unit: CompareUnit) -> pa.Table:
    tables = (pool.read(f"crowds/{name}") for name in unit.crowded)
    return pa.concat_tables([CROWDS.empty_table(), *tables])


def _falls_to(name: str, residue: tuple[int, int]) -> bool:
    # crc32, since Python's own hash of a string differs from process to process
    return zlib.crc32(name.encode()) % residue[1] == residue[0]


def _fingerprints(
    pool: Pool,
    unit: CompareUnit,
    wanted_ids: Collection[str],
    columns: Sequence[str] = FINGERPRINTS.names,
) -> pa.Table:
    """The fingerprints of these clips: ours as they were decoded, the others as held out."""
    ours = unit.clips(pool)
    # a clip in both sets is fingerprinted by the recipe's own decoding
    sides = {"decode": ours.intersection(wanted_ids), "held_out": set(wanted_ids) - ours}
    tables = [FINGERPRINTS.empty_table().select(columns)]
    for stage, wanted in sides.items():
        for receipt in pool.receipts(stage):
            for name in receipt.outputs["index/fingerprints"]:
                table = pool.read(f"index/fingerprints/{name}")
                # tables are read by name: what was written under other columns cannot be compared
                if table.schema != FINGERPRINTS:
                    where = pool.store.path(f"index/fingerprints/{name}")
                    raise UserError(f"{where}: made by another version; build into another --pool")
                tables.append(only(table.select(columns), wanted))
    return pa.concat_tables(tables)
