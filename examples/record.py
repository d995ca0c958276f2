"""python -m examples.record: README's blocks of output, from the demo that lies in runs/demo.

Each stands between `<!-- recorded: NAME -->` and `<!-- /recorded -->`, and is what a command
prints: run again after a demo, only what changed changes. A demo ends by holding itself against
them (`differing`). What plans read of its pool is kept beside the tests (`write_index`), which
plan, diff and explain it again.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from examples.demo import OUT, POOL
from mixtures.manifest.files import load_manifest
from pipeline.upkeep.garbage import files_of
from pipeline.upkeep.needs import Ledger, needs_of, remembered
from shards.errors import UserError, run_command
from shards.pool import Pool
from shards.receipts import receipt_name

README = Path("README.md")
EXACT = ("books", "diff", "explain")
"""Blocks that every machine with the same ffmpeg prints alike, to the byte."""
SCORES = "accuracy"
"""What the names of scores hold; another processor adds in another order."""
NEAR = 0.1
"""By so much a score may differ."""
METRICS = OUT / "metrics.json"
ABLATION = OUT.parent / "ablation"
INDEX = Path("tests/examples/recorded_index.tar.xz")
"""What `mixtures plan` and `explain` read of the recorded demo: its pool without media."""
UNREAD = "clips index/clips index/fingerprints index/media index/wanted candidates same".split()
"""Folders of the pool that neither of them reads: the facts of clips stand for `index/clips`."""
BLOCK = re.compile(r"(<!-- recorded: (\w+) -->\n)(.*?)(<!-- /recorded -->)", re.S)
MANIFEST = str(OUT / "stage2")
MODEL = str(OUT / "model")
TOKENIZER = OUT / "data/tokenizer.json"
ELSEWHERE = OUT.parent / "elsewhere"
"""As README calls the folder in which the demo is made again."""
CHAT = "How many seconds lie between the digits?"


def printed(*command: str, columns: int = 100) -> str:
    """Standard output of `python -m command` in a pipe of so many columns."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"python -m {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def fenced(text: str) -> str:
    """Output as a code block, without blanks at the ends of its lines."""
    lines = (line.rstrip() for line in text.strip("\n").split("\n"))
    return "\n```\n" + "\n".join(lines) + "\n```\n\n"


def metrics() -> str:
    """The figures that the demo ends with."""
    found = json.loads(METRICS.read_text())
    rows = ((name, value) for name, value in found.items() if not isinstance(value, dict))
    return fenced("\n".join(f"{name:<28}{_spelled(value)}" for name, value in rows))


def _spelled(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def bars() -> str:
    """The demo's figures against their bars, as a table."""
    said = json.loads(printed("benchmarks", "demo").splitlines()[-1])
    rows = "".join(
        f"| {bar['what']} | {bar['value']:g} | {bar['bar']} | {'yes' if bar['holds'] else 'no'} |\n"
        for bar in said["bars"]
    )
    return f"\n| what | found | bar | holds |\n|---|---|---|---|\n{rows}\n"


def kinds() -> str:
    """Accuracy by kind of question."""
    scores = json.loads((OUT / "scores.json").read_text())
    told = scores["pathways"]["both"]["tasks"]["scenes/test"]["types"]
    by_kind = ", ".join(f"{kind} {score['accuracy']:.2f}" for kind, score in told.items())
    return f"\nBy kind of question: {by_kind}.\n\n"


def books() -> str:
    """The books and the ratio of the demo's second stage, planned again over its pool."""
    with tempfile.TemporaryDirectory() as folder:
        # the last line says where it was written
        said, _, manifest_id = _planned("demo_stage2", folder).rstrip("\n").rpartition(": ")
        return fenced(said.rpartition("\n")[0] + f"\n{MANIFEST}/manifest.json: {manifest_id}")


def diff() -> str:
    """What the ablation without vision shares with the demo's second stage."""
    with tempfile.TemporaryDirectory() as folder:
        _planned("demo_stage2_no_vision", folder)
        return fenced(printed("mixtures", "diff", MANIFEST, folder))


def _planned(recipe: str, folder: str) -> str:
    return printed(
        "mixtures", "plan", f"mixtures/{recipe}.yaml", "--pool", str(POOL), "--out", folder
    )


def explain() -> str:
    """The samples of one rank at one step."""
    place = "--step 12 --rank 0 --world-size 2 --global-batch 4".split()
    return fenced(printed("mixtures", "explain", MANIFEST, *place, "--pool", str(POOL)))


def chat() -> str:
    """An answer of the demo's model."""
    video = str(OUT / "data/scenes/videos/test-0000.mp4")
    return fenced(printed("train", "chat", "--model", MODEL, "--video", video, "--question", CHAT))


def scored() -> str:
    """The demo's model on its held-out videos, and without seeing them."""
    asked = ["--tasks", str(OUT / "data/scenes/test.json"), "--pathways", "both", "none"]
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "scores.json")
        return fenced(printed("train", "evaluate", "--model", MODEL, *asked, "--out", out))


def ablated() -> str:
    """The differences of `make ablation`, whose runs lie in runs/ablation; none is trained."""
    if not list(ABLATION.glob("results/*.json")):
        raise UserError(f"{ABLATION}: no results; run `make ablation` first")
    # wide enough for a verdict on one line
    grid = "examples/ablation.yaml"
    said = printed("train", "ablate", grid, "--out", str(ABLATION), columns=120)
    table = said.partition("differences from the base")[2].partition("by source and by type")[0]
    # the title's own line ends first
    return fenced(table.partition("\n")[2].rstrip())


def reproduced() -> str:
    """The demo's first stage from its two files: in another folder, and on two processes."""
    run = OUT / "train1/run.json"
    with tempfile.TemporaryDirectory(dir=OUT.parent) as folder:
        elsewhere = Path(folder)
        data, pool = elsewhere / "data", str(elsewhere / "pool")
        shutil.copytree(OUT / "data", data)
        lock, root = OUT / "stage1/recipe.lock.json", f"{(OUT / 'data').absolute()}={data}"
        made = ["--pool", pool, "--out", str(elsewhere / "stage1"), "--root", root]
        said = printed("pipeline", "rebuild", str(lock), *made)
        two = "torch.distributed.run --standalone --nproc_per_node 2 -m train reproduce".split()
        manifest = str(elsewhere / "stage1/manifest.json")
        told = printed(*two, str(run), "--pool", pool, "--manifest", manifest)
        same = said.rstrip("\n").rpartition("\n")[2].replace(folder, str(ELSEWHERE))
    return fenced(f"{same}\n{told}")


BLOCKS: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (metrics, bars, kinds, books, diff, explain, ablated, scored, chat, reproduced)
}


