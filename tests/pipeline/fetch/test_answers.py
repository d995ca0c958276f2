"""Whatever a server answers, or never finishes to answer, ends in a file or in a typed problem."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline.fetch.http import Request, download
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem, Origin
from tests.hostile.answers import ANSWERS, Answer, head, sending

QUICK = Limits(
    pause=0.01, longest_pause=0.02, stall=0.4, answer=0.8, window=0.5, attempts=2, max_seconds=10
)


def outcome(url: str, part: Path, limits: Limits) -> str:
    try:
        download(Request(url=url, trusted=Origin.of(url)), part, limits)
    except FetchProblem as problem:
        return problem.code
    return "kept"


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_ends_in_a_problem_in_bounded_time(name: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with sending(lambda: ANSWERS[name]) as server:
        found = outcome(server.url, tmp_path / "part", QUICK)
    assert found.startswith("FETCH_"), found
    assert time.monotonic() - began < 5


def test_random_heads_end_in_a_file_or_a_problem(tmp_path: Path) -> None:
    numbers = random.Random(7)

    def answer() -> Answer:
        return head(numbers), b"", 0

    limits = Limits(stall=5, answer=5, attempts=1)
    with sending(answer) as server:
        found = Counter(outcome(server.url, tmp_path / "part", limits) for _ in range(10_000))
    assert {"kept", "FETCH_SHORT", "FETCH_UNREACHABLE", "FETCH_REFUSED"} < set(found), found
