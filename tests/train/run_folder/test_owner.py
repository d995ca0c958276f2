"""Who owns a run's folder, and when another process may take it over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from shards.errors import DamagedData, UserError
from train.run_folder import owner
from train.run_folder.owner import ENVELOPE, OWNER, STALE, Claim, Owner, process_start, renewing


def held_by(out: Path, held: Owner, age: float = 0.0) -> None:
    out.mkdir(exist_ok=True)
    (out / OWNER).write_bytes(ENVELOPE.seal(asdict(held)))
    now = (out / OWNER).stat().st_mtime
    os.utime(out / OWNER, (now - age, now - age))


@pytest.fixture
def mine(tmp_path: Path) -> Owner:
    return Claim(tmp_path).owner


@contextmanager
def living() -> Iterator[int]:
    """The number of another process that lives."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield child.pid
    finally:
        child.communicate(b"\n")


def test_a_folder_is_taken_renewed_and_left(tmp_path: Path, mine: Owner) -> None:
    claim = Claim(tmp_path / "out")
    assert claim.take() == "" and process_start(mine.pid) == mine.start
    held_by(tmp_path / "out", claim.owner, age=200)
    before = claim.path.stat().st_mtime
    claim.renew()
    assert claim.path.stat().st_mtime > before + 100 and not claim.lost
    claim.release()
    assert not claim.path.exists()


def test_a_living_owner_is_named_and_keeps_its_folder(tmp_path: Path, mine: Owner) -> None:
    with living() as pid:
        start = process_start(pid) or 0
        held_by(tmp_path, replace(mine, pid=pid, start=start), age=40)
        named = rf"another run writes here \({mine.host}, pid {pid}, since .*; renewed 4\d s ago\)"
        with pytest.raises(UserError, match=named):
            Claim(tmp_path).take()
        # its number went to another process since
        held_by(tmp_path, replace(mine, pid=pid, start=start - 1))
        assert f"pid {pid}" in Claim(tmp_path).take()


def test_a_dead_owner_of_this_host_is_followed_at_once(tmp_path: Path, mine: Owner) -> None:
    with living() as pid:
        start = process_start(pid) or 0
    assert process_start(pid) is None
    held_by(tmp_path, replace(mine, pid=pid, start=start))
    assert f"pid {pid}" in Claim(tmp_path).take()


@pytest.mark.parametrize(("age", "is_followed"), [(STALE - 20, False), (STALE + 20, True)])
def test_an_owner_elsewhere_is_followed_when_it_was_not_renewed_for_long(
    tmp_path: Path, mine: Owner, age: float, is_followed: bool
) -> None:
    held_by(tmp_path, replace(mine, host="elsewhere"), age)
    if is_followed:
        assert "elsewhere" in Claim(tmp_path).take()
    else:
        with pytest.raises(UserError, match=r"elsewhere, pid .* try again in \d+ s or remove"):
            Claim(tmp_path).take()


def test_of_many_that_start_at_once_one_has_the_folder(
    tmp_path: Path, mine: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "process_start", lambda pid: pid)  # all of them live
    held_by(tmp_path, replace(mine, host="elsewhere"), STALE + 20)
    claims = [Claim(tmp_path) for _ in range(8)]
    for number, claim in enumerate(claims):
        claim.owner = replace(mine, pid=number + 1, start=number + 1)
    refused = []

    def take(claim: Claim) -> None:
        try:
            claim.take()
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take, args=[claim]) for claim in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert sum(claim._held() == claim.owner for claim in claims) == 1


def test_who_was_taken_over_learns_it_and_leaves_the_folder_alone(
    tmp_path: Path, mine: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "RENEWED", 0.01)
    claim = Claim(tmp_path)
    claim.take()
    with renewing(claim):
        held_by(tmp_path, replace(mine, host="elsewhere"))
        while not claim.lost:
            threading.Event().wait(0.01)
    assert "elsewhere" in claim.lost and claim.path.exists()


def test_a_record_that_was_removed_is_written_again(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    claim.take()
    claim.path.unlink()
    claim.renew()
    assert claim._held() == claim.owner


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / OWNER).write_text("{")
    with pytest.raises(DamagedData, match=r"owner\.json: not as it was written; remove it"):
        Claim(tmp_path).take()
