"""The stages of the comparison: no partition changes what they find; held-out clips are leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.stages import compare_clips
from shards.errors import UserError
from shards.index import FINGERPRINTS, LEAKS, PAIRS, REFERENCES, table_of
from shards.pool import Pool, Receipt
from shards.profile import Profile
from shards.receipts import Work
from tests.support.pictures import prints, scene


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> compare_clips.CompareUnit:
    """Twelve clips in four tables: a copy, a cut, a mirrored copy; two held out, one ours too."""
    pool = Pool(str(tmp_path_factory.mktemp("pool")), Profile())
    clips = {f"c{seed}": scene(seed) for seed in range(8)}
    clips |= {"copy": clips["c0"], "cut": clips["c1"][3:12]}
    clips |= {"mirror": [frame[:, ::-1] for frame in clips["c2"]], "exam": clips["c3"][2:]}
    rows = [row for name, frames in clips.items() for row in prints(name, frames)]
    for at in range(0, 11, 4):
        some = rows[at : min(at + 4, 11)]
        names = [row["clip_id"] for row in some]
        tables = {"index/fingerprints": table_of(FINGERPRINTS, some)}
        pool.commit(Work("decode", "3", {}, names), tables)
    held = {"index/fingerprints": table_of(FINGERPRINTS, [rows[11], rows[4]])}
    pool.commit(Work("held_out", "3", {}, ["exam", "c4"]), held)
    return compare_clips.CompareUnit(
        pool=pool.store.url,
        sources={"s": "1"},
        held_out={"e": "1"},
        clip_ids=tuple(name for name in clips if name != "exam"),
        benchmark={"exam": "e", "c4": "e"},
    )


def compared(unit: compare_clips.CompareUnit, count: int) -> Receipt:
    parts = [replace(unit, part=(number, count)) for number in range(count)]
    crowded = compare_clips.tables([compare_clips.crowds(part) for part in parts])
    asking = [replace(part, crowded=crowded) for part in parts]
    found = compare_clips.tables([compare_clips.candidates(part) for part in asking])
    same = [compare_clips.same(replace(part, previous_tables=found)) for part in parts]
    return compare_clips.compare(
        replace(unit, previous_tables=compare_clips.tables(same), crowded=crowded)
    )


def test_in_a_crowd_copies_have_a_reference_and_leak_with_it(tmp_path: Path) -> None:
    """Twenty copies of a film, a mirrored one, another film; one more copy is held out."""
    pool = Pool(str(tmp_path / "pool"), Profile())
    film = scene(0)
    brighter = {f"{n:02d}": [np.maximum(each, n % 4) for each in film] for n in range(21)}
    clips = brighter | {"mirror": [frame[:, ::-1] for frame in scene(0)], "other": scene(1)}
    rows = [row for name, frames in clips.items() for row in prints(name, frames)]
    ours = [row for row in rows if row["clip_id"] != "20"]
    held = [row for row in rows if row["clip_id"] == "20"]
    for stage, some in (("decode", ours), ("held_out", held)):
        names = [row["clip_id"] for row in some]
        pool.commit(
            Work(stage, "3", {}, names), {"index/fingerprints": table_of(FINGERPRINTS, some)}
        )
    unit = compare_clips.CompareUnit(
        pool=pool.store.url,
        sources={"s": "1"},
        held_out={"e": "1"},
        clip_ids=tuple(row["clip_id"] for row in ours),
        benchmark={"20": "e"},
    )
    first = compared(unit, 1)
    copies = pool.table([first], "references", REFERENCES).to_pylist()
    assert [(row["clip_id"], row["reference"]) for row in copies] == [
        (f"{n:02d}", "00") for n in range(1, 20)
    ]
    pairs = pool.table([first], "clusters", PAIRS).to_pylist()
    assert [(row["clip_a"], row["clip_b"], row["relation"]) for row in pairs] == [
        ("00", "mirror", "mirrored")
    ]
    leaks = pool.table([first], "leaks", LEAKS).to_pylist()
    assert [row["clip_id"] for row in leaks] == [*(f"{n:02d}" for n in range(20)), "mirror"]
    assert compared(replace(unit, sources={"s": "2"}), 3).outputs == first.outputs


def test_facts_do_not_depend_on_the_number_of_parts(unit: compare_clips.CompareUnit) -> None:
    first = compared(unit, 1)
    pool = Pool(unit.pool)
    pairs = pool.table([first], "clusters", PAIRS).to_pylist()
    assert [(row["clip_a"], row["clip_b"], row["relation"]) for row in pairs] == [
        ("c0", "copy", "exact"),
        ("c1", "cut", "contained"),
        ("c2", "mirror", "mirrored"),
    ]
    leaks = pool.table([first], "leaks", LEAKS).to_pylist()
    assert [(row["clip_id"], row["held_out"], row["relation"]) for row in leaks] == [
        ("c3", "exam", "contained"),
        ("c4", "c4", "exact"),
    ]
    assert compare_clips.finished(unit)
    other = replace(unit, sources={"s": "2"})  # another comparison of the same clips
    assert not compare_clips.finished(other)
    assert compared(other, 3).outputs == first.outputs
    # as a build ships it: the clips lie in the pool
    names = pa.array(sorted(unit.clip_ids))
    digest = compare_clips.digest_of(names)
    shipped = replace(unit, sources={"s": "3"}, clip_ids=(), digest=digest, count=len(names))
    listed = compare_clips.listed(shipped, names)
    assert compare_clips.parts(listed) == [listed]
    assert listed.whole().work_id == replace(unit, sources={"s": "3"}).whole().work_id
    assert compared(listed, 2).outputs == first.outputs


def test_fingerprints_of_another_version_are_refused(unit: compare_clips.CompareUnit) -> None:
    old = FINGERPRINTS.remove(FINGERPRINTS.get_field_index("quality")).empty_table()
    Pool(unit.pool).commit(Work("decode", "2", {}, ["old"]), {"index/fingerprints": old})
    with pytest.raises(UserError, match="another --pool"):
        compare_clips.candidates(replace(unit, sources={"s": "3"}))


def test_parts_are_counted_by_clips(unit: compare_clips.CompareUnit) -> None:
    many = replace(unit, clip_ids=tuple(str(number) for number in range(5000)))
    assert [part.part for part in compare_clips.parts(many)] == [(0, 2), (1, 2)]
    assert [part.part for part in compare_clips.parts(unit)] == [(0, 1)]
