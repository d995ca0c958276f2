"""What a build's driver holds of 10^6 clips in 10^4 receipts: ledger, decoding, comparing, plan.

There is a clip to a sample, as where every conversation has media of its own. The pool is made
(`benchmarks/inputs/made_index.py`), all that was decoded has its receipt, and each step runs as the
driver runs it, in a process of its own on one core: the ledger is compacted and read, decoding
finds that nothing is left, the comparison is cut into units, the plan is made.
`python -m benchmarks.size.driver 10000000` does the same with as many clips in as many receipts.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_most, equal, show
from benchmarks.inputs.made_index import make_index, write_recipe
from benchmarks.mixing.scale import measured
from pipeline.build import compare_unit
from pipeline.stages import compare_clips, pending
from shards.id_arrays import hex_of
from shards.pool import Pool, Receipt

HOME = Path("runs/benchmarks/driver")
CLIPS, RECEIPTS = 1_000_000, 10_000
MEMORY_GB = 4 / 10  # of 10^7 clips, four


def run(console: Console) -> list[Bar]:
    return measure(console, CLIPS)


def measure(console: Console, clips: int) -> list[Bar]:
    folder = HOME / str(clips)
    if not (folder / "recipe.yaml").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _step("make", folder)
    table = Table("step", "CPU s", "peak GB", "found")
    bars = []
    for step in ("ledger", "decode", "compare"):
        said, cpu, peak = _step(step, folder)
        found = json.loads(said)
        table.add_row(step, f"{cpu:.1f}", f"{peak / 1e9:.2f}", said)
        bars.append(_memory(f"{step} of {clips:.0e} clips", peak, clips))
        if step == "decode":
            bars.append(equal("clips that are left to decode", found["left"], 0))
    command = [sys.executable, "-m", "mixtures", "plan", str(folder / "recipe.yaml")]
    _, cpu, peak = measured(
        [*command, "--pool", str(folder / "pool"), "--out", str(folder / "out")]
    )
    table.add_row("plan", f"{cpu:.1f}", f"{peak / 1e9:.2f}", f"{clips} samples")
    bars.append(_memory(f"plan of {clips:.0e} samples", peak, clips))
    console.print(table)
    return bars


def _memory(what: str, peak: int, clips: int) -> Bar:
    return at_most(f"{what}, GB", peak / 1e9, max(1.0, MEMORY_GB * clips / CLIPS))


def _step(name: str, folder: Path) -> tuple[str, float, int]:
    command = [sys.executable, "-m", "benchmarks.size.driver", name, str(folder)]
    return measured(command)


def make(folder: Path) -> dict[str, int]:
    clips = int(folder.name)
    pool, names = make_index(
        folder / "pool", clips, per_receipt=max(1, clips // RECEIPTS), per_clip=1
    )
    write_recipe(folder / "recipe.yaml", folder / "pool", dict.fromkeys(names, "repeat: 1"))
    return {"receipts": len(pool.receipts("decode"))}


def ledger(folder: Path) -> dict[str, int]:
    pool = Pool(str(folder / "pool"))
    copied = pool.ledger.compact()
    return {"copied": copied, "receipts": len(pool.ledger.table("decode"))}


def decode(folder: Path) -> dict[str, int]:
    pool = Pool(str(folder / "pool"))
    known = pending.Known(pool, pool.ledger.table("decode"))
    wanted = pending.Wanted(pool, _admitted(pool))
    left = sum(len(clips) - len(known.outcomes(clips)) for clips in wanted.clip_ids())
    return {"clips": len(wanted), "left": left}


def compare(folder: Path) -> dict[str, int]:
    pool = Pool(str(folder / "pool"))
    admitted = _admitted(pool)
    names = hex_of(pending.raw_ids(pool, list(admitted.values())))
    unit = compare_unit(pool, names, admitted, {}, {})
    done = compare_clips.finished(unit)
    return {"units": len(compare_clips.parts(unit)), "done": int(done)}


def _admitted(pool: Pool) -> dict[str, Receipt]:
    return {one.parameters["source"]: one for one in pool.receipts("admit")}


STEPS: dict[str, Callable[[Path], dict[str, int]]] = {
    "make": make,
    "ledger": ledger,
    "decode": decode,
    "compare": compare,
}

if __name__ == "__main__":
    if sys.argv[1] in STEPS:
        sys.stdout.write(json.dumps(STEPS[sys.argv[1]](Path(sys.argv[2]))))
    else:
        show(Console(), measure(Console(), int(sys.argv[1])))
