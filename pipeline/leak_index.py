"""`python -m pipeline leaks build`: copies of benchmarks -> a leak index, which holds only hashes.

    benchmarks.yaml ─► pin ─► gather ─► admit ─► decode (fingerprints) ─► index
                                    └─► questions (12-grams) ─────────────┘

The steps are those of a build's held-out data, run in a pool of their own beside the index
(`INDEX.work`), so that a killed run goes on where it was. Frames are never written anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures import rules
from mixtures.recipe import HELD_OUT, Archive, HeldOut, held_out
from mixtures.strict_yaml import load_yaml
from pipeline import fetch, media, stages
from pipeline.build import admit, decode, each
from pipeline.cluster import connect
from pipeline.fuse import Fuse
from pipeline.gather import Pinned, gather, pin
from pipeline.leaks import GRAM
from pipeline.progress import steps
from pipeline.records import Record
from pipeline.shingles import Ends, Hashes, ngrams, wholes, words_of
from pipeline.sources import records
from pipeline.sources.catalogue import ID, catalogue
from shards.errors import UserError
from shards.ids import sha256_file, work_id
from shards.index import FINGERPRINTS, LEAK_MEDIA, LEAK_QUESTIONS, SAMPLES, table_of
from shards.leak_index import LeakIndex, write_index
from shards.pool import Pool, Receipt
from shards.profile import Profile
from shards.store import Store

QUESTIONS_VERSION = "1"
COMMON = 8  # questions; a 12-gram of more of one benchmark is its way of asking, no question
_HUB = f"hf://datasets/{ID}/"


def load_benchmarks(path: Path) -> tuple[HeldOut, ...]:
    """The benchmarks that a file names; UserError names the file, the key and the remedy."""
    entry = rules.section(_benchmark, HELD_OUT | {"copy": rules.text}, "name")
    known = {"benchmarks": rules.entries(entry)}
    found: tuple[HeldOut, ...] = rules.section(dict, known, "benchmarks")(
        load_yaml(path), str(path)
    )["benchmarks"]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice or not names:
        raise UserError(f"{path}: benchmarks: {f'two are named {twice!r}' if twice else 'empty'}")
    return found


def _benchmark(*, copy: str = "", **values: Any) -> HeldOut:
    """An entry as it is, or with the catalogue's hub addresses turned into those of a `copy`."""
    own = held_out(**values)
    entry = catalogue().get(own.dataset)
    if not copy or not entry:
        if copy:
            raise UserError(
                f"{own.name}: copy: {own.dataset!r} is not in the catalogue; name its `format`, "
                "`annotations` and `media`"
            )
        return own
    archives = () if own.media else entry.archives
    return replace(
        own,
        format=own.format or entry.format,
        annotations=own.annotations or tuple(_local(at, copy) for at in entry.annotations),
        archives=own.archives
        or tuple(Archive(at=_local(one.at, copy), under=one.under) for one in archives),
    )


def _local(address: str, copy: str) -> str:
    return address.replace(_HUB, f"{copy.rstrip('/')}/")


