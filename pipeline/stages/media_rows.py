"""A medium to decode, as a typed row of the pool's media index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRow:
    """A row of shards.index.MEDIA: a clip, and the address of its original bytes.

    `span` is [start, end) of a video in microseconds, None for all of it.
    """

    clip_id: str
    media_digest: str
    kind: str
    address: str
    span: tuple[int, int] | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> MediaRow:
        """From a row as pyarrow reads it."""
        span = None if row["span"] is None else (row["span"][0], row["span"][1])
        return cls(
            clip_id=row["clip_id"],
            media_digest=row["media_digest"],
            kind=row["kind"],
            address=row["address"],
            span=span,
        )
