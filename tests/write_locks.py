"""`python -m tests.write_locks`: pins and their hashes, from pyproject.toml and constraints.txt.

    locks/build.txt      what builds packages that are published as source
    locks/run.txt        what a machine of a cluster needs
    locks/all.txt        the same without torch, the demo and the tests: `make setup`
    locks/torch_cpu.txt  torch for the processor alone, which some package indexes have
    locks/torch.txt      torch as PyPI has it, on Linux with CUDA
    locks/cuda.txt       what torch's CUDA builds need besides, on Linux on x86-64
    locks/lmms.txt       lmms-eval and what a saved model needs beside it: `make lmms`
    locks/audit.txt      what `make audit` and `make sbom` run, in an environment of their own

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
CPU_TORCH = (
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",  # 3.11, x86-64
    "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",  # 3.11, aarch64
    "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",  # 3.12, x86-64
    "6f307c2c32d764ffc6ff6893b801fad6d4752f3e67966cb8abf1843427c02604",  # 3.12, aarch64
    "3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6",  # 3.13, x86-64
    "0b8f7d0423027ae8b90c7977c627f3379f325363a08224dffad9b4b2d684a83d",  # 3.13, aarch64
    "d20fa53ee744502fa4c69818a720b05ca0d37abd055d4f6e66cae155114bc691",  # 3.14, x86-64
    "ca021f9eb2f8345c83fa03e3a04587308afb8df71bd472670b3ece00df58621c",  # 3.14, aarch64
)
"""SHA-256 of the Linux wheels of torch 2.13.0+cpu: PyTorch's own index has them, PyPI has not."""
AUDIT = "pip-audit\ncyclonedx-bom\n"
_UV = (
    "uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate "
    "--no-header"
)


def locked(*words: str, given: str | None = None) -> dict[str, str]:
    """Name -> its pins and hashes, as uv resolves these words; Pythons may need several pins."""
    command = [*_UV.split(), *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    pins: dict[str, list[str]] = {}
    for entry in entries:
        pins.setdefault(entry.partition("==")[0], []).append(entry)
    return {name: "\n".join(several) for name, several in pins.items()}


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
    # the choice between torch's builds is left to the package index: Makefile
    torch = everything.pop("torch")
    write("torch", [torch])
    pin = f"{torch.split()[0]}+cpu"
    write(
        "torch_cpu", [" \\\n    ".join([pin, *(f"--hash=sha256:{x}" for x in sorted(CPU_TORCH))])]
    )
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
