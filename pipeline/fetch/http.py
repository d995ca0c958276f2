"""One address -> one file, over http(s): resumed, bounded, retried, checked.

A part that is there is continued only under a strong ETag (`If-Range`), so that two versions are
never spliced; a server that ignores the range, or that changed the object, starts it again.
Nothing is unpacked on the way (`Accept-Encoding: identity`), every redirect is judged by
pipeline.fetch.url_guard, bytes, wall time and speed are bounded, and no error of an attempt is
anything but a FetchProblem of its address.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import urllib3

from pipeline.fetch.part_version import read_version, write_version
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem, Origin, connection, shown
from pipeline.fetch.watchdog import Watchdog
from shards.retry import TryAgainError, asked_wait, may_pass, number, patiently

MAX_HOPS = 5
PIECE = 1 << 16
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,200}"')
_PAGE = (b"<!doctype html", b"<html", b"<?xml")
_POINTER = b"version https://git-lfs.github.com/spec/"
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....(WEBP|AVI )|....ftyp|\x1a\x45\xdf\xa3|FLV\x01",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """Where an answer's bytes go on in the part, and how many there are in all, if known."""

    at: int
    nbytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Where the bytes are, and what is known of them beforehand.

    `headers` go to the first host only; a `trusted` origin is not judged.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    nbytes: int | None = None
    trusted: Origin | None = None


def download(request: Request, part: Path, limits: Limits) -> None:
    """Complete `part` with the bytes of the address; raises FetchProblem.

    A part left by an earlier call is continued under the ETag that pipeline.fetch.part_version has.
    """
    deadline = time.monotonic() + limits.max_seconds
    patiently(lambda: _attempt(request, part, limits, deadline), limits, deadline)
    write_version(part, "")


@contextmanager
def _heard(url: str, code: str, watchdog: Watchdog) -> Iterator[None]:
    """Whatever goes wrong while a server is heard is a problem of this address, never of ours.

    Servers and rows lead libraries into errors of every class (a label that IDNA refuses is a
    UnicodeError); nothing else is done in here than asking and listening.
    """
    try:
        yield
    except (FetchProblem, TryAgainError):
        raise
    except Exception as error:
        said = "its time is over" if watchdog.fired else _said(error)
        problem = FetchProblem(
            "FETCH_TOO_SLOW" if watchdog.fired else code, f"{shown(url)}: {said}"
        )
        raise TryAgainError(problem) from error


def _attempt(request: Request, part: Path, limits: Limits, deadline: float) -> None:
    """One request, continuing the part if its ETag is known; all of it under one timer."""
    etag = read_version(part)
    have = part.stat().st_size if etag else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "slowfast-mix"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with Watchdog() as watchdog:
        response = _open(request, headers, limits, watchdog, deadline)
        try:
            whole = _whole(request, response, have, part, limits)
            _receive(request, response, part, whole, limits, watchdog, deadline)
        finally:
            response.close()


def _whole(
    request: Request,
    response: urllib3.BaseHTTPResponse,
    have: int,
    part: Path,
    limits: Limits,
) -> _Whole:
    """What the answer's head promises, and the part made ready for it; raises for every refusal."""
    total, at = _judge(response, have, part)
    where = shown(request.url)
    if request.nbytes is not None and total is not None and total != request.nbytes:
        detail = f"{total} bytes, the publisher names {request.nbytes}"
        raise FetchProblem("FETCH_CHANGED", f"{where}: {detail}")
    expected = total if total is not None else request.nbytes
    if expected is not None and expected > limits.max_bytes:
        raise FetchProblem("FETCH_TOO_BIG", f"{where}: {expected} bytes")
    if expected is None and not response.chunked:
        raise FetchProblem("FETCH_SHORT", f"{where}: the server never said how much there is")
    etag = response.headers.get("ETag", "")
    if at == 0 or _ETAG.fullmatch(etag):
        write_version(part, etag if _ETAG.fullmatch(etag) else "")
    return _Whole(at=at, nbytes=expected)


