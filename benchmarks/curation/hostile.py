"""Hostile media at the door one by one, then all of them among good neighbours in one build.

The corpora are made by tests/hostile. Alone: every file is kept or refused with its code, within
10 s and 1 GB, leaving no process and no temporary file. In a build of a small world: the same
codes stand in OUT/refused.parquet beside those of hostile rows and archives, and every good
neighbour gets in. Recipes are planned, and addresses judged, one by one. Damaged JPEGs: see
benchmarks/curation/damaged_pictures.py.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.curation import attacks, damaged_pictures, strangers
from benchmarks.frame import Bar, at_most, equal
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from pipeline.fetch.url_guard import FetchProblem, check_address
from pipeline.media import decode, decoded
from shards.errors import UserError
from shards.pool import Pool
from shards.profile import Profile
from tests.hostile import addresses
from tests.hostile.archives import CANARY
from tests.hostile.images import IMAGES
from tests.hostile.recipes import REFUSED
from tests.hostile.videos import VIDEOS, plain
from tests.support import small_world
from tests.support.made_pool import TOKENIZER, MadePool, many

KEPT = "kept"
SOURCE = (
    "  - {{name: hostile, dataset: small/hostile, format: llava_json, licence: CC0-1.0, repeat: 1, "
    "max_refused: 1, annotations: {root}/hostile.json, media: {root}/hostile}}\n"
)
FINITE = re.compile(r"length: \d+\n")
NEIGHBOURS = ("pictures", "films", "exam")
# admission hashes every file it is given, and knows folders only as folders of media
NOT_IN_BUILD = ("V46 sparse, 20 GB", "V53 folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One file of a corpus, and what must be said of it."""

    name: str
    kind: str
    path: Path
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the door said of every case, the slowest one, and what was left behind."""

    said: dict[str, str]
    slowest: float
    megabytes: float
    left: int


def run(console: Console) -> list[Bar]:
    console.print(decode.check_tools(), highlight=False)
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        cases = corpus(Path(folder))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            found = fresh.submit(judge, cases, Path(folder)).result()
        wrong = differing(console, "alone", cases, found.said)
        console.print(f"{len(cases)} files, slowest {found.slowest:.2f} s")
        built, lost, unlike_sources = build(console, cases, Path(folder))
        in_build = [case for case in cases if case.name not in NOT_IN_BUILD]
        unlike = differing(console, "built", in_build, built)
        return [
            equal("files whose verdict differs from its table", wrong, 0),
            at_most("slowest file, seconds", found.slowest, 10),
            at_most("largest process, MB", found.megabytes, 1000),
            equal("processes and temporary files left", found.left, 0),
            equal("verdicts that differ in a build", unlike, 0),
            equal("sources of rows or archives unlike their tables", unlike_sources, 0),
            equal("good neighbours missing from that build", lost, 0),
            equal("pickles that ran", int(CANARY.exists()), 0),
            equal("addresses that are not refused", led_astray(console), 0),
            equal("recipes that are not refused with their reason", misjudged(console), 0),
            *damaged_pictures.bars(console),
            *attacks.bars(console),
        ]


def corpus(folder: Path) -> list[Case]:
    """Every file of tables V and I, each in a folder of its own."""
    ok = plain(folder)
    cases = []
    for number, (name, video) in enumerate(VIDEOS.items()):
        home = folder / "videos" / f"{number:03d}"
        home.mkdir(parents=True)
        path = video.make(ok, home)
        cases.append(Case(name=name, kind="video", path=path, expected=video.expected))
    for number, (name, (expected, data)) in enumerate(IMAGES.items()):
        path = folder / "images" / f"{number:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data())
        cases.append(Case(name=f"image: {name}", kind="image", path=path, expected=expected))
    return cases


def judge(cases: Sequence[Case], folder: Path) -> Judged:
    """Run in a process of its own, whose children are the door's and nobody else's."""
    scratch = folder / "scratch"
    scratch.mkdir()
    tempfile.tempdir = str(scratch)
    said, slowest = {}, 0.0
    for case in cases:
        start = time.monotonic()
        found = decode.decode(case.path, case.kind, Profile())
        slowest = max(slowest, time.monotonic() - start)
        said[case.name] = found.code if isinstance(found, decoded.MediaRefusal) else KEPT
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return Judged(
        said=said,
        slowest=slowest,
        megabytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000,
        left=len(children) + len(list(scratch.iterdir())) + orphans(folder),
    )


def orphans(folder: Path) -> int:
    """Processes anywhere that still hold a file of the corpus on their command line."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            found += f"file:{folder}".encode() in path.read_bytes()
    return found


