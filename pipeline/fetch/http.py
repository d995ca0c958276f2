"""One address -> one file, over http(s): resumed, bounded, retried, checked.

A part that is there is continued only under a strong ETag (`If-Range`), so that two versions are
never spliced; a server that ignores the range, or that changed the object, starts it again.
Nothing is unpacked on the way (`Accept-Encoding: identity`), every redirect is judged by
pipeline.fetch.url_guard, and bytes, wall time and speed are bounded.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import urllib3

from pipeline.fetch.url_guard import FetchProblem, Origin, connection

MAX_HOPS = 5
PIECE = 1 << 16
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_PAGE = (b"<!doctype html", b"<html", b"<?xml")
_POINTER = b"version https://git-lfs.github.com/spec/"
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....(WEBP|AVI )|....ftyp|\x1a\x45\xdf\xa3|FLV\x01",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one download may cost: bytes, seconds in all, bytes a second over `window` seconds."""

    max_bytes: int = 64 << 30
    max_seconds: float = 12 * 3600
    min_speed: int = 16 << 10
    window: float = 30
    stall: float = 30  # seconds without any byte, and for connecting
    attempts: int = 6
    pause: float = 1  # seconds before the second attempt, doubled before each further one
    longest_pause: float = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Where the bytes are, and what is known of them beforehand.

    `headers` go to the first host only; a `trusted` origin is not judged.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    nbytes: int | None = None
    trusted: Origin | None = None


class _TryAgainError(Exception):
    """This attempt failed in a way that another may not; `wait` is what the server asked for."""

    def __init__(self, problem: FetchProblem, wait: float = 0) -> None:
        super().__init__(problem.code)
        self.problem, self.wait = problem, wait


def download(request: Request, part: Path, limits: Limits) -> None:
    """Complete `part` with the bytes of the address; raises FetchProblem.

    A part left by an earlier call is continued; its ETag lies beside it, as `<part>.etag`.
    """
    deadline = time.monotonic() + limits.max_seconds
    pause = limits.pause
    for attempt in range(limits.attempts):
        try:
            _attempt(request, part, limits, deadline)
            _tag_file(part).unlink(missing_ok=True)
            return
        except _TryAgainError as failed:
            wait = min(max(pause, failed.wait), limits.longest_pause)
            if attempt + 1 == limits.attempts or time.monotonic() + wait > deadline:
                raise failed.problem from failed
            time.sleep(wait)
            pause *= 2


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _attempt(request: Request, part: Path, limits: Limits, deadline: float) -> None:
    """One request, continuing the part if its ETag is known."""
    tag = _tag_file(part)
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "slowfast-mix"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": json.loads(tag.read_text())}
    response = _open(request, headers, limits)
    try:
        total, at = _judge(response, have, part)
        if request.nbytes is not None and total is not None and total != request.nbytes:
            detail = f"{total} bytes, the publisher names {request.nbytes}"
            raise FetchProblem("FETCH_CHANGED", f"{request.url}: {detail}")
        expected = total if total is not None else request.nbytes
        if expected is not None and expected > limits.max_bytes:
            raise FetchProblem("FETCH_TOO_BIG", f"{request.url}: {expected} bytes")
        etag = response.headers.get("ETag", "")
        if etag.startswith('"'):
            tag.write_text(json.dumps(etag))
        elif at == 0:
            tag.unlink(missing_ok=True)
        _receive(request, response, part, at, limits, deadline)
    finally:
        response.close()
    nbytes = part.stat().st_size
    if expected is None and not response.chunked:
        raise FetchProblem("FETCH_SHORT", f"{request.url}: the server never said how much there is")
    if expected is not None and nbytes != expected:
        problem = FetchProblem("FETCH_SHORT", f"{request.url}: {nbytes} of {expected} bytes")
        if nbytes > expected:
            part.unlink()
        raise _TryAgainError(problem)


