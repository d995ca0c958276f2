"""The one patience with servers, hubs and stores: which failures may pass, and how long is waited.

Time-outs, 408, 429 and 5xx may pass. What a server asks for (`Retry-After`, `RateLimit`) is waited
for within the patience; else the pause doubles (exponential backoff). Numbers from outside are
ASCII digits, and few.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from typing import TypeVar

Result = TypeVar("Result")
_DIGITS = re.compile(r"[0-9]{1,18}")
_NOTHING_LEFT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,18})\s*(?:[;,]|$)")
_HEADER = 200  # characters of a header that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What tells the seconds, and lets them pass; tests bring one that does not wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long a call is tried; `max_seconds` bounds all attempts and pauses."""

    max_seconds: float = 1800
    attempts: int = 6
    pause: float = 1  # seconds before the second attempt, doubled before each further one
    longest_pause: float = 300  # what hubs count their requests over
    clock: Clock = field(default_factory=Clock)


class TryAgainError(Exception):
    """This attempt failed in a way that another may not; `wait` is what the server asked for."""

    def __init__(self, problem: Exception, wait: float = 0) -> None:
        super().__init__(str(problem))
        self.problem, self.wait = problem, wait


def patiently(
    attempt: Callable[[], Result], patience: Patience, deadline: float | None = None
) -> Result:
    """What an attempt returns; after the last one, or at the deadline, its problem is raised."""
    clock = patience.clock
    pause = patience.pause
    end = clock.now() + patience.max_seconds if deadline is None else deadline
    for left in reversed(range(patience.attempts)):
        try:
            return attempt()
        except TryAgainError as failed:
            # exponential backoff, or what the server asked for where that is longer
            wait = min(max(pause, failed.wait), patience.longest_pause)
            if not left or clock.now() + wait > end:
                raise failed.problem from failed
        clock.sleep(wait)
        pause *= 2
    raise AssertionError("patience without an attempt")


def may_pass(status: int) -> bool:
    """Whether the same request may be answered otherwise in a while."""
    return status in (408, 429) or status >= 500


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks for: `Retry-After` (RFC 9110, 10.2.3: seconds or a date), or the
    reset of `RateLimit` (draft-ietf-httpapi-ratelimit-headers) where nothing is left."""
    named = {str(name).lower(): str(value)[:_HEADER] for name, value in headers.items()}
    # remaining 0 and a reset: a limit that is not reached asks for no pause
    limit = _NOTHING_LEFT.search(named.get("ratelimit", ""))
    return max(_retry_after(named.get("retry-after", "").strip()), int(limit[1]) if limit else 0, 0)


def _retry_after(text: str) -> float:
    if (seconds := number(text)) is not None:
        return seconds
    with suppress(ValueError, OverflowError, TypeError, IndexError):
        if date := parsedate_tz(text):
            return mktime_tz(date) - time.time()
    return 0


def number(text: str) -> int | None:
    """A number that a stranger wrote, None for anything but a few ASCII digits."""
    return int(text) if _DIGITS.fullmatch(text) else None


def of_store(problem: Exception, error: Exception) -> Exception:
    """The problem that fsspec's error is, to be tried again unless the store says that this will
    not help; every file system has errors of its own."""
    if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError)):
        return problem
    status, headers = _answer(error)
    changed = status == 416  # the object is shorter than it was
    # a client error will not pass, but for a time-out, a limit and an object that was replaced
    if 400 <= status < 500 and not may_pass(status) and not changed:
        return problem
    return TryAgainError(problem, asked_wait(headers))


def _answer(error: Exception) -> tuple[int, Mapping[str, str]]:
    """(status, headers) of the answer behind an error of fsspec, (0, nothing) if there was none."""
    answer = getattr(error.__cause__, "response", None)  # of botocore, under what s3fs raises
    if isinstance(answer, dict):
        head = answer.get("ResponseMetadata", {})
        return _status(head.get("HTTPStatusCode")), head.get("HTTPHeaders") or {}
    if hasattr(error, "status"):  # of aiohttp
        return _status(error.status), getattr(error, "headers", None) or {}
    return _status(getattr(error, "code", 0)), {}  # of gcsfs


def _status(value: object) -> int:
    return value if isinstance(value, int) else 0
