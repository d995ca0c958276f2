"""The index on a node's disk: as it was written, or made again; what is read is what was asked."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import DamagedData, MissingData
from shards.key_index import KeyIndex, entry_ids, indexed, shared
from shards.reader import PoolReader, Reader, open_data
from tests.support.packed import packed
from tests.support.tiny_pool import tiny_manifest

KEYS = [f"{number:032x}" for number in range(50)]


def made() -> pa.Table:
    texts = pa.array([f"what is said under {key}" for key in KEYS], pa.large_string())
    return indexed(entry_ids(KEYS, np.zeros(len(KEYS))), {"turns": texts})


def test_a_file_is_made_once_and_mapped_by_all(tmp_path: Path) -> None:
    make = Mock(side_effect=made)
    tables = [shared(tmp_path, "samples-1", make) for _ in range(3)]
    assert make.call_count == 1
    assert all(table.equals(made()) for table in tables)


@pytest.mark.parametrize("name", ["samples-1.arrow", "samples-1.sha256"])
def test_a_flipped_bit_is_never_read(tmp_path: Path, name: str) -> None:
    shared(tmp_path, "samples-1", made)
    path = tmp_path / name
    clean = path.read_bytes()
    for bit in random.Random(5).sample(range(8 * len(clean)), 100):
        flipped = bytearray(clean)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        make = Mock(side_effect=made)
        assert shared(tmp_path, "samples-1", make).equals(made())
        assert make.call_count == 1 and path.read_bytes() == clean


def test_offsets_that_lead_astray_are_found_though_the_digest_holds(tmp_path: Path) -> None:
    """Reading such a text is a read beyond the file: the process dies of it."""
    shared(tmp_path, "samples-1", made)
    path = tmp_path / "samples-1.arrow"
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        offsets = table["turns"].chunk(0).buffers()[1].to_pybytes()
    data = path.read_bytes()
    at = data.index(offsets[: 8 * len(KEYS)])
    last = at + 8 * len(KEYS)
    crafted = data[:last] + (1 << 40).to_bytes(8, "little") + data[last + 8 :]
    path.write_bytes(crafted)
    path.with_suffix(".sha256").write_text(hashlib.sha256(crafted).hexdigest())
    assert shared(tmp_path, "samples-1", made).equals(made())


def test_another_content_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    shared(tmp_path, "samples-1", made)
    shared(tmp_path, "clips-1", made)
    shared(tmp_path, "samples-2", made)
    names = sorted(path.name for path in tmp_path.iterdir() if path.name != "lock")
    assert names == ["clips-1.arrow", "clips-1.sha256", "samples-2.arrow", "samples-2.sha256"]


BUILDER = """
import sys, time
from pathlib import Path
from shards.key_index import shared
from tests.shards.test_key_index import made
print(len(shared(Path(sys.argv[1]), "samples-1", made)))
"""


def test_processes_that_begin_at_once_share_one_file(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-c", BUILDER, str(tmp_path)]
    begun = [subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    assert [one.communicate()[0] for one in begun] == [b"50\n"] * 2
    assert len(list(tmp_path.glob("*.arrow"))) == 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, str, str]:
    """(manifest, pool, shards)."""
    folder = tmp_path_factory.mktemp("tiny")
    path = tiny_manifest(folder, ratio=("repeat: 1", "repeat: 1"))
    return load_manifest(path), str(folder / "pool"), packed(path)


def sample_of(manifest: Manifest, number: int) -> tuple[str, str]:
    return manifest.names[0], manifest.tables[0]["key"][number].tobytes().hex()


def changed(one: Reader, what: str, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader finds in its index what `change` makes of it."""
    assert isinstance(one, PoolReader)
    row = KeyIndex.row
    monkeypatch.setattr(
        KeyIndex, "row", lambda own, at: (found := row(own, at)) | {what: change(found[what])}
    )


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("turns", lambda turns: turns.replace("Which", "Whose")),
        ("turns", lambda turns: turns.replace('"user"', '"uses"')),
        ("turns", lambda turns: turns.replace('"text"', '"texu"')),
        ("turns", lambda turns: turns.replace("[", "{", 1)),
        ("clip_ids", lambda ids: [ids[0][::-1]]),
    ],
)
def test_words_of_another_sample_are_never_read_from_a_pool(
    tiny: tuple[Manifest, str, str], monkeypatch: pytest.MonkeyPatch, what: str, change: Any
) -> None:
    manifest, pool, _ = tiny
    data = open_data(pool, None, manifest)
    source, key = sample_of(manifest, 0)
    assert data.read(source, key).sample.key == key
    changed(data, what, change, monkeypatch)
    with pytest.raises((DamagedData, MissingData), match=r"another conversation|clip"):
        data.read(source, key)


@pytest.mark.parametrize("where", ["pool", "shards"])
def test_bytes_of_another_sample_are_never_read(
    tiny: tuple[Manifest, str, str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A place of the index that says where another one lies: its checksum holds there."""
    manifest, pool, shards = tiny
    data = open_data(pool if where == "pool" else shards, None, manifest)
    source, key = sample_of(manifest, 0)
    other = data.byte_ranges(*sample_of(manifest, 1))
    name = "_clip_byte_ranges" if where == "pool" else "byte_ranges_of"
    monkeypatch.setattr(data, name, lambda *_: other)
    with pytest.raises(DamagedData, match="not "):
        data.read(source, key)