def differing(console: Console, where: str, cases: Sequence[Case], said: dict[str, str]) -> int:
    """How many verdicts are not the table's; each is printed."""
    wrong = [case for case in cases if said.get(case.name) != case.expected]
    for case in wrong:
        console.print(
            f"{where}: {case.name}: {said.get(case.name)}, expected {case.expected}",
            highlight=False,
        )
    return len(wrong)


def build(console: Console, cases: Sequence[Case], folder: Path) -> tuple[dict[str, str], int, int]:
    """(what a build said of every case, neighbours that it refused, other sources misjudged)."""
    root = folder / "world"
    root.mkdir()
    recipe = small_world.make(root)
    lines, expected = strangers.sources(root / "strangers", root / "films/0.mp4")
    lines += SOURCE.format(root=root)
    text = recipe.read_text().replace("held_out:", f"{lines}held_out:")
    recipe.write_text(re.sub(r"weight: \d+", "repeat: 1", FINITE.sub("", text)))
    (root / "hostile").mkdir()
    rows = []
    for number, case in enumerate(cases):
        if case.name not in NOT_IN_BUILD:
            name = f"{number:03d}{case.path.suffix if case.path.suffix == '.gif' else '.mp4'}"
            case.path.rename(root / "hostile" / name)
            rows.append(small_world.row(case.name, case.kind, name, f"What is {number}?", "This."))
    (root / "hostile.json").write_text(json.dumps(rows))
    command = [sys.executable, "-m", "pipeline", "build", str(recipe), "--out", str(root / "out")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    refused = pq.read_table(root / "out/refused.parquet").to_pylist()
    codes = {row["record"]: row["code"] for row in refused if row["source"] == "hostile"}
    neighbours = Counter(row["code"] for row in refused if row["source"] in NEIGHBOURS)
    wrong = neighbours - Counter(small_world.EXPECTED.values())
    found = strangers.outcome(root / "out")
    unlike = [name for name, wanted in expected.items() if found[name] != wanted]
    for name in unlike:
        console.print(f"{name}: {found[name]}, expected {expected[name]}", highlight=False)
    return {case.name: codes.get(case.name, KEPT) for case in cases}, wrong.total(), len(unlike)


def misjudged(console: Console) -> int:
    """Recipes of table Y that are planned though bad, or refused for another reason."""
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        path, pool = Path(home, "r.yaml"), Path(home, "pool")
        Path(home, "tokenizer.json").write_bytes(TOKENIZER)
        MadePool(sources={"a": many("a", 9), "b": many("b", 9)}).make(pool)
        for name, (_, data, message) in REFUSED.items():
            path.write_bytes(data)
            said = ""
            with chdir(home):
                try:
                    build_manifest(load_recipe(path), Pool(str(pool)))
                except UserError as error:
                    said = str(error)
            if message not in said:
                wrong += 1
                console.print(f"{name}: {said!r}, expected {message!r}", highlight=False)
    return wrong


def led_astray(console: Console) -> int:
    """Addresses of table U that would be resolved and connected to."""
    wrong = 0
    for name, url in addresses.REFUSED.items():
        try:
            check_address(url)
        except FetchProblem as problem:
            if problem.code == "FETCH_ADDRESS_REFUSED":
                continue
        wrong += 1
        console.print(f"{name}: {url!r} is not refused", highlight=False)
    return wrong