def build_index(path: str, out: str, address: str | None = None, *, uncaged: bool) -> LeakIndex:
    """Make or renew the index `out` of the benchmarks in the file `path`."""
    media.check_tools(uncaged=uncaged)
    pinned = [pin(one, path) for one in load_benchmarks(Path(path))]
    Store(out).check_writable()
    pool = Pool(f"{out.rstrip('/')}.work", Profile())
    with connect(address) as workers, steps() as bars:
        gathered = gather(pinned, "held_out", pool, workers, bars, uncaged, Fuse({}))
        admitted = admit(pinned, gathered, pool, workers, bars.step("admit"))
        decode("held_out", admitted, pool, workers, bars, uncaged, Fuse({}))
        with bars.step("questions") as step:
            step.begin(len(pinned))
            asked = list(each(workers, questions, [_unit(one, pool) for one in pinned], step))
    by_name = {receipt.parameters["benchmark"]: receipt for receipt in asked}
    return _write(out, pool, pinned, admitted, by_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionsUnit:
    """The annotations of one benchmark, as pinned addresses."""

    pool: str
    benchmark: str
    format: str
    annotations: tuple[str, ...]


def _unit(pinned: Pinned, pool: Pool) -> QuestionsUnit:
    return QuestionsUnit(
        pool=pool.store.url,
        benchmark=pinned.source.name,
        format=pinned.source.format,
        annotations=pinned.annotations,
    )


def questions(unit: QuestionsUnit) -> Receipt:
    """The distinct questions of a benchmark as hashes, whether or not their media are there."""
    pool = Pool(unit.pool)
    files = [fetch.local(address) for address in unit.annotations]
    inputs = [file.digest or sha256_file(file.path) for file in files]
    parameters = {"benchmark": unit.benchmark, "format": unit.format}
    done = pool.receipt(work_id("questions", QUESTIONS_VERSION, parameters, inputs))
    if done:
        return done
    found = [
        (item.record, turn.text)
        for item in records(unit.format, [file.path for file in files])
        for turn in (item.turns if isinstance(item, Record) else ())
        if turn.role == "user"
    ]
    tables = {"questions": question_table(unit.benchmark, found)}
    return pool.commit("questions", QUESTIONS_VERSION, parameters, inputs, tables)


def question_table(benchmark: str, found: Sequence[tuple[str, str]]) -> pa.Table:
    """Rows of LEAK_QUESTIONS of (record, text), each distinct text and first line once."""
    lines = [(record, text.partition("\n")[0]) for record, text in found]
    every = [*found, *lines]
    words = words_of([text for _, text in every])
    whole = wholes(words)
    _, first = np.unique(whole, return_index=True)
    first = np.sort(first[words.counts[first] > 0])
    grams, ends = ngrams(words, GRAM)
    row = np.repeat(np.arange(len(every)), np.diff(ends))
    own = np.isin(row, first)
    grams, row = _distinct(grams[own], row[own])
    known, uses = np.unique(grams[row < len(found)], return_counts=True)
    told = ~np.isin(grams, known[uses > COMMON])
    grams, row = grams[told], row[told]
    offsets = np.append(np.searchsorted(row, first), len(row))
    columns = [
        pa.array([benchmark] * len(first), pa.string()),
        pa.array([every[i][0] for i in first], pa.string()),
        pa.array(words.counts[first], pa.int32()),
        pa.array(whole[first]),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(grams)),
    ]
    return pa.table(columns, schema=LEAK_QUESTIONS)


def _distinct(grams: Hashes, row: Ends) -> tuple[Hashes, Ends]:
    """Each 12-gram of a row once, in the order of (row, 12-gram)."""
    order = np.lexsort((grams, row))
    grams, row = grams[order], row[order]
    fresh = np.append(True, (grams[1:] != grams[:-1]) | (row[1:] != row[:-1]))[: len(row)]
    return grams[fresh], row[fresh]


def _write(
    out: str,
    pool: Pool,
    pinned: Sequence[Pinned],
    admitted: dict[str, Receipt],
    asked: dict[str, Receipt],
) -> LeakIndex:
    """The index out of what its pool holds of these benchmarks."""
    shown = {name: _shown(pool, receipt) for name, receipt in sorted(admitted.items())}
    clips = pa.array(sorted({clip for one in shown.values() for clip in one}), pa.string())
    prints = pool.table(pool.receipts("held_out"), "index/fingerprints", FINGERPRINTS)
    prints = prints.filter(pc.is_in(prints["clip_id"], value_set=clips))
    prints = prints.sort_by("clip_id")
    looked_at = set(prints["clip_id"].to_pylist())
    media_rows = [
        {"clip_id": clip, "benchmark": name, "record": record}
        for name, one in shown.items()
        for clip, record in sorted(one.items())
        if clip in looked_at
    ]
    tables = {
        "fingerprints": prints,
        "media": table_of(LEAK_MEDIA, media_rows),
        "questions": pool.table([asked[name] for name in shown], "questions", LEAK_QUESTIONS),
    }
    sources = {one.source.name: one.source for one in pinned}
    books = [
        {
            "name": name,
            "dataset": sources[name].dataset,
            "revision": admitted[name].parameters["revision"],
            "records": admitted[name].counts["records"],
            "records_refused": admitted[name].counts["records_refused"],
            "without_media": admitted[name].counts["samples_refused"],
            "questions": len(pool.table([asked[name]], "questions", LEAK_QUESTIONS)),
            "media": len(one),
            "media_refused": len(one.keys() - looked_at),
        }
        for name, one in shown.items()
    ]
    return write_index(out, stages.DECODE_VERSION, books, tables)


def _shown(pool: Pool, admitted: Receipt) -> dict[str, str]:
    """Clips of a benchmark -> the first record that shows each."""
    found: dict[str, str] = {}
    for row in pool.table([admitted], "index/samples", SAMPLES).to_pylist():
        for clip in row["clip_ids"]:
            found[clip] = min(found.get(clip, row["record"]), row["record"])
    return found
