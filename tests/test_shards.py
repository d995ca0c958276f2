"""The contract: samples to bytes and back, and every damage named with its place."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.order import Drawn
from pipeline.pack import cut, shard_of
from shards.errors import DamagedData, MissingData, UserError
from shards.ids import canonical_json, sha256_hex
from shards.index import REFUSED, read_table, table_of, write_table
from shards.reader import ShardReader, Stored, open_data
from shards.sample import Clip, Origin, Sample, Turn, key_of, sample_from_json, sample_to_json
from shards.store import Store
from shards.verify import damage
from shards.writer import tar_bytes


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
    """A folder of shards, as pipeline.pack lays it out."""
    store, tables, names = Store(tmp_path), [], {}
    for shard in range(shards):
        stored = [sample(shard * each + i) for i in range(each)]
        drawn = [
            Drawn(position=shard * each + i, source="s", key=item.sample.key, epoch=0, tokens=1,
                  patches=1)
            for i, item in enumerate(stored)
        ]  # fmt: skip
        name = f"{'0' * 12}-{shard:06d}.tar"
        data, index = shard_of(name, drawn, stored)
        store.put(name, data)
        names[name] = sha256_hex(data)
        tables += index.to_pylist()
    index = write_table(table_of(index.schema, tables))
    store.put("index.parquet", index)
    store.put("receipt.json", canonical_json({"index": sha256_hex(index), "shards": names}))
    return store


def test_a_sample_survives_json() -> None:
    original = sample(3).sample
    assert sample_from_json(sample_to_json(original, 0), "here") == original


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


def test_every_flipped_byte_is_found_and_placed(tmp_path: Path) -> None:
    store = folder(tmp_path, shards=1, each=2)
    name = next(name for name in store.list("") if name.endswith(".tar"))
    clean = store.get(name)
    end = sum(ShardReader(store).rows["extent"].to_pylist())
    for at in range(0, end, 97):
        store.put(name, clean[:at] + bytes([clean[at] ^ 1]) + clean[at + 1 :])
        faults = list(damage(str(tmp_path)))
        assert len(faults) == 2
        assert all(name in fault for fault in faults)
        with pytest.raises(DamagedData, match=name):
            reader = ShardReader(store)
            reader.read_row(0), reader.read_row(1)


def test_missing_extra_and_cut_shards_are_named(tmp_path: Path) -> None:
    store = folder(tmp_path)
    first, second = (name for name in store.list("") if name.endswith(".tar"))
    cut_short = store.get(second)[:2048]
    store.remove(first)
    store.put(second, cut_short)
    store.put("extra-000000.tar", b"")
    faults = "\n".join(damage(str(tmp_path)))
    assert "missing" in faults and "extra shard" in faults and "not the bytes" in faults


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
