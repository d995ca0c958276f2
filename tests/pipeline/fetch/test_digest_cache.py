"""Local files are hashed once, and again whenever their bytes may have changed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.fetch import digest_cache
from pipeline.fetch.digest_cache import Digests
from shards.ids import sha256_file, sha256_hex


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Notes which files are read; what was written by a test counts as settled."""
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_cache, "SETTLED", 0)
    noted = Mock(side_effect=sha256_file)
    monkeypatch.setattr(digest_cache, "sha256_file", noted)
    return noted


def asked(*paths: Path) -> list[str]:
    hashed = Digests("a source")
    found = [hashed.of(path) for path in paths]
    hashed.save()
    return found


def test_a_file_is_read_once(tmp_path: Path, read: Mock) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(file.name.encode())
    assert asked(*files) == asked(*files) == [sha256_hex(b"a"), sha256_hex(b"b")]
    assert read.call_count == 2


def in_place(path: Path) -> None:
    """Other bytes of the same length, and the old modification time put back."""
    before = path.stat()
    path.write_bytes(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [in_place, by_another])
def test_a_changed_file_is_noticed(tmp_path: Path, read: Mock, change: Mock) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    assert asked(file) == [sha256_hex(b"first")]
    time.sleep(0.02)  # more than a tick of the clock of files
    change(file)
    assert asked(file) == asked(file) == [sha256_hex(b"other")]
    assert read.call_count == 2


def test_a_file_that_may_still_change_is_read_again(
    tmp_path: Path, read: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_cache, "SETTLED", 10**10)
    file = tmp_path / "file"
    file.write_bytes(b"first")
    assert asked(file) == asked(file)
    assert read.call_count == 2
    assert not (tmp_path / "cache/digests").exists()


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, read: Mock) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache/digests").write_bytes(b"a file where the folder should be")
    assert asked(file) == asked(file) == [sha256_hex(b"first")]
    assert read.call_count == 2


def test_a_table_that_is_not_as_it_was_written_is_made_again(tmp_path: Path, read: Mock) -> None:
    """A flipped bit in a digest would give media another name in silence."""
    files = [tmp_path / "file", tmp_path / os.fsdecode(b"no text \xff")]
    for file in files:
        file.write_bytes(b"first")
    assert asked(*files) == [sha256_hex(b"first")] * 2
    (table,) = (tmp_path / "cache/digests").iterdir()
    clean = table.read_bytes()
    for bit in range(0, 8 * len(clean), 61):
        flipped = bytearray(clean)
        flipped[bit // 8] ^= 1 << bit % 8
        table.write_bytes(flipped)
        assert asked(*files) == [sha256_hex(b"first")] * 2 and table.read_bytes() == clean
