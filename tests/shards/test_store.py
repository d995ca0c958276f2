"""Storage: a name holds all its bytes or does not exist; the first writer wins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shards.errors import MissingData, UserError
from shards.store import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("url", ["folder", "memory://pool"])
def test_the_first_writer_wins(tmp_path: Path, url: str) -> None:
    store = Store(tmp_path / url if url == "folder" else f"{url}-{tmp_path.name}")
    assert store.put_once("a/b", b"first")
    assert not store.put_once("a/b", b"second")
    assert store.get("a/b") == b"first"
    assert store.get("a/b", 1, 2) == b"ir"
    assert store.list("a") == ["b"]
    store.remove("a/b")
    assert not store.exists("a/b")


def test_put_replaces_in_one_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("name", b"one")
    store.put("name", b"two")
    assert store.get("name") == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_missing_name_says_where(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="nothing"):
        Store(tmp_path).get("nothing")


def test_asking_whether_a_folder_is_writable_makes_none(tmp_path: Path) -> None:
    Store(tmp_path / "new" / "deeper").check_writable()
    assert not list(tmp_path.iterdir())


def test_an_unwritable_root_is_refused_before_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(UserError, match="cannot write here"):
        Store(file).check_writable()


def test_a_store_that_does_not_answer_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UserError, match=r"cannot write here: .*; check its credentials"):
        Store("s3://nobody/out").check_writable()


def test_leftovers_of_a_killed_writer_are_not_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_once("folder/done", b"1")
    (tmp_path / "folder" / ".half.1.abcd.tmp").write_bytes(b"x")
    assert store.list("folder") == ["done"]


WRITER = """
import sys
from shards.store import Store
store, number = Store(sys.argv[1]), 0
sys.stdout.write("ready\\n"); sys.stdout.flush()
while True:
    store.put_once(f"parts/{number}", bytes([number % 256]) * 50_000)
    number += 1
"""


def test_kill_leaves_no_partial_file(tmp_path: Path) -> None:
    for attempt in range(5):
        root = tmp_path / str(attempt)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        while len(list((root / "parts").glob("[0-9]*")) if root.exists() else []) < 3 + attempt:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        store = Store(root)
        for name in store.list("parts"):
            assert store.get(f"parts/{name}") == bytes([int(name) % 256]) * 50_000
