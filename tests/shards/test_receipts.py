"""Snapshots of receipts: readers see every receipt once, whoever compacts, and whatever dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs import collect
from pipeline.stages import decode_media, pending
from pipeline.stages.media_rows import MediaRow
from shards import receipts
from shards.errors import DamagedData, UserError
from shards.index import REFUSED, SAMPLES, table_of
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import SNAPSHOTS, Receipt, Work
from shards.store import Store
from tests.support import small_world
from tests.support.in_process import archived, gathered

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("decode", "admit")


def pool_at(folder: Path | str) -> Pool:
    return Pool(str(folder), Profile())


def work(pool: Pool, number: int, codes: dict[str, str] | None = None) -> Receipt:
    """One finished piece of work on some media; `codes` are its refusals by clip."""
    clips = list(codes or {f"{number:032x}": ""})
    rows = [
        dict.fromkeys(REFUSED.names, "") | {"key": clip, "code": code}
        for clip, code in (codes or {}).items()
        if code
    ]
    counts = {"media": len(clips), "refused": len(rows)}
    stage = STAGES[number % 2]
    tables = {"refused": table_of(REFUSED, rows)}
    return pool.commit(
        Work(stage, "1", {"n": number, "of": {"a": 1}}, clips), tables, counts=counts
    )


def everything(pool: Pool) -> list[Receipt]:
    return [receipt for stage in STAGES for receipt in pool.receipts(stage)]


def in_order(done: dict[int, Receipt]) -> list[Receipt]:
    return sorted(done.values(), key=lambda one: (STAGES.index(one.stage), one.work_id))


STEPS = st.lists(st.one_of(st.integers(0, 30), st.sampled_from(["first", "second"])), max_size=40)


@given(STEPS)
def test_compaction_is_seen_by_nobody(steps: list[int | str]) -> None:
    """Two processes work and compact in any order; both, and a third one, see what was done."""
    url = f"memory://pool-{time.monotonic_ns()}"
    pools = {"first": pool_at(url), "second": pool_at(url)}
    done: dict[int, Receipt] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipts, "MOST_SNAPSHOTS", 3)
        for step in steps:
            if isinstance(step, int):
                done[step] = work(pools["first"], step)
            else:
                pools[step].ledger.compact()
            assert everything(pools["second"]) == in_order(done)
    assert everything(Pool(url)) == in_order(done)
    assert len(Pool(url).store.list(SNAPSHOTS)) <= 3


def test_a_compacted_pool_is_read_in_a_few_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_at(tmp_path)
    done = {number: work(pool, number) for number in range(20)}
    assert pool.ledger.compact(21) == 0
    assert pool.ledger.compact(20) == 20
    assert pool.ledger.compact() == 0
    done[20] = work(pool, 20)
    reader = Pool(str(tmp_path))
    get = Mock(side_effect=reader.store.get)
    monkeypatch.setattr(reader.store, "get", get)
    assert everything(reader) == in_order(done)
    assert get.call_count == 3  # the snapshot for each stage, and the one loose receipt


def test_overlapping_snapshots_count_once(tmp_path: Path) -> None:
    """Two compactions at the same time: each began before the other had ended."""
    pool = pool_at(tmp_path)
    done = {0: work(pool, 0)}
    pool.ledger.compact()
    (mine,) = pool.store.list(SNAPSHOTS)
    kept = pool.store.get(f"{SNAPSHOTS}/{mine}")
    pool.store.remove(f"{SNAPSHOTS}/{mine}")
    done[1] = work(pool, 1)
    pool.ledger.compact()
    pool.store.put_once(f"{SNAPSHOTS}/{mine}", kept)
    assert everything(Pool(str(tmp_path))) == in_order(done)


def test_a_snapshot_that_goes_away_while_it_is_read_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_at(tmp_path)
    done = {number: work(pool, number) for number in range(3)}
    pool.ledger.compact()
    reader = Pool(str(tmp_path))
    listed = reader.store.list

    def then_removed(folder: str) -> list[str]:
        names = listed(folder)
        for name in names if folder == SNAPSHOTS else ():
            reader.store.remove(f"{folder}/{name}")
        return names

    monkeypatch.setattr(reader.store, "list", then_removed)
    assert everything(reader) == in_order(done)


def test_copies_are_read_without_a_list_of_receipts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_at(tmp_path)
    done = {number: work(pool, number) for number in range(4)}
    pool.ledger.compact()
    work(pool, 4)
    reader, plain = Pool(str(tmp_path)), pool.store.list
    listed: list[str] = []
    monkeypatch.setattr(reader.store, "list", lambda name: listed.append(name) or plain(name))
    found = [one for stage in STAGES for one in receipts.receipts_in(reader.ledger.copied(stage))]
    assert found == in_order(done)
    assert set(listed) == {SNAPSHOTS}


def test_archives_are_not_begun_beside_a_snapshot_of_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told by snapshots alone what is done; one that cannot be removed is named."""
    recipe = archived(tmp_path, each=16, shared="*")
    _, pool, _ = gathered(recipe)
    pool.ledger.compact()
    pool.store.remove(receipts.receipt_name(pool.receipts("decode")[0].work_id))

    def stays(_: Store, name: str) -> None:
        raise PermissionError(13, "not yours", name)

    monkeypatch.setattr(Store, "remove", stays)
    with pytest.raises(UserError, match=r"holds receipts that were removed, and stays \(not yours"):
        gathered(recipe)


