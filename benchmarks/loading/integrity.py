"""Damage of every kind to a folder of shards: is it found, is it placed, what do checks cost.

Found: by `python -m shards verify`, for 1,000 one-bit flips over all files, a shard cut at every
512 bytes, swapped, missing and extra shards; by reading, for every flip inside a sample.
Cost: reading every sample with its crc32 against reading it without, by two threads: wall seconds
from the disk (page cache dropped before); and CPU seconds from memory, where a raw read is one copy
of the bytes and nothing hides the checks. Medians of ratios, taking turns.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.frame import Bar, at_least, at_most
from benchmarks.inputs.corpus import PICTURES, ROOT, Kind, corpus
from shards.errors import DamagedData
from shards.extents import ByteRange
from shards.index import read_table
from shards.reader import ShardReader
from shards.store import Store
from shards.verify import damage

FLIPS, ROUNDS = 1000, 21
SMALL = Kind(name="small", count=60, frames=1, sides=(64, 96))


def run(console: Console) -> list[Bar]:
    whole = Path(corpus("small", [SMALL]).shards)
    home = ROOT / "damaged"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(whole, home)
    flips = flipped(home)
    cut = cuts(home)
    moved = swapped_missing_extra(home)
    big = corpus("pictures", [PICTURES])
    disk, memory = reading_cost(Path(big.shards))
    console.print(f"{FLIPS} flips, {cut[1]} cuts, {len(moved)} swapped, missing or extra shards")
    return [
        at_least("bit flips found, and their place named", flips[0] / FLIPS, 1.0),
        at_least("bit flips inside samples found on reading", flips[1], 1.0),
        at_least("cuts at every 512 bytes found, and their shard named", cut[0] / cut[1], 1.0),
        at_least("swapped, missing, extra shards found and named", sum(moved) / len(moved), 1.0),
        at_most("cost of the checks / reading from the disk", disk, 0.03),
        at_most("cost of the checks / reading from memory", memory, 0.03),
    ]


def rows_of(home: Path) -> list[tuple[str, ByteRange, str]]:
    """(source, place, key) of every sample."""
    table = read_table((home / "index.parquet").read_bytes(), "index.parquet").to_pylist()
    return [
        (r["source"], ByteRange(r["shard"], r["offset"], r["extent"], r["crc32"]), r["key"])
        for r in table
    ]


def flipped(home: Path) -> tuple[int, float]:
    """How many flips verify finds and places; the share of those in samples that reading finds."""
    rng, rows = np.random.default_rng(0), rows_of(home)
    files = [path for path in sorted(home.iterdir()) if path.is_file()]
    weights = np.array([path.stat().st_size for path in files], float)
    weights[[path.suffix != ".tar" for path in files]] += weights.sum() / 20
    named = inside = caught = 0
    for choice in rng.choice(len(files), FLIPS, p=weights / weights.sum()):
        file, clean = files[choice], files[choice].read_bytes()
        at = int(rng.integers(len(clean)))
        file.write_bytes(
            clean[:at] + bytes([clean[at] ^ 1 << int(rng.integers(8))]) + clean[at + 1 :]
        )
        hit = [
            (s, p, k) for s, p, k in rows if p.file == file.name and 0 <= at - p.offset < p.extent
        ]
        said = "\n".join(damage(str(home)))
        named += file.name in said and all(
            f"at byte {p.offset}" in said and k in said for _, p, k in hit
        )
        for source, _, key in hit:
            inside += 1
            caught += reading_refuses(home, source, key)
        file.write_bytes(clean)
    return named, caught / inside


def reading_refuses(home: Path, source: str, key: str) -> bool:
    try:
        ShardReader(Store(home)).read(source, key)
    except DamagedData:
        return True
    return False


def cuts(home: Path) -> tuple[int, int]:
    shard = sorted(home.glob("*.tar"))[0]
    clean = shard.read_bytes()
    sizes = range(0, len(clean), 512)
    found = 0
    for size in sizes:
        shard.write_bytes(clean[:size])
        found += any(shard.name in fault for fault in damage(str(home)))
    shard.write_bytes(clean)
    return found, len(sizes)


def swapped_missing_extra(home: Path) -> list[bool]:
    """The one shard of this folder replaced, removed, and joined by another."""
    shard = sorted(home.glob("*.tar"))[0]
    clean, found = shard.read_bytes(), []
    shard.write_bytes(clean[512:] + clean[:512])
    found.append(any(shard.name in fault for fault in damage(str(home))))
    shard.unlink()
    found.append(any(f"{shard.name}: missing" in fault for fault in damage(str(home))))
    shard.write_bytes(clean)
    extra = home / "000000000000-000009.tar"
    extra.write_bytes(clean)
    found.append(any(extra.name in fault for fault in damage(str(home))))
    extra.unlink()
    return found


def reading_cost(shards: Path) -> tuple[float, float]:
    """What reading all samples takes with their crc32, over without, less 1.

    Wall seconds of two threads from the disk; CPU seconds from memory.
    """
    extents = ShardReader(Store(shards)).extents
    byte_ranges = [byte_range for _, byte_range, _ in rows_of(shards)]

    def raw(byte_range: ByteRange) -> None:
        extents.raw(*byte_range[:3])

    from_disk, from_memory = [], []
    for _ in range(ROUNDS):
        wall, cpu = {}, {}
        for read in (raw, extents.read):
            forget(shards)
            started = time.perf_counter()
            read_by_two(read, byte_ranges)
            wall[read] = time.perf_counter() - started
        for read in (raw, extents.read):
            started = time.process_time()
            read_by_two(read, byte_ranges)
            cpu[read] = time.process_time() - started
        from_disk.append(wall[extents.read] / wall[raw] - 1)
        from_memory.append(cpu[extents.read] / cpu[raw] - 1)
    return statistics.median(from_disk), statistics.median(from_memory)


def read_by_two(read: Callable[[ByteRange], object], byte_ranges: list[ByteRange]) -> None:
    half = len(byte_ranges) // 2

    def read_each(some: list[ByteRange]) -> None:
        for byte_range in some:
            read(byte_range)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(read_each, (byte_ranges[:half], byte_ranges[half:])))


def forget(shards: Path) -> None:
    """Drop the shards from the page cache."""
    for path in shards.glob("*.tar"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
