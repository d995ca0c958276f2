"""A run on two nodes, each a torchrun of its own on loopback: stopped, killed, and gone on with.

And the same run as a Ray cluster's job, on CPU workers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import private_namespace
from tests.support.ranks import launch
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG, ONE_THREAD, exact, metrics
from train.engine import checkpoint
from train.on_ray import Seat, environments

ROOT = Path(__file__).resolve().parents[3]
STEPS = 80
RAY = """
export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
ray get-auth-token --generate >/dev/null
ray start --head --port=6379 --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 --num-cpus=2
ray job submit --working-dir . -- python -m train run "$1" --manifest "$2" --out "$3" --ray 2
echo "the run ended with $?"
ray job submit --working-dir . -- python -m train run "$1.gone" --manifest "$2" --out "$3" --ray 2
echo "the wrong config ended with $?"
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`train run CONFIG --manifest MANIFEST --out`: what follows is the folder."""
    folder = tmp_path_factory.mktemp("nodes")
    config = folder / "run.yaml"
    config.write_text(f"{CONFIG}stop: {{steps: {STEPS}}}\nengine: deepspeed\nzero_stage: 3\n")
    manifest = tiny_manifest(folder / "made")
    return ["train", "run", str(config), "--manifest", str(manifest), "--out"]


@pytest.fixture(scope="module")
def unbroken(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    launch([*words, str(out)], 400)
    return out


def started(words: Sequence[str]) -> list[subprocess.Popen[bytes]]:
    """Two nodes of one process each, every one with what it starts in a group of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for number in range(2):
        place = f"--nnodes 2 --node_rank {number} --nproc_per_node 1 --master_addr 127.0.0.1"
        command = [sys.executable, "-m", "torch.distributed.run", *place.split()]
        command += ["--master_port", str(port), "-m", *words]
        nodes.append(
            subprocess.Popen(
                command, cwd=ROOT, env=ONE_THREAD, stderr=subprocess.PIPE, start_new_session=True
            )
        )
    return nodes


def until_saved(out: Path, step: int, nodes: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + 300
    while max(checkpoint.steps(out / "checkpoints"), default=0) < step:
        assert all(node.poll() is None for node in nodes) and time.monotonic() < deadline
        time.sleep(0.01)


def said(nodes: Sequence[subprocess.Popen[bytes]]) -> str:
    return "".join(node.communicate(timeout=300)[1].decode() for node in nodes)


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_two_nodes_are_stopped_and_killed_and_go_on_with_the_same_losses(
    words: list[str], unbroken: Path, tmp_path: Path
) -> None:
    whole = [*words, str(tmp_path)]
    nodes = started(whole)
    until_saved(tmp_path, 5, nodes)
    nodes[1].send_signal(signal.SIGTERM)  # as a node is drained: its launcher passes it on
    told = said(nodes)
    assert "stopped by SIGTERM after step" in told, told[-3000:]
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["step"] == stopped["saved"] == checkpoint.steps(tmp_path / "checkpoints")[-1]
    nodes = started(whole)
    until_saved(tmp_path, stopped["step"] + 10, nodes)
    # the node of rank 0 is gone: its launcher, and its process, which is in a group of its own
    os.kill(json.loads((tmp_path / "owner.json").read_text())["pid"], signal.SIGKILL)
    os.killpg(nodes[0].pid, signal.SIGKILL)
    said(nodes)
    assert len(metrics(tmp_path)) < STEPS
    nodes = started(whole)
    told = said(nodes)
    assert [node.returncode for node in nodes] == [0, 0], told[-3000:]
    assert "taken over from a run that is gone" in told
    assert exact(metrics(tmp_path)) == exact(metrics(unbroken))


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_job_of_ray_trains_as_torchrun_does(
    words: list[str], unbroken: Path, tmp_path: Path
) -> None:
    if private_namespace.why_not():
        pytest.skip(private_namespace.why_not())
    _, _, config, _, manifest, _ = words
    command = ["sh", "-c", RAY, "job", config, manifest, str(tmp_path / "out")]
    done = private_namespace.run(command, tmp_path / "home", {}, seconds=600)
    assert "the run ended with 0" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
    assert exact(metrics(tmp_path / "out")) == exact(metrics(unbroken))
    assert "run.yaml.gone" in done.stdout and "the wrong config ended with 1" in done.stdout


def test_ranks_on_ray_are_told_what_torchrun_would_tell_them() -> None:
    seats = [
        Seat(node="10.0.0.1", gpus=("2",), port=7),
        Seat(node="10.0.0.1", gpus=("0",), port=8),
        Seat(node="10.0.0.2", gpus=("5",), port=9),
    ]
    told = environments(seats)
    assert [one["RANK"] for one in told] == ["0", "1", "2"]
    assert [one["LOCAL_RANK"] for one in told] == ["0", "1", "0"]
    assert [one["LOCAL_WORLD_SIZE"] for one in told] == ["2", "2", "1"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in told] == ["2,0", "2,0", "5"]
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in told} == {("10.0.0.1", "7")}
    assert "CUDA_VISIBLE_DEVICES" not in environments([Seat(node="a", gpus=(), port=1)])[0]
