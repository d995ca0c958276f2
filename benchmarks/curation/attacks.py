"""Servers, neighbours, terminals and the inside of the sandbox: one bar for each kind of attack.

Inputs are those of tests/hostile; servers are on loopback, and every attempt is bounded.
"""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

import mixtures.console
from benchmarks.frame import Bar, at_most, equal
from pipeline.fetch.http import Request, download
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem, Origin, connection
from pipeline.media import canary, decode, decoded
from pipeline.sources import json_rows
from pipeline.untrusted import Problem
from shards.errors import UserError
from shards.profile import Profile
from shards.store import private_folder
from tests.hostile.addresses import PRIVATE
from tests.hostile.answers import ANSWERS, Answer, head, sending
from tests.hostile.images import many_scans
from tests.hostile.videos import plain

HEADS = 10_000
QUICK = Limits(
    pause=0.01, longest_pause=0.02, stall=0.4, answer=0.8, window=0.5, attempts=1, max_seconds=10
)
NAMES = ("Permission denied.mp4", "Cannot allocate memory.mp4", "bwrap: no.mp4")
SPOKEN = ("[/x]", "\x1b[2J", "a\rb", "\u202ea")


def bars(console: Console) -> list[Bar]:
    """What the attacks came to."""
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        return [*_bars(console, Path(folder))]


def _bars(console: Console, folder: Path) -> Iterable[Bar]:
    found = canary.found()
    console.print(f"sandbox: {found}", highlight=False)
    yield equal("escapes from the sandbox that are open", len(found.open), 0)
    wrong, slowest = _answers(folder)
    yield equal("odd answers that end in no problem of their address", wrong, 0)
    yield at_most("slowest odd answer, seconds", slowest, 5)
    yield equal(f"of {HEADS} random heads, those that end otherwise", _heads(folder), 0)
    yield equal("private addresses that are connected to", sum(map(_led, PRIVATE.values())), 0)
    yield equal("file names that change a verdict", sum(_renamed(folder, n) for n in NAMES), 0)
    began = time.monotonic()
    lost = _slow_pictures(folder)
    yield equal("neighbours lost to pictures of 600 scans, or these kept", lost, 0)
    yield at_most("a group of eight with such pictures, seconds", time.monotonic() - began, 20)
    yield equal("rows lost beside one of 40 MB and one 200,000 deep", _rows(folder), 0)
    yield equal("folders of neighbours that are used", _planted(folder), 0)
    yield equal("names that a terminal would obey", sum(map(_obeyed, SPOKEN)), 0)


def _answers(folder: Path) -> tuple[int, float]:
    """(answers that gave a file or no typed problem, seconds of the slowest)."""
    wrong, slowest = 0, 0.0
    for answer in ANSWERS.values():
        began = time.monotonic()
        with sending(lambda answer=answer: answer) as server:  # type: ignore[misc]
            wrong += _outcome(server.url, folder / "part", QUICK) != "problem"
        slowest = max(slowest, time.monotonic() - began)
    return wrong, slowest


def _heads(folder: Path) -> int:
    numbers = random.Random(7)

    def answer() -> Answer:
        return head(numbers), b"", 0

    limits = Limits(stall=5, answer=5, attempts=1)
    with sending(answer) as server:
        said = (_outcome(server.url, folder / "head", limits) for _ in range(HEADS))
        return sum(one == "fault" for one in said)


def _outcome(url: str, part: Path, limits: Limits) -> str:
    try:
        download(Request(url=url, trusted=Origin.of(url)), part, limits)
    except FetchProblem:
        return "problem"
    except Exception:  # what would have ended a build
        return "fault"
    return "file"


def _led(answers: list[str]) -> bool:
    return _passes(lambda: connection("https://media.example.org/a.jpg", None), answers)


def _passes(connect: Callable[[], object], answers: list[str]) -> bool:
    from pipeline.fetch import url_guard

    def resolve(host: str) -> list[str]:  # noqa: ARG001
        return answers

    real, url_guard.resolve = url_guard.resolve, resolve
    try:
        connect()
    except FetchProblem:
        return False
    finally:
        url_guard.resolve = real
    return True


def _renamed(folder: Path, name: str) -> bool:
    """Whether a good or a broken file is judged by its name."""
    home = folder / "named"
    home.mkdir(exist_ok=True)
    codes = []
    for data in (plain(home).read_bytes(), bytes(1000)):
        (home / name).write_bytes(data)
        found = decode.decode(home / name, "video", Profile())
        codes.append(found.code if isinstance(found, decoded.MediaRefusal) else "kept")
    return codes != ["kept", "MEDIA_UNREADABLE"]


def _slow_pictures(folder: Path) -> int:
    paths = [folder / f"{number}.jpg" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(many_scans(600 if number % 2 else 10))
    found = decode.decode_all([(path, "image", None) for path in paths], Profile())
    kept = [isinstance(one, decoded.Decoded) for one in found]
    return sum(one != (number % 2 == 0) for number, one in enumerate(kept))


def _rows(folder: Path) -> int:
    path, good = folder / "rows.json", json.dumps({"id": "a"})
    deep = "[" * 200_000 + "]" * 200_000
    path.write_text(f'[{good}, "{"x" * (40 << 20)}", {good}, {deep}, {good}]')
    said = [row.code if isinstance(row, Problem) else "" for row in json_rows.rows(path)]
    return int(said != ["", "ROW_TOO_LONG", "", "ROW_TOO_DEEP", ""])


def _planted(folder: Path) -> int:
    (folder / "fifo").unlink(missing_ok=True)
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder)
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    used = 0
    for name in ("fifo", "link", "open"):
        try:
            private_folder(folder / name)
        except UserError:
            continue
        used += 1
    return used


def _obeyed(name: str) -> bool:
    said = io.StringIO()
    mixtures.console.Console(file=said, force_terminal=True, color_system=None).print(name)
    return (
        not said.getvalue().strip("\n").isprintable()
        or str(UserError(name)) != name.encode("unicode_escape").decode()
    )
