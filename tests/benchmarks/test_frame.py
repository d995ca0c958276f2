"""The frame for measuring: a list, a table for people, one JSON object as the last line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from benchmarks import peers
from benchmarks.frame import NAMES, Bar, at_least, at_most, conclude, load
from benchmarks.loading.link import link
from benchmarks.training import demo, ranks
from shards.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_names_every_benchmark() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(NAMES)
    assert all(load(name)[0] for name in NAMES)


def test_an_unknown_benchmark_is_one_line() -> None:
    command = [sys.executable, "-m", "benchmarks", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no benchmark 'nothing'" in done.stderr and done.stderr.count("\n") == 1


def test_the_last_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    unmeasured = Bar(what="c", value=None, bar=">= 1", holds=False, why="not installed")
    conclude("name", [at_least("a", 2, 1), at_most("b", 2, 1), unmeasured])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["benchmark"] == "name"
    assert [bar["holds"] for bar in last["bars"]] == [True, False, False]
    assert last["bars"][2] == {
        "what": "c", "value": None, "bar": ">= 1", "holds": False, "why": "not installed"
    }  # fmt: skip


def test_nothing_measured_never_holds() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Bar(what="a", value=None, bar=">= 1", holds=True)


def test_every_peer_has_packages_and_a_script() -> None:
    names = {path.stem for path in peers.HERE.glob("*.txt")}
    scripts = {path.stem.rpartition("_")[0] for path in peers.HERE.glob("*_*.py")}
    assert names and names <= scripts


def test_a_peer_that_is_not_installed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    with pytest.raises(peers.PeerUnavailable, match="make bench-setup"):
        peers.ask("webdataset", {})


@pytest.mark.parametrize("module", [demo, ranks])
def test_benchmarks_of_the_demo_ask_for_it_first(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="make demo"):
        module.run(Console())


def test_a_link_closes_quietly_while_a_client_waits(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    with link(tmp_path, latency=0.0, bandwidth=1e5) as address:
        client = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    client.close()
    assert capfd.readouterr().err == ""