def _open(
    request: Request,
    headers: dict[str, str],
    limits: Limits,
    watchdog: Watchdog,
    deadline: float,
) -> urllib3.BaseHTTPResponse:
    """The answer behind at most MAX_HOPS redirects."""
    url, request_headers = request.url, dict(request.headers)
    for _ in range(MAX_HOPS + 1):
        with _heard(url, "FETCH_UNREACHABLE", watchdog):
            pool, target, host = connection(url, request.trusted)
            watchdog.until(min(deadline, time.monotonic() + limits.answer))
            response = watchdog.over(pool).urlopen(
                "GET",
                target,
                headers=headers | request_headers | {"Host": host},
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=limits.stall, read=limits.stall),
            )
        location = response.headers.get("Location")
        if response.status not in (301, 302, 303, 307, 308) or not location:
            return response
        response.close()
        onward = _onward(url, location)
        if Origin.of(onward) != Origin.of(url):
            request_headers = {}  # a token is for the host that it was given to
        url = onward
    raise FetchProblem(
        "FETCH_TOO_MANY_HOPS", f"{shown(request.url)}: more than {MAX_HOPS} redirects"
    )


def _onward(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchProblem("FETCH_ADDRESS_REFUSED", f"{shown(location)}: {error}") from error


def _said(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).split(": ", 1)[-1][:150]


def _judge(response: urllib3.BaseHTTPResponse, have: int, part: Path) -> tuple[int | None, int]:
    """(bytes of the whole if the server says, where to write on); raises for every other status."""
    status = response.status
    if status == 200:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchProblem("FETCH_REFUSED", "packed bytes came, plain ones were asked for")
        return number(response.headers.get("Content-Length", "")), 0
    if status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if have and found and int(found[1]) == have and int(found[2]) + 1 == int(found[3]):
            return int(found[3]), have
        part.unlink(missing_ok=True)
        raise TryAgainError(FetchProblem("FETCH_CHANGED", "another range came than was asked for"))
    problem = FetchProblem("FETCH_REFUSED", f"the server answers {status}")
    if status == 416:
        part.unlink(missing_ok=True)
        raise TryAgainError(problem)
    if may_pass(status):
        raise TryAgainError(problem, asked_wait(response.headers))
    raise problem


def _receive(
    request: Request,
    response: urllib3.BaseHTTPResponse,
    part: Path,
    whole: _Whole,
    limits: Limits,
    watchdog: Watchdog,
    deadline: float,
) -> None:
    """Write what comes from `whole.at` on; raises unless it is all there."""
    where, at = shown(request.url), whole.at
    begun, since, counted = time.monotonic(), time.monotonic(), 0
    with part.open("r+b" if part.exists() else "xb") as file:
        file.truncate(at)
        file.seek(at)
        while True:
            now = time.monotonic()
            if now > deadline:
                detail = f"not done after {now - begun:.0f} s"
                raise FetchProblem("FETCH_TOO_SLOW", f"{where}: {detail}")
            if now - since > limits.window:
                if counted < limits.min_speed * (now - since):
                    raise TryAgainError(FetchProblem("FETCH_TOO_SLOW", f"{where}: a drip"))
                since, counted = now, 0
            watchdog.until(
                min(deadline, now + 2 * limits.stall)
            )  # a socket's own time-out is first
            with _heard(request.url, "FETCH_SHORT", watchdog):
                data = response.read1(PIECE)
                if not data and watchdog.fired:
                    raise TimeoutError
            if not data:
                break
            file.write(data)
            at, counted = at + len(data), counted + len(data)
            if at > limits.max_bytes:
                raise FetchProblem("FETCH_TOO_BIG", f"{where}: more than {limits.max_bytes}")
    if whole.nbytes is not None and at != whole.nbytes:
        if at > whole.nbytes:
            part.unlink()
        raise TryAgainError(FetchProblem("FETCH_SHORT", f"{where}: {at} of {whole.nbytes} bytes"))


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
