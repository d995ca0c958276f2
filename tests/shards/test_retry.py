"""The one patience: what is tried again, how often, and how long is waited in between."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from shards import store as store_module
from shards.errors import UserError
from shards.retry import Patience, TryAgainError, asked_wait, may_pass, patiently
from shards.store import Store
from tests.support.clocks.still import Still

ROOT = Path(__file__).resolve().parents[2]
WAITING = {
    "shards/retry.py",
    # for another process
    "train/ablation/queue.py",
    "train/data/node_cache.py",
    "train/run_folder/shared_folder.py",
}


class Failing:
    """Fails so often, in a way that may pass, then answers."""

    def __init__(self, times: int, wait: float = 0) -> None:
        self.left, self.wait, self.calls = times, wait, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.left:
            raise TryAgainError(UserError(f"failure {self.calls}"), self.wait)
        return "answer"


@pytest.mark.parametrize(
    ("wait", "pauses"),
    [(0, [1, 2, 4, 8, 9]), (3, [3, 3, 4, 8, 9]), (7.5, [7.5, 7.5, 7.5, 8, 9]), (1e9, [9] * 5)],
)
def test_pauses_double_or_are_what_is_asked_for_within_bounds(
    wait: float, pauses: list[float]
) -> None:
    still, failing = Still(), Failing(5, wait)
    patience = Patience(longest_pause=9, clock=still.clock)
    assert patiently(failing, patience) == "answer" and still.pauses == pauses


def test_the_last_attempt_raises_its_own_problem() -> None:
    still, failing = Still(), Failing(99)
    with pytest.raises(UserError, match="failure 3"):
        patiently(failing, Patience(attempts=3, clock=still.clock))
    assert failing.calls == 3 and still.pauses == [1, 2]


def test_no_pause_ends_after_the_time_for_all_of_it() -> None:
    still, failing = Still(), Failing(99, 40)
    with pytest.raises(UserError, match="failure 3"):
        patiently(failing, Patience(max_seconds=100, clock=still.clock))
    assert still.pauses == [40, 40]


def test_other_errors_are_not_tried_again() -> None:
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 // 0, Patience(clock=Still().clock))


def test_what_may_pass() -> None:
    assert [status for status in range(100, 600) if may_pass(status)] == [
        408,
        429,
        *range(500, 600),
    ]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api"; r = 0 ; t = 55'}, 55),
        ({"RateLimit": '"api";r=1;t=55'}, 0),
        ({"RateLimit": '"api";r=0;t=55', "Retry-After": "70"}, 70),
        ({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0),
        ({"Retry-After": "Mon, 31 Feb"}, 0),
        ({"Retry-After": "-7"}, 0),
        ({"Retry-After": "²"}, 0),
        ({"Retry-After": "7" * 5000}, 0),
        ({"Retry-After": "Wed, 99 Oct 99999 99:28:00 GMT"}, None),
        ({"RateLimit": '"api";r=0;t=²'}, 0),
        ({"RateLimit": '"api";r=0;t=' + "5" * 5000}, 0),
        ({"RateLimit": "\x1b[2J"}, 0),
    ],
)
def test_what_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    found = asked_wait(headers)
    assert found == seconds if seconds is not None else found >= 0


def test_a_date_is_waited_for() -> None:
    assert 50 < asked_wait({"Retry-After": formatdate(time.time() + 60, usegmt=True)}) <= 60


def answered(status: int, **headers: str) -> Exception:
    """What s3fs raises where a store answers so."""
    head = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    said: Any = {"Error": {"Code": str(status), "Message": "no"}, "ResponseMetadata": head}
    return translate_boto_error(ClientError(said, "GetObject"))


CALLS = {
    "cat_file": lambda store: store.get("there"),
    "info": lambda store: store.exists("there"),
    "ls": lambda store: store.list(""),
    "pipe_file": lambda store: store.put("new", b"new"),
    "rm_file": lambda store: store.remove("there"),
}


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Still:
    still = Still()
    monkeypatch.setattr(store_module, "PATIENCE", Patience(clock=still.clock))
    return still


def failing_store(
    monkeypatch: pytest.MonkeyPatch, name: str, method: str, errors: list[Exception]
) -> Store:
    """A store, not on this machine as far as it knows, one method of which raises these first."""
    store = Store(f"memory://{name}")
    store.put("there", b"bytes")
    original = getattr(store.filesystem, method)

    def fails(*values: object, **options: object) -> object:
        if errors:
            raise errors.pop(0)
        return original(*values, **options)

    monkeypatch.setattr(store.filesystem, method, fails)
    return store


@pytest.mark.parametrize("method", CALLS)
def test_every_call_of_a_store_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, still: Still, tmp_path: Path, method: str
) -> None:
    errors = [answered(503, **{"Retry-After": "7"}), answered(429), TimeoutError("slow")]
    store = failing_store(monkeypatch, tmp_path.name, method, errors)
    CALLS[method](store)
    assert not errors and still.pauses == [7, 2, 4]


@pytest.mark.parametrize("method", CALLS)
def test_a_store_that_does_not_recover_is_said_and_never_taken_for_empty(
    monkeypatch: pytest.MonkeyPatch, still: Still, tmp_path: Path, method: str
) -> None:
    errors = [answered(503) for _ in range(99)]
    store = failing_store(monkeypatch, tmp_path.name, method, errors)
    with pytest.raises(UserError, match=rf"{tmp_path.name}.*: cannot be \w+( up)?: "):
        CALLS[method](store)
    assert len(errors) == 99 - Patience().attempts


def test_a_refusal_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, still: Still, tmp_path: Path
) -> None:
    errors = [answered(400)]
    with pytest.raises(UserError, match="cannot be read"):
        failing_store(monkeypatch, tmp_path.name, "cat_file", errors).get("there")
    assert still.pauses == []


def test_nothing_else_waits_for_an_answer() -> None:
    """Whoever sleeps tries something again: one file does, for all."""
    rooms = ("shards", "mixtures", "pipeline", "train")
    paths = (path for room in rooms for path in (ROOT / room).rglob("*.py"))
    found = {str(p.relative_to(ROOT)) for p in paths if re.search(r"\bsleep\(", p.read_text())}
    assert found == WAITING
