"""The contract: samples to bytes and back, and every damage named with its place."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.manifest.draws import SampleReference
from pipeline.jobs.write_shards import cut
from pipeline.stages.write_shard import shard_of
from shards.errors import DamagedData, MissingData, UserError
from shards.extents import pair, tar_bytes
from shards.ids import sha256_hex
from shards.index import REFUSED, read_table, table_of, write_table
from shards.key_index import KeyIndex, entry_ids, indexed
from shards.reader import ShardReader, Stored, open_data
from shards.sample import (
    Clip,
    Origin,
    Sample,
    Turn,
    key_of,
    sample_from_json,
    sample_to_json,
    turns_from_json,
)
from shards.store import Store
from shards.verify import RECEIPT, damage


def sample(number: int) -> Stored:
    """A sample of one image and one two-frame video; frames are opaque bytes here."""
    frames = [[b"I" * (10 + number)], [b"V" * 7, b"W" * 8]]
    clips = (
        clip("a" * 32, "image", (0,), (1, 1), frames[0]),
        clip("b" * 32, "video", (0, 512), (1, 1024), frames[1]),
    )
    turns = (
        Turn(role="user", text=f"What is {number}?", media=((0, 0), (1, 5))),
        Turn(role="assistant", text="ünïcode"),
    )
    origin = Origin(dataset="d", revision="r", record=str(number), licence="CC0-1.0")
    key = key_of(turns, [each.clip_id for each in clips])
    return Stored(
        sample=Sample(key=key, source="s", turns=turns, clips=clips, origin=origin), frames=frames
    )


def clip(
    name: str, kind: str, pts: tuple[int, ...], base: tuple[int, int], frames: list[bytes]
) -> Clip:
    return Clip(
        clip_id=name, kind=kind, pts=pts, time_base=base, duration=(1, 1), width=32, height=32,
        nbytes=tuple(len(frame) for frame in frames), rotation=0, is_vfr=False,
        source_fps=(25, 1), colour="bt709",
    )  # fmt: skip


def folder(tmp_path: Path, shards: int = 2, each: int = 5) -> Store:
    """A folder of shards, as pipeline.jobs.write_shards lays it out."""
    store, tables, names = Store(tmp_path), [], {}
    for shard in range(shards):
        stored = [sample(shard * each + i) for i in range(each)]
        drawn = [
            SampleReference(
                position=shard * each + i, source="s", key=item.sample.key, epoch=0, tokens=1,
                patches=1,
            )
            for i, item in enumerate(stored)
        ]  # fmt: skip
        name = f"{'0' * 12}-{shard:06d}.tar"
        data, index = shard_of(name, drawn, stored)
        store.put(name, data)
        names[name] = sha256_hex(data)
        tables += index.to_pylist()
    index = write_table(table_of(index.schema, tables))
    store.put("index.parquet", index)
    receipt = {"manifest_id": "0" * 64, "samples": shards * each, "shards": names}
    store.put("receipt.json", RECEIPT.seal(receipt | {"index": sha256_hex(index)}))
    return store


def test_a_sample_survives_json() -> None:
    original = sample(3).sample
    assert sample_from_json(sample_to_json(original, 0), "here") == original


def test_every_turn_of_a_shard_says_whether_it_is_learned() -> None:
    made = sample(3).sample
    question, answer = made.turns
    unlearned = replace(made, turns=(question, replace(answer, loss=0), question, answer))
    data = sample_to_json(unlearned, 0)
    assert [turn["loss"] for turn in json.loads(data)["turns"]] == [0, 0, 0, 1]
    assert sample_from_json(data, "here") == unlearned


def test_an_answer_that_is_not_learned_makes_another_sample() -> None:
    question, answer = sample(3).sample.turns
    assert replace(question, loss=1) == question
    assert key_of((question, replace(answer, loss=0)), []) != key_of((question, answer), [])


def test_turns_of_before_are_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match="build pool and shards anew"):
        turns_from_json([{"role": "user", "text": "Who?", "media": []}])


def test_a_sample_of_before_is_refused_by_name_with_what_to_do() -> None:
    old = sample_to_json(sample(3).sample, 0).replace(b"sample/2", b"sample/1")
    with pytest.raises(
        UserError, match=r"here: schema 'slowfast-mix/sample/1'.*build .* anew"
    ) as no:
        sample_from_json(old, "here")
    assert not isinstance(no.value, DamagedData)  # no other sample stands in for it


def test_verify_refuses_shards_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.sample.SCHEMA", "slowfast-mix/sample/1")
    folder(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"\.tar: schema 'slowfast-mix/sample/1'.*build .* anew"):
        list(damage(str(tmp_path)))


def test_the_same_samples_give_the_same_bytes() -> None:
    members = [[("a.json", b"{}"), ("a.mjpeg", b"xyz")], [("b.json", b"{}"), ("b.mjpeg", b"")]]
    data, extents = tar_bytes(members)
    assert (data, extents) == tar_bytes(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
    assert [info.name for info in infos] == ["a.json", "a.mjpeg", "b.json", "b.mjpeg"]
    assert {(info.mtime, info.uid, info.gid, info.mode) for info in infos} == {(0, 0, 0, 0o644)}


def test_shards_are_read_back_sample_by_sample(tmp_path: Path) -> None:
    folder(tmp_path)
    reader = open_data(str(tmp_path))
    for number in range(10):
        wanted = sample(number)
        found = reader.read("s", wanted.sample.key)
        assert (found.sample, found.frames) == (wanted.sample, wanted.frames)
    with pytest.raises(MissingData, match="train from the pool"):
        reader.read("s", "0" * 32)
    assert not list(damage(str(tmp_path)))


def test_members_of_many_samples_come_with_few_reads_and_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ShardReader(folder(tmp_path, shards=2, each=5))
    keys = [sample(number).sample.key for number in (*range(10), 3, 3, 7)]
    sources, sizes, raw = ["s"] * len(keys), [], reader.extents.raw
    monkeypatch.setattr(
        reader.extents, "raw", lambda *byte_range: sizes.append(byte_range[2]) or raw(*byte_range)
    )
    byte_ranges = [byte_range for key in keys for byte_range in reader.byte_ranges("s", key)]
    found = [(bytes(a), bytes(b)) for a, b in reader.members(sources, keys)]
    single = [pair(reader.extents.read(byte_range), "") for byte_range in byte_ranges]
    assert found == [(bytes(a), bytes(b)) for a, b in single]
    assert len(sizes) - len(keys) == 5  # two whole shards, then three samples out of order
    shard, at = tmp_path / byte_ranges[2].file, byte_ranges[2].offset + byte_ranges[2].extent // 2
    shard.write_bytes(flip(shard.read_bytes(), 8 * at))
    with pytest.raises(DamagedData, match=f"at byte {byte_ranges[2].offset}:"):
        list(reader.members(sources, keys))


def flip(data: bytes, bit: int) -> bytes:
    at = bit // 8
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def read_all(store: Store) -> list[Stored]:
    reader = ShardReader(store)
    return [reader.read("s", sample(number).sample.key) for number in range(2)]


def test_every_flipped_bit_of_a_sample_is_found_on_reading_and_by_verify(tmp_path: Path) -> None:
    store = folder(tmp_path, shards=1, each=2)
    name = next(name for name in store.list("") if name.endswith(".tar"))
    clean = store.get(name)
    byte_ranges = [ShardReader(store).byte_ranges("s", sample(n).sample.key)[0] for n in range(2)]
    for bit in range(0, 8 * len(clean), 8 * 61 + 3):
        store.put(name, flip(clean, bit))
        hit = [
            n
            for n, byte_range in enumerate(byte_ranges)
            if 0 <= bit // 8 - byte_range.offset < byte_range.extent
        ]
        faults = list(damage(str(tmp_path)))
        assert len(faults) == 2 and all(name in fault for fault in faults)
        if hit:
            assert f"at byte {byte_ranges[hit[0]].offset}" in faults[1]
            assert sample(hit[0]).sample.key in faults[1]
            with pytest.raises(DamagedData, match=f"{name} at byte {byte_ranges[hit[0]].offset}"):
                read_all(store)
        else:
            assert "the end of the archive" in faults[1]
            assert len(read_all(store)) == 2


@pytest.mark.parametrize("name", ["index.parquet", "receipt.json"])
def test_every_flipped_bit_of_index_and_receipt_is_found(tmp_path: Path, name: str) -> None:
    store = folder(tmp_path, shards=1, each=2)
    clean = store.get(name)
    for bit in range(0, 8 * len(clean), 149):
        store.put(name, flip(clean, bit))
        assert any(name in fault for fault in damage(str(tmp_path)))
        with pytest.raises(DamagedData, match=name):
            ShardReader(store)


def test_every_cut_is_found_on_reading_and_by_verify(tmp_path: Path) -> None:
    store = folder(tmp_path, shards=1, each=2)
    name = next(name for name in store.list("") if name.endswith(".tar"))
    clean = store.get(name)
    end = max(
        byte_range.offset + byte_range.extent
        for n in range(2)
        for byte_range in ShardReader(store).byte_ranges("s", sample(n).sample.key)
    )
    for size in range(0, len(clean), 512):
        store.put(name, clean[:size])
        assert f"{name}: {size} bytes, not those that were written" in "".join(
            damage(str(tmp_path))
        )
        if size < end:
            with pytest.raises(DamagedData, match=name):
                read_all(store)


def test_missing_extra_and_swapped_shards_are_named(tmp_path: Path) -> None:
    store = folder(tmp_path, shards=4)
    one, two, three, _ = (name for name in store.list("") if name.endswith(".tar"))
    first, second = store.get(one), store.get(two)
    store.put(one, second), store.put(two, first)
    store.remove(three)
    store.put("extra-000000.tar", b"")
    faults = list(damage(str(tmp_path)))
    assert [fault.split(":")[0].rpartition("/")[2] for fault in faults] == [
        "extra-000000.tar", one, two, three,
    ]  # fmt: skip
    assert f"holds the bytes of {two}" in faults[1] and "missing" in faults[3]


def test_an_index_is_made_once_and_mapped_by_everybody(tmp_path: Path) -> None:
    store, node = folder(tmp_path / "data"), tmp_path / "node"
    first = ShardReader(store, node)
    (made,) = node.glob("*.arrow")
    stamp = made.stat().st_mtime_ns
    assert ShardReader(store, node).byte_ranges("s", sample(3).sample.key) == first.byte_ranges(
        "s", sample(3).sample.key
    )
    assert made.stat().st_mtime_ns == stamp
    folder(tmp_path / "data", each=6)
    ShardReader(store, node)
    assert len(list(node.glob("*.arrow"))) == 1 and not made.exists()


@given(
    st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 65_535)), max_size=40)
)
def test_an_index_finds_every_entry_and_nothing_else(entries: list[tuple[bytes, int]]) -> None:
    ids = entry_ids([key.hex() for key, _ in entries], [source for _, source in entries])
    index = KeyIndex(indexed(ids, {"number": pa.array(range(len(entries)), pa.int64())}))
    rows = index.find(ids)
    first = [entries.index(entry) for entry in entries]
    assert index.numbers("number")[rows].tolist() == first
    other = [(key, (source + 1) % 65_536) for key, source in entries]
    found = index.find(entry_ids([key.hex() for key, _ in other], [source for _, source in other]))
    assert [at >= 0 for at in found.tolist()] == [entry in entries for entry in other]


def test_a_damaged_parquet_table_is_refused() -> None:
    row = dict.fromkeys(REFUSED.names, "text")
    data = write_table(table_of(REFUSED, [row] * 100))
    assert read_table(data, "here").num_rows == 100
    for at in range(4, len(data) - 4, 31):
        flipped = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            assert read_table(flipped, "here") != None  # noqa: E711
            assert read_table(flipped, "here").num_rows == 100
        except DamagedData as error:
            assert "here" in str(error)


def test_a_folder_that_is_neither_pool_nor_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a pool"):
        open_data(str(tmp_path))


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 100))
def test_cutting_keeps_every_position_once_and_the_limit(sizes: list[int], limit: int) -> None:
    pieces = list(cut(sizes, limit))
    assert [at for start, stop in pieces for at in range(start, stop)] == list(range(len(sizes)))
    assert all(stop - start == 1 or sum(sizes[start:stop]) <= limit for start, stop in pieces)
