"""Planning 10^6 and 10^7 samples from 40 sources, a second recipe, memory while training, any step.

The index is synthetic (`benchmarks/inputs/made_index.py`), everything after it is the shipped code:
each plan is a `python -m mixtures plan` of its own, held to one core. Seconds are CPU seconds; they
double from one hour to the next on a rented machine, so a second recipe is held against the first
plan of the same run as well.
Every recipe prices a timestamp as text per frame (`timestamps: per_frame_text`) but for the one
that says `no timestamps`; `join by clip` joins the conversations over one clip.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import process_time

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_most
from benchmarks.inputs.made_index import make_index, write_recipe
from mixtures.manifest.files import load_manifest
from mixtures.manifest.sampler import BatchSampler
from shards.errors import UserError

HOME = Path("runs/benchmarks/scale")
SMALL, LARGE = 10**6, 10**7


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """CPU seconds and peak memory in bytes of one plan, and the folder it wrote."""

    cpu_s: float
    peak: int
    out: Path

    @property
    def value(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.out / "manifest.json").read_bytes())
        return found


def run(console: Console) -> list[Bar]:
    table = Table("samples", "recipe", "CPU s", "peak GB", "positions", "packs", "manifest kB")
    first: dict[int, Planned] = {}
    for samples in (SMALL, LARGE):
        folder = HOME / str(samples)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "benchmarks.mixing.scale", str(samples)], check=True)
        first[samples] = plan(table, folder, "weights", samples)
    second = plan(table, folder, "other_weights", LARGE)
    finite = plan(table, folder, "repeat", LARGE)
    plan(table, folder, "no_timestamps", LARGE)
    joined = plan(table, folder, "join_by_clip", LARGE)
    console.print(table)
    held = json.loads(
        measured([sys.executable, "-m", "benchmarks.loading.hold", str(second.out)])[0]
    )
    console.print(f"while training: {held}")
    slowest = any_step(second.out)
    slowest_second = max(each.cpu_s for each in (second, finite, joined))
    tables = sum(path.stat().st_size for path in (second.out / "plan").iterdir())
    console.print(f"plan/ beside the manifest: {tables / LARGE:.1f} bytes per sample, mapped")
    size = (second.out / "manifest.json").stat().st_size
    large = first[LARGE]
    shutil.rmtree(HOME)
    return [
        at_most("plan of 10^7 samples, CPU seconds", large.cpu_s, 120),
        at_most("peak memory of that plan, GB", large.peak / 1e9, 4),
        at_most("10^7 / 10^6, CPU seconds", large.cpu_s / first[SMALL].cpu_s, 12),
        at_most("second recipe over the same pool, CPU seconds", second.cpu_s, 25),
        at_most("second recipe, every sample once, CPU seconds", finite.cpu_s, 25),
        at_most("second recipe that joins by clip, CPU seconds", joined.cpu_s, 25),
        at_most("the slowest of these / first plan", slowest_second / large.cpu_s, 0.45),
        at_most("manifest.json, MB", size / 1e6, 5),
        at_most("slowest of some steps for some ranks, CPU seconds", slowest, 2),
        at_most("resident bytes per sample while training", held["resident"] / LARGE, 60),
    ]


def make(samples: int) -> None:
    """The pool of so many samples, and the recipes over it."""
    folder = HOME / str(samples)
    _, names = make_index(folder / "pool", samples)
    length = f"length: {samples}"
    weights = {name: f"weight: {i % 7 + 1}" for i, name in enumerate(names)}
    others = weights | {names[-1]: "weight: 5", names[-2]: "weight: 4"}
    stamped = "layout: {timestamps: per_frame_text}"
    once = dict.fromkeys(names, "repeat: 1")
    for name, ratios, more in (
        ("weights", weights, (length, stamped)),
        ("other_weights", others, (length, stamped)),
        ("repeat", once, (stamped,)),
        ("no_timestamps", once, ("layout: {timestamps: none}",)),
        ("join_by_clip", once, (stamped, "join_by_clip: {max_turns: 40, max_tokens: 32768}")),
    ):
        write_recipe(folder / f"{name}.yaml", folder / "pool", ratios, *more)


def any_step(folder: Path) -> float:
    """CPU seconds that a rank's packs take, at most, asked for anew here and there in the order."""
    manifest, found = load_manifest(folder / "manifest.json"), []
    for world_size, global_batch in product((1, 48, 1024), (48, 1024)):
        last = manifest.contents.packs // global_batch - 1
        for step in (0, last // 3, last):
            started = process_time()
            BatchSampler(manifest, global_batch).batch(step, world_size - 1, world_size)
            found.append(process_time() - started)
    return max(found)


def plan(table: Table, folder: Path, name: str, samples: int) -> Planned:
    out = folder / name
    command = [sys.executable, "-m", "mixtures", "plan", str(folder / f"{name}.yaml")]
    _, cpu, peak = measured([*command, "--pool", str(folder / "pool"), "--out", str(out)])
    found = Planned(cpu_s=cpu, peak=peak, out=out)
    value = found.value
    cells = (f"{cpu:.1f}", f"{peak / 1e9:.2f}", str(value["length"]), str(value["packs"]))
    kilobytes = f"{(out / 'manifest.json').stat().st_size / 1e3:.1f}"
    table.add_row(f"{samples:,}", name.replace("_", " "), *cells, kilobytes)
    return found


def measured(command: list[str]) -> tuple[str, float, int]:
    """Standard output, CPU seconds and peak resident bytes of a command on one core."""
    core = {min(os.sched_getaffinity(0))}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, core)
    ) as child:
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise UserError(f"{' '.join(command)}: status {child.returncode}; see above")
    return said, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


if __name__ == "__main__":
    make(int(sys.argv[1]))