def test_a_receipt_that_somebody_removed_is_not_done(tmp_path: Path) -> None:
    pool = pool_at(tmp_path)
    done = {number: work(pool, number) for number in range(4)}
    pool.ledger.compact()
    gone = done.pop(2)
    pool.store.remove(f"receipts/{gone.work_id}.json")
    assert everything(pool) == everything(Pool(str(tmp_path))) == in_order(done)
    assert pool.ledger.read(gone.work_id) is None


def test_a_damaged_snapshot_is_named_and_can_be_removed(tmp_path: Path) -> None:
    pool = pool_at(tmp_path)
    done = {number: work(pool, number) for number in range(4)}
    pool.ledger.compact()
    (snapshot,) = (tmp_path / SNAPSHOTS).iterdir()
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    with pytest.raises(DamagedData, match=f"{snapshot.name}: not the bytes .* remove it"):
        everything(Pool(str(tmp_path)))
    snapshot.unlink()
    assert everything(Pool(str(tmp_path))) == in_order(done)


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_every_flipped_bit_of_a_receipt_is_named(tmp_path: Path, place: str) -> None:
    pool = pool_at(tmp_path if place == "folder" else f"memory://pool-{time.monotonic_ns()}")
    name = f"receipts/{work(pool, 1).work_id}.json"
    clean = pool.store.get(name)
    for bit in range(0, 8 * len(clean), 37):
        flipped = bytearray(clean)
        flipped[bit // 8] ^= 1 << bit % 8
        pool.store.put(name, bytes(flipped))
        with pytest.raises(DamagedData, match=f"{name}: not as it was written; remove it"):
            Pool(pool.store.url).receipts(STAGES[1])


def test_a_receipt_under_another_name_is_named(tmp_path: Path) -> None:
    """Both are whole; a copy under another work's name would say that this work is done."""
    pool = pool_at(tmp_path)
    one, other = (pool.store.path(f"receipts/{work(pool, n).work_id}.json") for n in (1, 3))
    Path(other).write_bytes(Path(one).read_bytes())
    with pytest.raises(DamagedData, match=f"{other}: the receipt of other work, {Path(one).stem};"):
        pool.receipts(STAGES[1])


def test_a_receipt_without_a_folder_of_its_stage_is_named(tmp_path: Path) -> None:
    pool = pool_at(tmp_path)
    made = work(pool, 1)
    assert pool.table([made], "refused", REFUSED).num_rows == 0
    with pytest.raises(DamagedData, match=f"{made.work_id}.json: names no file of index/samples/"):
        pool.table([made], "index/samples", SAMPLES)


WORKER = """
import sys
from pathlib import Path
from shards import receipts
from tests.shards.test_receipts import pool_at, work
receipts.MOST_SNAPSHOTS = 2
pool, number = pool_at(sys.argv[1]), 0
while True:
    number += 1
    work(pool, number)
    pool.ledger.compact()
    print(number, flush=True)
"""


def test_kills_while_compacting_lose_and_double_nothing(tmp_path: Path) -> None:
    """Two workers on one pool do and compact the same work; both are killed somewhere in it."""
    words = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    for worker, lines in zip(workers, (9, 14), strict=True):
        assert worker.stdout is not None
        for _ in range(lines):
            worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    pool = Pool(str(tmp_path))
    names = sorted(name.removesuffix(".json") for name in pool.store.list("receipts"))
    assert sorted(receipt.work_id for receipt in everything(pool)) == names
    assert len(names) >= 14
    before = everything(pool)
    pool.ledger.compact()
    assert everything(Pool(str(tmp_path))) == before


def test_the_command_compacts_a_pool(tmp_path: Path) -> None:
    work(pool_at(tmp_path), 1)
    words = [sys.executable, "-m", "pipeline", "compact", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}: 1 loose receipts are now in a snapshot\n"
    words[-1] += "/nothing"
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "not a pool" in done.stderr


def test_a_long_gathering_compacts_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four archives of two parts each; every archive reads what the pool holds when it begins."""
    monkeypatch.setattr(pending, "IMAGES_PER_PART", 2)
    monkeypatch.setattr(collect, "MANY", 3)
    recipe = archived(tmp_path, each=4, shared="*")
    recipe.write_text(recipe.read_text().replace("max_refused: 0.2", "max_refused: 0.5"))
    _, pool, whole = gathered(recipe)
    # one before the archives, of what is there, and one for each three parts
    assert (whole, len(pool.store.list(SNAPSHOTS))) == (4, 3)
    names = {clip for receipt in pool.receipts("decode") for clip in receipt.inputs}
    assert len(names) == 16


CLIPS = st.integers(0, 9).map(lambda number: bytes([number] * 15 + [0]).hex())
CODES = st.sampled_from(["", "MEDIA_EMPTY", "MEDIA_TOO_BIG"])


@given(st.lists(st.dictionaries(CLIPS, CODES, min_size=1), max_size=6), st.lists(CLIPS))
def test_what_became_of_media_is_what_their_receipts_say(
    units: list[dict[str, str]], asked: list[str]
) -> None:
    pool = pool_at(f"memory://pool-{time.monotonic_ns()}")
    done = {n: work(pool, 2 * n, codes) for n, codes in enumerate(units)}
    said = {n: pending.outcomes(pool, receipt) for n, receipt in done.items()}
    assert said == dict(enumerate(units))
    pool.ledger.compact()
    reader = Pool(pool.store.url)
    found = pending.Known(reader, reader.ledger.table("decode")).outcomes(asked)
    assert found.keys() == {clip for clip in asked for unit in units if clip in unit}
    assert all(any(unit.get(clip) == code for unit in units) for clip, code in found.items())


def test_tables_from_afar_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.store._AHEAD", 2)
    pool = pool_at(f"memory://pool-{time.monotonic_ns()}")
    done = [work(pool, n, {f"{n:032x}": f"CODE_{n}"}) for n in range(7)]
    rows = pool.table(done, "refused", REFUSED)
    assert rows["code"].to_pylist() == [f"CODE_{n}" for n in range(7)]
    assert isinstance(rows, pa.Table)


def test_a_decode_that_was_done_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, picture = pool_at(tmp_path / "pool"), tmp_path / "0.jpg"
    small_world.picture(picture, 0)
    address = f"file:{picture}"
    row = MediaRow(clip_id="0" * 32, media_digest="", kind="image", address=address, span=None)
    unit = decode_media.MediaUnit(pool=pool.store.url, stage="decode", rows=(row,))
    first = decode_media.decode(unit)
    assert (first.counts["media"], first.counts["refused"]) == (1, 0)
    monkeypatch.setattr(decode_media, "decode_all", None)
    assert decode_media.decode(unit) == first
