"""The note beside a half-fetched part: believed whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.fetch.part_version import read_version, write_version

ETAG = '"v1 é"'


@pytest.fixture
def part(tmp_path: Path) -> Path:
    part = tmp_path / "part"
    part.write_bytes(b"half")
    write_version(part, ETAG)
    return part


def note(part: Path) -> Path:
    return part.with_name("part.version")


def test_what_was_written_is_read_until_it_is_forgotten(part: Path) -> None:
    assert read_version(part) == ETAG
    write_version(part, "")
    assert read_version(part) == "" and not note(part).exists()
    write_version(part, "")


def test_no_flipped_bit_and_no_torn_note_says_anything(part: Path) -> None:
    whole = note(part).read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        note(part).write_bytes(data)
        assert read_version(part) == "", bit
    for length in range(len(whole)):
        note(part).write_bytes(whole[:length])
        assert read_version(part) == "", length


@pytest.mark.parametrize("text", ['"v1"', "5", "null", "[" * 100_000, "{}", '{"version": "x"}'])
def test_what_is_no_note_says_nothing(part: Path, text: str) -> None:
    note(part).write_text(text)
    assert read_version(part) == ""


def test_the_note_of_another_part_says_nothing(part: Path) -> None:
    other = part.with_name("other")
    other.write_bytes(b"half")
    shutil.copyfile(note(part), other.with_name("other.version"))
    assert read_version(other) == ""
    part.unlink()
    assert read_version(part) == ""
