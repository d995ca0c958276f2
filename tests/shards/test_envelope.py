"""What decides is as it was written, to the bit, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shards.envelope import Envelope
from shards.errors import DamagedData, UserError
from shards.ids import canonical_json

NOTE = Envelope(schema="slowfast-mix/note/2", if_damaged="remove it", if_outdated="build it again")
VALUE: dict[str, Any] = {"step": 35, "files": {"a.bin": "00ff"}, "names": ["é", "b"], "none": None}
WHERE = "pool/note.json"


def test_a_value_comes_back() -> None:
    assert NOTE.unseal(NOTE.seal(VALUE), WHERE) == VALUE


def test_the_bytes_are_canonical_and_name_their_schema() -> None:
    data = NOTE.seal(VALUE)
    value = json.loads(data)
    assert data == canonical_json(value)
    assert value["schema"] == NOTE.schema
    assert NOTE.seal(dict(reversed(VALUE.items()))) == data


def test_every_flipped_bit_is_refused_by_the_name_of_the_file() -> None:
    data = NOTE.seal(VALUE)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedData, match=WHERE):
            NOTE.unseal(bytes(flipped), WHERE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"[1]",
        b"3",
        b"null",
        b'"sha256"',
        b"[" * 100_000,
        NOTE.seal(VALUE)[:-1],
        NOTE.seal(VALUE) + b"\n",
        json.dumps(json.loads(NOTE.seal(VALUE)), indent=1).encode(),
        NOTE.seal(VALUE).replace(b"35", b"34"),
        NOTE.seal(VALUE).replace(b"35", b"35.0"),
        NOTE.seal(VALUE).replace(b"35", b"NaN"),
        b'{"schema":"slowfast-mix/note/1","sha256":"%s"}' % (b"0" * 64),
        b'{"schema":["slowfast-mix/note/2"],"sha256":1.5}',
    ],
)
def test_what_nobody_sealed_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedData, match=f"{WHERE}: not as it was written; remove it"):
        NOTE.unseal(data, WHERE)


@pytest.mark.parametrize(
    "data",
    [
        canonical_json(VALUE),
        b"{}",
        Envelope(schema="slowfast-mix/note/1", if_damaged="", if_outdated="").seal(VALUE),
        Envelope(schema="slowfast-mix/other/2", if_damaged="", if_outdated="").seal(VALUE),
    ],
)
def test_what_another_version_wrote_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(UserError, match=r"another version.*build it again") as told:
        NOTE.unseal(data, WHERE)
    assert not isinstance(told.value, DamagedData)


@pytest.mark.parametrize("value", [{"rate": 0.5}, {"schema": "x"}, {"sha256": "x"}])
def test_what_an_envelope_cannot_say_is_a_bug(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"float|envelope"):
        NOTE.seal(value)
