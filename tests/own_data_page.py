"""docs/own_data.md, walked: `python -m tests.own_data_page` runs its commands and writes the page.

    ```console                      each line `$ command` is run; what follows it is its output
    ```console trained              the same, of a trained model: its answers are not compared
    <!-- file: NAME -->             the block behind it is the file NAME

Ids, times and figures of speed differ from run to run: `plain` leaves them out of a comparison.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from mixtures.tokens.text import train_tokenizer
from pipeline.fetch import hub
from pipeline.first_recipe import QWEN
from shards.errors import Parser
from tests.support import fake_hub

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/own_data.md"
COLUMNS = "80"
_PIECE = re.compile(
    r"<!-- file: (?P<name>\S+) -->\n```\w*\n(?P<content>.*?)```\n"
    r"|(?P<fence>```console( trained)?\n)(?P<console>.*?)```\n",
    re.S,
)
_ANSWER = re.compile(r"(^\$ [^\n]*train chat(?:[^\n]*\\\n)*[^\n]*\n)[^\n]*\n", re.M)
"""A question, and the line behind it that the model says."""
_DIFFER = (
    (re.compile(r"\b[0-9a-f]{16,64}\b"), "ID"),
    (re.compile(r"\b[\d,]+ bytes"), "BYTES"),
)


def walked(page: str, folder: Path, environment: Mapping[str, str]) -> str:
    """The page with the output that its commands have in `folder`; fails with one that fails."""
    written = []
    at = 0
    for piece in _PIECE.finditer(page):
        written.append(page[at : piece.start()])
        at = piece.end()
        written.append(_walk(piece, folder, environment))
    return "".join([*written, page[at:]])


def _walk(piece: re.Match[str], folder: Path, environment: Mapping[str, str]) -> str:
    """One piece as it is to be written: a file as it stands, commands with their output."""
    if piece["name"]:
        (folder / piece["name"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / piece["name"]).write_text(piece["content"])
        return piece[0]
    outputs = (
        f"$ {command}\n{_output(command, folder, environment)}"
        for command in commands(piece["console"])
    )
    return f"{piece['fence']}{''.join(outputs)}```\n"


def commands(console: str) -> list[str]:
    """The commands of a block; one that ends with a backslash goes on in the next line."""
    lines = console.replace("\\\n", "\\\0").split("\n")
    return [line[2:].replace("\0", "\n") for line in lines if line.startswith("$ ")]


def _output(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What the command prints, without blanks at the ends of lines."""
    # `python` is the one that runs this
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    known = {"COLUMNS": COLUMNS, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, **known, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: status {done.returncode}: {done.stderr[-3000:]}"
    lines = [f"{line.rstrip()}\n" for line in done.stdout.rstrip("\n").split("\n")]
    return "".join(lines) if done.stdout.strip() else ""


def plain(page: str) -> str:
    """The page without what differs from run to run and from machine to machine."""
    page = _PIECE.sub(_without_answers, page)
    for pattern, word in _DIFFER:
        page = pattern.sub(word, page)
    return page


def _without_answers(piece: re.Match[str]) -> str:
    if piece["fence"] and "trained" in piece["fence"]:
        return _ANSWER.sub(r"\1ANSWER\n", piece[0])
    return piece[0]


@contextmanager
def qwen_hub() -> Iterator[dict[str, str]]:
    """A hub on loopback that has Qwen's tokenizer by its address; the variables that lead there."""
    file = hub.parse(QWEN)
    tokenizer = train_tokenizer(["Which shape is it? A circle, a square, a triangle."] * 4, 400)
    names = patch.multiple(fake_hub, REPO=file.repo, COMMIT=file.revision)
    with names, fake_hub.serve({file.path: tokenizer}) as server:
        yield {"HF_ENDPOINT": server.url}


@contextmanager
def walking() -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty folder, and the environment in which the page is walked there."""
    with qwen_hub() as variables, tempfile.TemporaryDirectory() as folder:
        cache = {"SLOWFAST_CACHE": f"{folder}/.cache", "HF_HUB_OFFLINE": "0"}
        yield Path(folder), variables | cache


if __name__ == "__main__":
    Parser(prog="python -m tests.own_data_page", description=__doc__).parse_args()
    with walking() as (empty, known):
        PAGE.write_text(walked(PAGE.read_text(), empty, known))