def differing(readme: str) -> list[str]:
    """A line for each thing in which the demo in runs/demo is not as README records it."""
    recorded = {block[1]: block[2] for block in BLOCK.findall(readme)}
    found = _figures(recorded["metrics"], json.loads(METRICS.read_text()))
    for name in EXACT:
        if (now := BLOCKS[name]()) != recorded[name]:
            lines = difflib.unified_diff(
                recorded[name].splitlines(), now.splitlines(), "README", "here", lineterm="", n=0
            )
            found += [f"{name}: {line}" for line in list(lines)[2:] if not line.startswith("@@")]
    return found


def _figures(recorded: str, now: dict[str, object]) -> list[str]:
    """The ids, counts and scores that differ; seconds and memory are the machine's."""
    lines = (line.split() for line in recorded.splitlines() if len(line.split()) == 2)
    found = []
    for name, was in lines:
        value = now.get(name)
        if value is None or name == "manifest_id" or name.startswith(("planted", "books")):
            differs = str(value) != was
        else:
            differs = SCORES in name and abs(float(str(value)) - float(was)) > NEAR
        if differs:
            found.append(f"{name}: recorded {was}, here {_spelled(value)}")
    return found


def write_index(path: Path) -> None:
    """Keep what the EXACT blocks are made of: receipts, small tables, and the tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        _planned("demo_stage2_no_vision", folder)
        names = [f"{MANIFEST}/manifest.json", f"{folder}/manifest.json"]
        pool = Pool(str(POOL))
        ledger = Ledger(pool.ledger.written())
        needed = {
            n for one in names for n in needs_of(pool, ledger, load_manifest(one), one).work_ids
        }
    kept = needed | remembered(ledger, needed)
    rows = [row for row in ledger.rows.to_pylist() if row["work_id"] in kept]
    files = files_of(ledger.rows.from_pylist(rows, schema=ledger.rows.schema))
    read = [name for name in files if name.rpartition("/")[0] not in UNREAD]
    inside = ["profile.json", *map(receipt_name, kept), *read]
    with tarfile.open(path, "w:xz") as tar:
        for place in sorted({POOL / name for name in inside} | {TOKENIZER}):
            member = tarfile.TarInfo(str(place))
            member.size = place.stat().st_size
            with place.open("rb") as file:
                tar.addfile(member, file)


def main() -> None:
    if not METRICS.exists():
        raise UserError(f"{METRICS}: not there; run `make demo` first")
    text = README.read_text()
    names = {name for _, name, _, _ in BLOCK.findall(text)}
    if names != BLOCKS.keys():
        raise UserError(f"{README}: blocks {sorted(names)}, there must be {sorted(BLOCKS)}")
    README.write_text(BLOCK.sub(lambda block: block[1] + BLOCKS[block[2]]() + block[4], text))
    write_index(INDEX)
    sys.stdout.write(f"{README}: recorded from {OUT}\n")


if __name__ == "__main__":
    run_command(main)
