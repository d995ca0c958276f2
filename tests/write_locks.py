"""`python -m tests.write_locks`: pins and their hashes, from pyproject.toml and constraints.txt.

    locks/build.txt   what builds packages that are published as source
    locks/run.txt     what a machine of a cluster needs
    locks/all.txt     the same, the demo and the tests: `make setup`
    locks/cuda.txt    what torch's CUDA builds need besides, on Linux on x86-64
    locks/lmms.txt    lmms-eval and what a saved model needs beside it: `make lmms`
    locks/audit.txt   what `make audit` and `make sbom` run, in an environment of their own

One file serves all platforms and Pythons: entries say where they are needed, and every hash that a
release is published with stands there. Needs `uv` on the path; nothing is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

LOCKS = Path("locks")
BUILD = ("setuptools",)
CUDA = re.compile(r"(cuda-|nvidia-(?!ml-py)|triton)")
LMMS = """lmms-eval==0.7.3
torch==2.14.1
torchvision==0.29.1
filelock<3.20
"""
"""Its own torch, with torchvision; lmms-eval 0.7.3 imports a module that filelock 3.20 moved."""
AUDIT = "pip-audit\ncyclonedx-bom\n"
_UV = (
    "uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate "
    "--no-header"
)


def locked(*words: str, given: str | None = None) -> dict[str, str]:
    """Name -> its pin and hashes, as uv resolves these words."""
    command = [*_UV.split(), *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    return {entry.partition("==")[0]: entry for entry in entries}


def write(name: str, entries: Iterable[str]) -> None:
    text = "\n".join(sorted(entries))
    (LOCKS / f"{name}.txt").write_text(f"# Made by `python -m tests.write_locks`.\n{text}\n")


def main() -> None:
    """Write all of them; the pins of constraints.txt win."""
    ours = ("pyproject.toml", "--constraint", "constraints.txt")
    run = locked(*ours)
    everything = locked(*ours, "--extra", "demo", "--extra", "dev")
    write("build", (everything[name] for name in BUILD))
    write("cuda", (entry for name, entry in everything.items() if CUDA.match(name)))
    for title, found in (("run", run), ("all", everything)):
        kept = (name for name in found if name not in BUILD and not CUDA.match(name))
        write(title, (found[name] for name in kept))
    # of ours everything but torch, which is lmms-eval's here
    needed = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    ours_there = "\n".join(name for name in needed if not name.startswith("torch=="))
    write("lmms", locked("-", given=f"{LMMS}{ours_there}\n").values())
    write("audit", locked("-", given=AUDIT).values())


if __name__ == "__main__":
    main()
