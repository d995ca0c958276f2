"""Joins of 10^5, 10^6 and 10^7 hashes at 31 bits, and crowds of 1,000 clips: time, recall, memory.

The hashes are random, 2 % of them one and the same (black frames), and 2,000 pairs are planted at a
distance of exactly 31 bits. 10^7 are joined in eight parts, each of which asks for an eighth of
them among all; one such part runs here, in a process of its own. Crowds are 100 and 1,000 copies of
one film, and as many forms of one template, whose numbers differ: their work must grow with their
number, and find what comparing all with all finds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
from rich.console import Console

from benchmarks.frame import Bar, at_least, at_most, equal
from benchmarks.size import crowds
from benchmarks.size.memory import peak_bytes
from pipeline.dedup.fingerprints import Hashes
from pipeline.dedup.hamming_join import RADIUS, TABLES, distinct, hamming_join

PLANTED, BLACK = 2_000, 0.02
SECONDS = {100_000: 4, 1_000_000: 60}
LARGEST, PARTS, MEMORY_GB = 10_000_000, 8, 8
RECALL = 0.99
FEW, CROWD = 100, 1_000
CROWD_SECONDS, TIMES = 120, 12


def run(console: Console) -> list[Bar]:
    bars, growth = [], {}
    for count, seconds in SECONDS.items():
        cpu, recall, compared = joined(count)
        growth[count] = compared
        bars.append(at_most(f"CPU seconds, {count:.0e} hashes", cpu, seconds))
        bars.append(
            at_least(f"recall of pairs at {RADIUS} bits, {count:.0e} hashes", recall, RECALL)
        )
    part = in_a_process()
    growth[LARGEST] = PARTS * int(part["compared"])
    bars.append(
        at_least(f"recall of pairs at {RADIUS} bits, {LARGEST:.0e}", part["recall"], RECALL)
    )
    what = f"GB of one of {PARTS} parts, {LARGEST:.0e} hashes"
    bars.append(at_most(what, part["gigabytes"], MEMORY_GB))
    for count, compared in growth.items():
        line = f"{count:.0e} hashes, {TABLES} tables: {compared:,} candidates compared"
        console.print(line, highlight=False)
    console.print(
        f"one of {PARTS} parts of {LARGEST:.0e}: {part['cpu_s']:.0f} CPU s", highlight=False
    )
    return bars + crowd_bars(console)


def crowd_bars(console: Console) -> list[Bar]:
    bars = []
    for what, made_of in crowds.MADE.items():
        rows = made_of(CROWD)
        # the first hundred clips, whatever their ids: a crowd of the same kind
        few, _ = crowds.timed(rows[:FEW])
        cpu, found = crowds.timed(rows)
        console.print(f"{what}: {few:.1f} CPU s for {FEW}, {cpu:.1f} for {CROWD}", highlight=False)
        bars.append(at_most(f"CPU seconds, {CROWD} {what}", cpu, CROWD_SECONDS))
        bars.append(at_most(f"CPU of {CROWD} by CPU of {FEW} {what}", cpu / few, TIMES))
        expected = 0 if what == "forms" else CROWD - 1
        bars.append(equal(f"pairs with a reference, {CROWD} {what}", found, expected))
    mixed = [*crowds.copies(40), *crowds.forms(60)]
    what = "clips in another cluster than all with all puts them, of 40 copies and 60 forms"
    return [*bars, equal(what, crowds.clusters_apart(mixed), 0)]


def made(count: int) -> tuple[Hashes, Hashes]:
    """(hashes [count, 4], planted pairs [PLANTED, 2, 4])."""
    draw = np.random.Generator(np.random.Philox(key=count))
    hashes = draw.integers(0, 1 << 64, (count, 4), np.uint64)
    for pair in range(PLANTED):
        flipped = np.zeros(256, np.uint8)
        flipped[draw.choice(256, RADIUS, replace=False)] = 1
        hashes[2 * pair + 1] = hashes[2 * pair] ^ np.packbits(flipped).view(np.uint64)
    planted = hashes[: 2 * PLANTED].reshape(PLANTED, 2, 4).copy()
    hashes[-int(count * BLACK) :] = 0
    return draw.permutation(hashes), planted


def joined(count: int) -> tuple[float, float, int]:
    """(CPU seconds of making distinct and joining, recall, candidates) of a join with itself."""
    hashes, planted = made(count)
    began = time.process_time()
    alone = hashes[distinct(hashes)[0]]
    pairs = hamming_join(alone, None, RADIUS)
    cpu = time.process_time() - began
    recall = found(planted, alone[pairs.queries], alone[pairs.stored]) / PLANTED
    return cpu, recall, pairs.compared


def found(planted: Hashes, ours: Hashes, theirs: Hashes) -> int:
    """How many of the planted pairs are among these pairs, in either order."""
    pairs = {frozenset((a.tobytes(), b.tobytes())) for a, b in zip(ours, theirs, strict=True)}
    return sum(frozenset((a.tobytes(), b.tobytes())) in pairs for a, b in planted)


def in_a_process() -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.curation.dedupe_scale"]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    answer: dict[str, float] = json.loads(said)
    return answer


def one_part() -> dict[str, float]:
    """An eighth of the hashes asks all; recall is of the planted pairs that it has a hash of."""
    hashes, planted = made(LARGEST)
    began = time.process_time()
    alone = hashes[distinct(hashes)[0]]
    del hashes
    asking = alone[: len(alone) // PARTS]
    pairs = hamming_join(asking, alone, RADIUS)
    cpu = time.process_time() - began
    mine = {each.tobytes() for each in asking}
    asked = np.array([any(each.tobytes() in mine for each in pair) for pair in planted])
    recall = found(planted[asked], asking[pairs.queries], alone[pairs.stored]) / asked.sum()
    memory = peak_bytes() / (1 << 30)
    return {"recall": recall, "compared": pairs.compared, "cpu_s": cpu, "gigabytes": memory}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(one_part()))
