"""A whole build whose pool and output lie on an object store: a real S3 server on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from shards.verify import damage
from tests.support import small_world
from tests.support.s3_server import s3_server

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Lake:
    """A bucket on a server, and the variables that lead there."""

    environment: dict[str, str]
    files: fsspec.AbstractFileSystem

    def text(self, name: str) -> str:
        data: bytes = self.files.cat_file(name)
        return data.decode()

    def receipts(self) -> int:
        self.files.invalidate_cache()
        return len(self.files.glob("lake/pool/receipts/*.json"))


@pytest.fixture(scope="module")
def lake() -> Iterator[Lake]:
    with s3_server() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("lake")
        yield Lake(os.environ | variables, files)


def command(recipe: Path, out: str) -> list[str]:
    words = ["build", str(recipe), "--out", out, "--pool", out.replace("out", "pool")]
    return [sys.executable, "-m", "pipeline", *words]


@pytest.fixture(scope="module")
def built(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calm build on this machine's disk, and on the lake one that was killed and run again."""
    root = tmp_path_factory.mktemp("world")
    recipe = small_world.make(root)
    for out in (str(root / "out"), "s3://lake/out"):
        if out.startswith("s3:"):
            kill_in_the_middle(command(recipe, out), lake)
        done = subprocess.run(
            command(recipe, out), cwd=ROOT, env=lake.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return root


def kill_in_the_middle(words: list[str], lake: Lake) -> None:
    """SIGKILL the driver as soon as the admissions are done."""
    first = subprocess.Popen(
        words, cwd=ROOT, env=lake.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while first.poll() is None and lake.receipts() < 3:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL


@pytest.mark.timeout(300)
def test_the_lake_holds_the_manifest_and_the_shards_of_a_calm_local_build(
    lake: Lake, built: Path
) -> None:
    theirs = json.loads((built / "out/shards/receipt.json").read_text())
    assert json.loads(lake.text("lake/out/shards/receipt.json")) == theirs
    assert lake.text("lake/out/books.json") == (built / "out/books.json").read_text()
    assert "</html>" in lake.text("lake/out/report.html")


def test_every_byte_on_the_lake_is_verified(lake: Lake, built: Path) -> None:
    assert not list(damage("s3://lake/out/shards"))
    (shard,) = lake.files.glob("lake/out/shards/*.tar")
    whole = lake.files.cat_file(shard)
    lake.files.pipe_file(shard, whole[:-1024])
    assert list(damage("s3://lake/out/shards"))
    lake.files.pipe_file(shard, whole)


def test_a_third_build_writes_nothing_that_is_there(lake: Lake, built: Path) -> None:
    before = lake.files.find("lake/pool", detail=True)
    done = subprocess.run(
        command(built / "recipe.yaml", "s3://lake/out"),
        cwd=ROOT,
        env=lake.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lake.files.invalidate_cache()
    after = lake.files.find("lake/pool", detail=True)
    dates = [{name: each["LastModified"] for name, each in one.items()} for one in (before, after)]
    assert dates[0] == dates[1]
