"""Identities: every id of the project is a sha256 over canonical JSON or over bytes."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

KEY_PATTERN = re.compile(r"[0-9a-f]{32}")
_CHUNK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """The one JSON spelling of `value`: sorted keys, no spaces, UTF-8, integers only.

    Raises ValueError on a float: a number that enters an id must be an integer or a string.
    """
    # floats print differently between libraries; integers and strings do not
    _refuse_floats(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(f"a float in canonical JSON: {value!r}")
    if isinstance(value, dict):
        # JSON would turn a key 1 into "1", and two mappings into one id
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"keys of canonical JSON must be strings: {list(value)}")
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)


def sha256_hex(data: bytes) -> str:
    """sha256 of bytes, 64 lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    # in pieces: media are larger than memory may be
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def short_hash(value: Any) -> str:
    """H: the first 32 hex of the sha256 of the canonical JSON of `value`."""
    # 128 bits: collisions are out of reach for any number of samples
    return sha256_hex(canonical_json(value))[:32]


class MappingHash:
    """`short_hash` of a mapping too large to be held, or of a list that ends with it.

    Its items are added in ascending order of their keys, each key once.
    """

    def __init__(self, *before: Any) -> None:
        # what canonical JSON has before and behind the items
        self._sha256 = hashlib.sha256(b"[" if before else b"")
        for value in before:
            self._sha256.update(canonical_json(value) + b",")
        self._sha256.update(b"{")
        self._ends = b"}]" if before else b"}"
        self._comma = b""

    def add(self, key: str, value: Any) -> None:
        """One more item."""
        # the canonical JSON of one item without its braces
        self._sha256.update(self._comma + canonical_json({key: value})[1:-1])
        self._comma = b","

    def short(self) -> str:
        """The hash of all items so far."""
        whole = self._sha256.copy()
        whole.update(self._ends)
        return whole.hexdigest()[:32]


class ListHash:
    """`short_hash` of a list of texts too long to be held, some of them at a time."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256(b"[")
        self._comma = b""

    def add(self, values: Sequence[str]) -> None:
        """The texts that come next, one at least."""
        # the canonical JSON of some without its brackets
        self._sha256.update(self._comma + canonical_json(values)[1:-1])
        self._comma = b","

    def short(self) -> str:
        """The hash of all texts so far."""
        whole = self._sha256.copy()
        whole.update(b"]")
        return whole.hexdigest()[:32]


def normalise(text: str) -> str:
    """Text as compared for equality: Unicode NFC, runs of white space folded to one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def clip_id(
    media_digest: str,
    kind: str,
    span: Sequence[int] | None,
    profile_id: str,
    fps: int | None = None,
) -> str:
    """H(media_digest, kind, fps, span, profile_id): what is shown of which bytes, as what.

    `kind` is image or video, `fps` of pictures that make up a video how many of them make a second,
    `span` is (start, end) in microseconds, or None.
    """
    # equal bytes under one profile are one clip, whoever names them
    return short_hash([media_digest, kind, fps, None if span is None else list(span), profile_id])


def turns_digest(
    turns: Iterable[tuple[str, str, Sequence[int]]], unlearned: Iterable[bool] = repeat(False)
) -> str:
    """H over (role, normalised text, clip indexes) of each turn; 0 behind an answer `unlearned`."""
    return short_hash(
        [
            # a 0 is added only where an answer is not learned, so that ids of before hold
            [role, normalise(text), list(clips), *([0] if off else [])]
            for (role, text, clips), off in zip(turns, unlearned, strict=False)
        ]
    )


def sample_key(digest_of_turns: str, clip_ids: Sequence[str]) -> str:
    """H(normalised turns, ordered clip ids); the source is not part of it."""
    return short_hash([digest_of_turns, list(clip_ids)])


def work_id(stage: str, version: str, parameters: Any, inputs: Sequence[str]) -> str:
    """The name of a receipt: sha256 of (stage version, parameters, input digests)."""
    return sha256_hex(canonical_json([stage, version, parameters, list(inputs)]))