def _open(request: Request, headers: dict[str, str], limits: Limits) -> urllib3.BaseHTTPResponse:
    """The answer behind at most MAX_HOPS redirects."""
    url, own = request.url, dict(request.headers)
    for _ in range(MAX_HOPS + 1):
        pool, target, host = connection(url, request.trusted)
        try:
            response = pool.urlopen(
                "GET",
                target,
                headers=headers | own | {"Host": host},
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=limits.stall, read=limits.stall),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            problem = FetchProblem("FETCH_UNREACHABLE", f"{url}: {_said(error)}")
            raise _TryAgainError(problem) from error
        location = response.headers.get("Location")
        if response.status not in (301, 302, 303, 307, 308) or not location:
            return response
        response.close()
        onward = urljoin(url, location)
        if Origin.of(onward) != Origin.of(url):
            own = {}  # a token is for the host that it was given to
        url = onward
    raise FetchProblem("FETCH_TOO_MANY_HOPS", f"{request.url}: more than {MAX_HOPS} redirects")


def _said(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).split(": ", 1)[-1][:150]


def _judge(response: urllib3.BaseHTTPResponse, have: int, part: Path) -> tuple[int | None, int]:
    """(bytes of the whole if the server says, where to write on); raises for every other status."""
    status, length = response.status, response.headers.get("Content-Length", "")
    if status == 200:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchProblem("FETCH_REFUSED", "packed bytes came, plain ones were asked for")
        return (int(length) if length.isdigit() else None), 0
    if status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if have and found and int(found[1]) == have and int(found[2]) + 1 == int(found[3]):
            return int(found[3]), have
        part.unlink(missing_ok=True)
        raise _TryAgainError(FetchProblem("FETCH_CHANGED", "another range came than was asked for"))
    problem = FetchProblem("FETCH_REFUSED", f"the server answers {status}")
    if status == 416:
        part.unlink(missing_ok=True)
        raise _TryAgainError(problem)
    if status == 429 or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _TryAgainError(problem, float(wait) if wait.isdigit() and len(wait) < 12 else 0)
    raise problem


def _receive(
    request: Request,
    response: urllib3.BaseHTTPResponse,
    part: Path,
    at: int,
    limits: Limits,
    deadline: float,
) -> None:
    """Write what comes from byte `at` on."""
    begun, since, counted = time.monotonic(), time.monotonic(), 0
    with part.open("r+b" if part.exists() else "xb") as file:
        file.truncate(at)
        file.seek(at)
        while True:
            try:
                data = response.read1(PIECE)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                problem = FetchProblem("FETCH_SHORT", f"{request.url}: {_said(error)}")
                raise _TryAgainError(problem) from error
            if not data:
                return
            file.write(data)
            at += len(data)
            counted += len(data)
            now = time.monotonic()
            if at > limits.max_bytes:
                raise FetchProblem("FETCH_TOO_BIG", f"{request.url}: more than {limits.max_bytes}")
            if now > deadline:
                detail = f"not done after {now - begun:.0f} s"
                raise FetchProblem("FETCH_TOO_SLOW", f"{request.url}: {detail}")
            if now - since > limits.window:
                if counted < limits.min_speed * (now - since):
                    problem = FetchProblem("FETCH_TOO_SLOW", f"{request.url}: a drip")
                    raise _TryAgainError(problem)
                since, counted = now, 0


def check_first_bytes(path: Path, where: str, *, media: bool = False) -> None:
    """Raise FetchProblem for a web page or a git-lfs pointer, or for what is no `media`.

    The first bytes decide: a login page comes with status 200 and any Content-Type.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip().lower().startswith(_PAGE):
        raise FetchProblem("FETCH_NOT_MEDIA", f"{where}: a web page came")
    if head.startswith(_POINTER):
        raise FetchProblem("FETCH_NOT_MEDIA", f"{where}: a git-lfs pointer came")
    if media and not _MAGIC.match(head):
        raise FetchProblem("FETCH_NOT_MEDIA", f"{where}: starts with {head[:16]!r}")
