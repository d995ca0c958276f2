"""Every command that takes a manifest refuses a faulty one in one line and writes nothing (F28)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

import mixtures.__main__
import train.__main__
from pipeline.jobs.job import Job
from pipeline.jobs.progress import Steps
from pipeline.jobs.write_shards import pack
from shards.errors import run_command
from shards.ids import canonical_json
from shards.pool import Pool
from tests.support.in_process import Here
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG


def changed(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(canonical_json(json.loads(path.read_bytes()) | values))

    return change


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def kept_of(path: Path) -> Path:
    digest = json.loads(path.read_bytes())["sources"][1]["kept"]["table"]
    return path.parent / f"plan/{digest}.npy"


def of_table(fault: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda path: fault(kept_of(path))


def of_another_algorithm(path: Path) -> None:
    pack_rule = json.loads(path.read_bytes())["pack"] | {"algo": "bfd-window/1"}
    changed(pack=pack_rule)(path)


def of_another_recipe(path: Path) -> None:
    """The tables beside it are those of a recipe over other samples."""
    path.write_bytes((path.parent.parent / "other/build/manifest.json").read_bytes())


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped bit": (flipped, "manifest.json: "),
    "truncated": (truncated, "manifest.json: not a manifest"),
    "empty": (lambda path: path.write_bytes(b"") and None, "manifest.json: not a manifest"),
    "gone": (Path.unlink, "manifest.json: not there"),
    "older version": (changed(manifest_version=2), "manifest_version is 2, this version knows 3"),
    "newer version": (changed(manifest_version=4), "manifest_version is 4, this version knows 3"),
    "another algorithm": (of_another_algorithm, "pack.algo is 'bfd-window/1', this version knows"),
    "edited": (changed(seed=4), "its content is not what its manifest_id says"),
    "tables of another recipe": (of_another_recipe, ".npy: not there; restore it, or plan again"),
    "table flipped": (of_table(flipped), ".npy: its bytes are damaged"),
    "table truncated": (of_table(truncated), ".npy: its bytes are damaged"),
    "table gone": (of_table(Path.unlink), ".npy: not there"),
}


def run_diff(path: Path, _: Path) -> None:
    arguments("mixtures", "diff", path, path)
    run_command(mixtures.__main__.main)


def run_explain(path: Path, _: Path) -> None:
    arguments("mixtures", "explain", path, "--step", 0, "--rank", 0, "--world-size", 1)
    run_command(mixtures.__main__.main)


def run_pack(path: Path, out: Path) -> None:
    pool = Pool(str(path.parent.parent / "pool"))
    job = Job(pool=pool, workers=Here(), bars=Steps(Progress()))
    run_command(lambda: pack(str(path), str(out), job) and None)


def run_train(path: Path, out: Path) -> None:
    config = path.parent.parent / "config.yaml"
    config.write_text(CONFIG)
    data = path.parent.parent / "pool"
    arguments("train", "run", config, "--manifest", path, "--data", data, "--out", out)
    train.__main__.main()


def arguments(*given: object) -> None:
    sys.argv = [*map(str, given)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest over a pool, and another one in `other`."""
    folder = tmp_path_factory.mktemp("made")
    tiny_manifest(folder)
    tiny_manifest(folder / "other", join="max_turns: 4, max_tokens: 200")
    return folder


@pytest.mark.parametrize("command", [run_diff, run_explain, run_pack, run_train])
@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_faulty_manifest_is_one_line_and_nothing_is_written(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[Path], None],
    message: str,
    command: Callable[[Path, Path], None],
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    path = shutil.copytree(made, tmp_path / "made") / "build/manifest.json"
    fault(path)
    with pytest.raises(SystemExit) as left:
        command(path, tmp_path / "out")
    said = capsys.readouterr()
    assert left.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and message in said.err
    assert str(path.parent) in said.err and not (tmp_path / "out").exists()
