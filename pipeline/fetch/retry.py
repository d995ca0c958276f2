"""The one patience with servers, hubs and stores: which failures may pass, and how long is waited.

Time-outs, 408, 429 and 5xx may pass. What a server asks for (`Retry-After`, `RateLimit`) is waited
for within the limits; else the pause doubles. Numbers from outside are ASCII digits, and few.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub.utils import parse_ratelimit_headers
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

Result = TypeVar("Result")
_DIGITS = re.compile(r"[0-9]{1,18}")
_HEADER = 200  # characters of a header that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one download may cost: bytes, seconds in all, bytes a second over `window` seconds."""

    max_bytes: int = 64 << 30
    max_seconds: float = 12 * 3600
    min_speed: int = 16 << 10
    window: float = 30
    stall: float = 30  # seconds without any byte, and for connecting
    answer: float = 60  # seconds for connection, TLS and the head of one answer, however it drips
    attempts: int = 6
    pause: float = 1  # seconds before the second attempt, doubled before each further one
    longest_pause: float = 300  # what hubs count their requests over


class TryAgainError(Exception):
    """This attempt failed in a way that another may not; `wait` is what the server asked for."""

    def __init__(self, problem: Exception, wait: float = 0) -> None:
        super().__init__(str(problem))
        self.problem, self.wait = problem, wait


def patiently(
    attempt: Callable[[], Result], limits: Limits, deadline: float | None = None
) -> Result:
    """What an attempt returns; after the last one, or at the deadline, its problem is raised."""
    end = time.monotonic() + limits.max_seconds if deadline is None else deadline
    pause = limits.pause
    for left in reversed(range(limits.attempts)):
        try:
            return attempt()
        except TryAgainError as failed:
            wait = min(max(pause, failed.wait), limits.longest_pause)
            if not left or time.monotonic() + wait > end:
                raise failed.problem from failed
        time.sleep(wait)
        pause *= 2
    raise AssertionError("limits without an attempt")


def may_pass(status: int) -> bool:
    """Whether the same request may be answered otherwise in a while."""
    return status in (408, 429) or status >= 500


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks for: `Retry-After`, or `RateLimit` where nothing is left."""
    waits = [0.0]
    named = {name.lower(): value[:_HEADER] for name, value in headers.items()}
    with suppress(InvalidHeader, ValueError, OverflowError, TypeError):
        waits.append(
            Retry().parse_retry_after(named["retry-after"]) if "retry-after" in named else 0
        )
    with suppress(ValueError):
        limit = parse_ratelimit_headers({"ratelimit": named.get("ratelimit", "")})
        waits.append(limit.reset_in_seconds if limit and limit.remaining == 0 else 0)
    return max(waits)


def number(text: str) -> int | None:
    """A number that a stranger wrote, None for anything but a few ASCII digits."""
    return int(text) if _DIGITS.fullmatch(text) else None
