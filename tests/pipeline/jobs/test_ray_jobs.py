"""`ray job submit` against a real head with its dashboard, in namespaces of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shards.verify import damage
from tests.support import private_namespace, small_world

ROOT = Path(__file__).resolve().parents[3]
JOB = """
export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
ray get-auth-token --generate >/dev/null
ray start --head --port=6379 --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 --num-cpus=2
ray job submit --working-dir "$3" -- python -m pipeline build "$1" --out "$2"
echo "the build ended with $?"
ray job submit --working-dir . -- python -m pipeline build "$1.gone" --out "$2"
echo "the wrong recipe ended with $?"
mv "$HOME/.ray/auth_token" "$HOME/token"
ray job submit --working-dir . -- python -m pipeline sources
echo "without the token it ended with $?"
"""

pytestmark = pytest.mark.timeout(300)  # Ray takes minutes to start on a busy machine


STRIKE = """
import os, signal, subprocess, sys, time
from benchmarks.curation.killing import busy, raylet

command = [sys.executable, "-m", "pipeline", "build", sys.argv[1], "--out", sys.argv[2]]
build = subprocess.Popen(command)
while not busy():
    time.sleep(0.02)
os.kill(*raylet(""), signal.SIGKILL)
print("the build ended with", build.wait())
print("the next one ended with", subprocess.run(command).returncode)
"""


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    if private_namespace.why_not():
        pytest.skip(private_namespace.why_not())
    root = tmp_path_factory.mktemp("jobs")
    recipe, out = small_world.make(root), root / "out"
    work = root / "work"  # the code, and a film that should not travel with it
    for room in ("shards", "mixtures", "pipeline"):
        shutil.copytree(ROOT / room, work / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(root / "films/0.mp4", work / "film.mp4")
    command = ["sh", "-c", JOB, "job", str(recipe), str(out), str(work)]
    return out, private_namespace.run(command, root / "home", {}, seconds=280)


def test_a_submitted_job_builds(submitted: tuple[Path, subprocess.CompletedProcess]) -> None:
    out, done = submitted
    assert "the build ended with 0" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]
    manifest_id = json.loads((out / "manifest.json").read_text())["manifest_id"]
    assert manifest_id in done.stdout
    assert "this job's package holds 1 media files and archives" in done.stdout
    assert not list(damage(str(out / "shards"))) and (out / "report.html").exists()


def test_what_is_wrong_is_said_where_it_was_submitted(
    submitted: tuple[Path, subprocess.CompletedProcess],
) -> None:
    done = submitted[1]
    assert "the wrong recipe ended with 1" in done.stdout
    assert "recipe.yaml.gone: No such file or directory; check the path" in done.stdout


def test_nobody_submits_without_the_token(
    submitted: tuple[Path, subprocess.CompletedProcess],
) -> None:
    done = submitted[1]
    assert "without the token it ended with 1" in done.stdout
    assert "uthentication" in done.stdout + done.stderr


@pytest.mark.faults
def test_the_death_of_ray_itself_is_one_line_and_the_next_build_goes_on(tmp_path: Path) -> None:
    if private_namespace.why_not():
        pytest.skip(private_namespace.why_not())
    recipe, out = small_world.make(tmp_path), tmp_path / "out"
    command = [sys.executable, "-c", STRIKE, str(recipe), str(out)]
    done = private_namespace.run(command, tmp_path / "home", {}, seconds=600)
    assert "the build ended with 2" in done.stdout, done.stdout + done.stderr
    assert "error: Ray's node on this machine died" in done.stderr
    assert "the next one ended with 0" in done.stdout, done.stderr[-4000:]
    assert not list(damage(str(out / "shards")))
