"""What one download may cost."""

from __future__ import annotations

from dataclasses import dataclass

from shards.retry import Patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Patience):
    """Bytes, seconds in all, bytes a second over `window` seconds, and the patience with it."""

    max_bytes: int = 64 << 30
    max_seconds: float = 12 * 3600
    min_speed: int = 16 << 10
    window: float = 30
    stall: float = 30  # seconds without any byte, and for connecting
    answer: float = 60  # seconds for connection, TLS and the head of one answer, however it drips
