"""`slowfast-mix`: one script over all commands, its completion, and the wheel that brings it.

To build and install a wheel takes half a minute: `make faults` does it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import mixtures.__main__
import pipeline.__main__
import shards.__main__
import train.__main__
from pipeline.console_script import OWNERS, main, parser
from shards import SCRIPT
from shards.errors import Parser
from tests.support import small_world
from tests.support.tiny_pool import tiny_manifest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mixtures", "pipeline", "shards", "train")
MODULES = {
    "mixtures": mixtures.__main__,
    "pipeline": pipeline.__main__,
    "shards": shards.__main__,
}


def words_of(one: Parser) -> dict[str, Parser]:
    """The commands right below a parser."""
    (inner,) = (a for a in one._actions if isinstance(a, argparse._SubParsersAction))
    return dict(inner.choices)


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{SCRIPT}", *words])
    main()


def test_every_command_of_every_package_has_its_word() -> None:
    theirs = {w: name for name, module in MODULES.items() for w in words_of(module.parser())}
    assert {**theirs, "train": "train"} == OWNERS
    assert words_of(parser()).keys() == OWNERS.keys()
    assert words_of(words_of(parser())["train"]).keys() == words_of(train.__main__.parser()).keys()
    assert "build" in words_of(words_of(parser())["leaks"])


def test_a_word_runs_the_command_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_manifest(tmp_path)
    typed(monkeypatch, "diff", str(tmp_path / "build"), str(tmp_path / "build"))
    assert "the same manifest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("plann", "did you mean 'plan'?; see slowfast-mix --help"),
        ("", "see slowfast-mix --help"),
        ("build recipe.yaml", "required: --out; see slowfast-mix build --help"),
        ("train run", "required: config; see slowfast-mix train run --help"),
        ("verify nowhere", "nowhere: no receipt.json here"),
    ],
)
def test_a_mistake_is_answered_as_it_was_typed(
    words: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        typed(monkeypatch, *words.split())
    said = capsys.readouterr().err
    assert said.startswith("error: ") and says in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"{SCRIPT} pl", {"plan"}),
        (f"{SCRIPT} build --no-s", {"--no-sandbox", "--no-shards"}),
        (f"{SCRIPT} train re", {"report", "reproduce"}),
        (f"{SCRIPT} init own --for ", {"scratch", "qwen2.5"}),
    ],
)
def test_a_shell_is_told_what_may_follow(tmp_path: Path, line: str, found: set[str]) -> None:
    pytest.importorskip("argcomplete")
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "said"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run(
        [sys.executable, "-m", "pipeline.console_script"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **asked},
        check=True,
    )
    assert {one.strip() for one in (tmp_path / "said").read_text().split("\n")} == found


# The wheel ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a copy of it without any download."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in PACKAGES:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    words = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run([*pip, *words], check=True, capture_output=True)
    (found,) = out.glob("slowfast_mix-*.whl")
    return found


@pytest.fixture(scope="module")
def script(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`slowfast-mix` of the wheel, in an environment that sees this one's packages."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin/python"
    (packages,) = home.glob("lib/python*/site-packages")
    # a path alone: what .pth files over there add, this checkout, is not seen
    seen = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(seen) + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    return home / "bin" / SCRIPT


def run(script: Path, folder: Path, *words: str) -> str:
    """What the script of the wheel prints in a folder, with nothing of this tree on its path."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [script, *words], cwd=folder, env=known, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def data_files() -> set[str]:
    """What the packages hold besides code."""
    found = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    plain = (path for path in found if path.suffix not in (".py", ".pyc"))
    return {str(path.relative_to(ROOT)) for path in plain}


def test_pyproject_names_what_is_no_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = project["tool"]["setuptools"]["package-data"]
    covered = {
        str(path.relative_to(ROOT))
        for package, patterns in named.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert len(covered) > 20 and data_files() == covered


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_the_wheel_holds_what_is_no_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert data_files() <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_the_wheel_plans_in_an_empty_folder(script: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    tiny_manifest(tmp_path / "data")
    assert run(script, tmp_path, "--version").startswith("slowfast-mix 0")
    assert "build" in run(script, tmp_path, "--help")
    words = ["data/recipe.yaml", "--pool", "data/pool", "--out", "new"]
    assert "whole-window packs" in run(script, tmp_path, "plan", *words)
    where = run(script, tmp_path, "sources").split("addresses:")[1].strip().replace("\n", "")
    assert Path(where).is_relative_to(script.parents[1])


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_the_wheel_builds_in_an_empty_folder(script: Path, tmp_path: Path) -> None:
    small_world.make(tmp_path, pictures=4, films=1)
    said = run(script, tmp_path, "build", "recipe.yaml", "--out", "out", "--pool", "pool")
    assert "manifest_id" in said and (tmp_path / "out/shards/receipt.json").is_file()
