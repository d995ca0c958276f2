"""Ten SIGKILLs of workers, machines and drivers in each of five builds against a calm one.

Films and pictures made by seed, on a Ray cluster of three nodes in a private PID namespace. Each
schedule draws by its seed when to kill what: a busy worker, a node's raylet (a new node joins), the
driver (started again). Every record must be kept or refused, once, and manifest and shards must be
those of the calm build.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.frame import Bar, at_most, equal
from shards.index import CLIPS, SAMPLES
from shards.pool import Pool
from tests.support import private_namespace, small_world

SEEDS = range(5)
PICTURES, FILMS, SECONDS = 200, 300, 10
LIMIT = 900  # seconds for one build


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a build left behind, and what was done to it."""

    manifest_id: str
    shards: dict[str, str]
    receipts: int
    lost: int
    duplicated: int
    told: dict[str, Any]


def run(console: Console) -> list[Bar]:
    if private_namespace.why_not():
        why = private_namespace.why_not()
        return [Bar(what="kills", value=None, bar="50 kills", holds=False, why=why)]
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        recipe = world(Path(folder))
        calm = build(recipe, Path(folder), "calm", 0)
        console.print(f"calm: {calm.told['seconds']:.0f} s, {calm.receipts} receipts")
        found = []
        for seed in SEEDS:
            found.append(build(recipe, Path(folder), str(seed), calm.receipts))
            console.print(f"seed {seed}: {described(found[-1].told)}", highlight=False)
    return bars(calm, found)


def described(told: dict[str, Any]) -> str:
    killed = ", ".join(f"{count} {kind}s" for kind, count in sorted(told["killed"].items()))
    return f"{told['seconds']:.0f} s, killed {killed}; the driver started {told['starts']} times"


def bars(calm: Outcome, found: list[Outcome]) -> list[Bar]:
    every = [calm, *found]
    return [
        equal("kills that struck", sum(sum(o.told["killed"].values()) for o in found), 50),
        equal("records neither kept nor refused", sum(o.lost for o in every), 0),
        equal("clips or samples there twice", sum(o.duplicated for o in every), 0),
        equal("manifests beside the calm one", len({o.manifest_id for o in every}) - 1, 0),
        equal("builds whose shards differ", sum(o.shards != calm.shards for o in found), 0),
        equal("builds that ended in an error", sum(o.told["errors"] for o in every), 0),
        at_most("minutes, all in all", sum(o.told["seconds"] for o in every) / 60, 25),
    ]


def world(root: Path, films: int = FILMS) -> Path:
    """The small world's troubles among PICTURES pictures, and films of moving gradients."""
    recipe = small_world.make(root, pictures=PICTURES)
    rows = json.loads((root / "films.json").read_text())
    for number in range(films):
        gradient(root / f"films/g{number}.mp4", number)
        row = small_world.row(f"g{number}", "video", f"g{number}.mp4", f"Film {number}?", "film")
        rows.append(row)
    (root / "films.json").write_text(json.dumps(rows))
    return recipe


def gradient(path: Path, seed: int) -> None:
    source = f"gradients=s=320x180:r=30:seed={seed}:n=4:speed=0.02:d={SECONDS}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-preset", "ultrafast"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)


def build(recipe: Path, root: Path, seed: str, receipts: int) -> Outcome:
    out = root / f"out-{seed}"
    command = [sys.executable, "-m", "benchmarks.curation.killing", str(recipe), str(out), seed]
    done = private_namespace.run([*command, str(receipts)], root / "home", {}, LIMIT)
    if done.returncode:
        raise RuntimeError(f"{done.stdout}\n{done.stderr[-4000:]}")
    return outcome(root, out, json.loads(done.stdout.splitlines()[-1]))


def outcome(root: Path, out: Path, told: dict[str, Any]) -> Outcome:
    pool = Pool(str(out / "pool"))
    receipt = json.loads((out / "shards/receipt.json").read_text())
    samples = pool.table(pool.receipts("admit"), "index/samples", SAMPLES)
    refused = pq.read_table(out / "refused.parquet")
    pairs = [("pictures", "pictures.json"), ("films", "films.json")]
    records = {(s, row["id"]) for s, name in pairs for row in json.loads((root / name).read_text())}
    seen = [tuple(row.values()) for t in (samples, refused) for row in rows_of(t)]
    clips = pool.table(pool.receipts("decode"), "index/clips", CLIPS)["clip_id"].to_pylist()
    drawn = pq.read_table(out / "shards/index.parquet", columns=["position"])["position"]
    keys = samples["key"].to_pylist()
    return Outcome(
        manifest_id=receipt["manifest_id"],
        shards=receipt["shards"],
        receipts=len([*(out / "pool/receipts").iterdir()]),
        lost=len(records - set(seen)) + receipt["samples"] - len(set(drawn.to_pylist())),
        duplicated=twice(clips) + twice(keys) + twice(drawn.to_pylist()),
        told=told,
    )


def rows_of(table: Any) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = table.select(["source", "record"]).to_pylist()
    return rows


def twice(names: Iterable[Any]) -> int:
    return sum(count - 1 for count in Counter(names).values())
