"""Recall and precision of duplicates: 60 clips by seed, 13 copies of each, and look-alikes.

Every file passes the media door and is fingerprinted as a pool's clips are; then all are compared
with all. A base clip and its copy must pair; clips of different bases must not, but for the pairs
in natural_pairs.txt. Thresholds were fitted on the first set of 60. The second set, held out, and
the third were looked at while rules were made; the fourth judges: nothing was fitted to it.
Beside the first: imagehash's pHash within 10 bits and plain PDQ within 31 bits of the same frames,
where half of a copy's frames must match; and logos of other kinds. Of each set go with it 432 pairs
of pictures and films that only look alike (benchmarks.curation.look_alikes).
"""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.curation import look_alikes
from benchmarks.curation.copies import BASES, copies, made
from benchmarks.curation.logos import found_by_kind
from benchmarks.frame import Bar, at_least, equal
from pipeline.dedup.candidates import candidates
from pipeline.dedup.fingerprint_arrays import fingerprints_of, hashed_of
from pipeline.dedup.fingerprints import MOST_HASHES, evenly, fingerprint
from pipeline.dedup.verify import same
from pipeline.media import decode
from pipeline.media.decoded import Decoded
from shards.index import FINGERPRINTS, table_of
from shards.profile import Profile

FOLDER = Path("runs/benchmarks/duplicates")
NATURAL = Path(__file__).with_name("natural_pairs.txt")
RECALL = {
    "recompressed": 0.99,
    "recoded": 0.99,
    "resized": 0.99,
    "stretched": 0.99,
    "fps": 0.99,
    "speed": 0.99,
    "trimmed": 0.99,
    "letterboxed": 0.98,
    "mirrored": 0.95,
    "watermarked": 0.95,
    "crop 5 %": 0.97,
    "crop 10 %": 0.90,
    "contained": 0.95,
}
PRECISION = 0.999
SETS = ("fitted", "held out", "third", "judge")
PEERS = {"phash": 10, "pdq": 31}
AT_ONCE = 16
CORES = os.cpu_count() or 1
Pair = tuple[str, str]


def run(console: Console) -> list[Bar]:
    assert set(RECALL) == {*copies(0, 8), "contained"}
    bars = []
    for which, name in enumerate(SETS):
        folder = FOLDER / f"copies_{which}"
        made(folder, which)
        rows = decoded(files(folder))
        pairs = all_pairs(rows)
        found = {(p["clip_a"], p["clip_b"]) for p in pairs if p["judged"] == "same"}
        by_peer = asked(console, folder) if which == 0 else {}
        console.print(f"{name}: {len(rows)} clips")
        show(console, found, by_peer)
        bars += judged(console, name, found)
        bases = [row for row in rows if row["clip_id"].endswith("-base")]
        show_logos(console, found_by_kind(bases))
        bars += look_alike_bars(console, name, which)
    return bars


def judged(console: Console, name: str, found: set[Pair]) -> list[Bar]:
    bars = [
        at_least(f"{name}: recall, {copy}", recall(found, copy), bar)
        for copy, bar in RECALL.items()
    ]
    if name != SETS[0]:
        copies_found = sum(round(recall(found, copy) * BASES) for copy in RECALL)
        bars.append(at_least(f"{name}: copies found, of {BASES * len(RECALL)}", copies_found, 774))
    wrong = sorted(pair for pair in found if not same_base(*pair) and not natural(*pair))
    console.print(f"{len(found)} pairs found, not true: {wrong or 'none'}", highlight=False)
    right = 1 - len(wrong) / max(1, len(found))
    bars.append(at_least(f"{name}: precision of all pairs found", right, PRECISION))
    if name != SETS[0]:
        return bars
    alike = sum("look" in one or "look" in other for one, other in wrong)
    what = "pairs with a look-alike (black, slates, one board, one shot)"
    return [*bars, equal(what, alike, 0)]


def look_alike_bars(console: Console, name: str, which: int) -> list[Bar]:
    """Of pairs that only look alike, none is judged the same."""
    folder = FOLDER / f"look_alikes_{which}"
    pairs = all_pairs(decoded(look_alikes.made(folder, which)))
    counts = Counter(pair["judged"] for pair in pairs)
    total = len(look_alikes.KINDS) * look_alikes.GROUPS * math.comb(look_alikes.MEMBERS, 2)
    wrong = [(p["clip_a"], p["clip_b"]) for p in pairs if p["judged"] == "same"]
    lines = (
        f"{name}: {total} pairs of look-alikes, judged {dict(counts) or 'different'}",
        f"the smallest difference of a pair: {look_alikes.least_visible(folder)}",
        f"judged the same: {wrong or 'none'}",
    )
    console.print(*lines, sep="\n", highlight=False)
    return [equal(f"{name}: look-alikes judged the same", counts["same"], 0)]


def show_logos(console: Console, found: dict[str, tuple[int, int]]) -> None:
    table = Table("copies under logos", "found", "of", "recall")
    for kind, (right, count) in found.items():
        table.add_row(kind, str(right), str(count), f"{right / count:.3f}")
    console.print(table)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".webm"))


def all_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `duplicate_pairs` finds, each core comparing its share of the candidates."""
    table = table_of(FINGERPRINTS, rows)
    prints = fingerprints_of(table)
    every = set(prints.clips)
    found = candidates(prints, hashed_of(table), every, every)
    first = pc.min_element_wise(found["asking"], found["stored"]).to_pylist()
    parts = [[zlib.crc32(name.encode()) % CORES == part for name in first] for part in range(CORES)]
    with ProcessPoolExecutor(CORES) as workers:
        shares = [found.filter(pa.array(part, pa.bool_())) for part in parts]
        pairs = workers.map(same, shares, [prints] * CORES)
        return [pair for share in pairs for pair in share.to_pylist()]


def decoded(paths: list[Path]) -> list[dict[str, Any]]:
    """The fingerprints of files, in their order."""
    batches = [paths[at : at + AT_ONCE] for at in range(0, len(paths), AT_ONCE)]
    with ProcessPoolExecutor(CORES) as workers:
        return [row for rows in workers.map(decoded_at_once, batches) for row in rows]


def decoded_at_once(paths: list[Path]) -> list[dict[str, Any]]:
    """The fingerprints of a few files; their hashed frames are left in frames/ for the peers."""
    rows = []
    kinds = ("image" if path.suffix == ".png" else "video" for path in paths)
    items = [(path, kind, None) for path, kind in zip(paths, kinds, strict=True)]
    every = decode.decode_all(items, Profile())
    for path, one in zip(paths, every, strict=True):
        assert isinstance(one, Decoded), (path, one)
        rows.append(fingerprint(path.stem, one))
        folder = path.parent / "frames" / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        for frame in evenly(one.pts, MOST_HASHES):
            (folder / f"{frame:03d}.jpg").write_bytes(one.frames[frame])
    return rows


def base_of(name: str) -> str:
    return name if name.startswith("look") else name[:2]


def same_base(one: str, other: str) -> bool:
    return base_of(one) == base_of(other)


def natural(one: str, other: str) -> bool:
    """Whether two bases show the same by nature, as the file says."""
    lines = NATURAL.read_text().splitlines()
    listed = {tuple(line.split()[:2]) for line in lines if not line.startswith("#")}
    return (base_of(one), base_of(other)) in listed


def recall(found: set[Pair], name: str) -> float:
    bases = (f"{number:02d}" for number in range(BASES))
    pairs = (sorted((f"{base}-base", f"{base}-{name}")) for base in bases)
    return sum(tuple(pair) in found for pair in pairs) / BASES


def wilson(share: float, count: int) -> float:
    """The lower end of the 95 % interval of a share of `count`."""
    z = 1.96
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - spread) / (1 + z * z / count)


def asked(console: Console, folder: Path) -> dict[str, set[Pair]]:
    """The pairs that each peer finds among base clips and their copies, and among base clips."""
    request = {"frames": str((folder / "frames").resolve())}
    try:
        answers = peers.ask("hashes", request, timeout=1800)
    except peers.PeerUnavailable as error:
        console.print(f"peers: {error}", style="red", highlight=False)
        return {}
    found: dict[str, set[Pair]] = {}
    for peer, limit in PEERS.items():
        hashes = {row["clip"]: unpacked(row[peer]) for row in answers}
        found[peer] = {pair for pair in compared(hashes) if matches(hashes, *pair, limit)}
    return found


def unpacked(hashes: list[str]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array([list(bytes.fromhex(each)) for each in hashes], np.uint8)


def compared(names: dict[str, Any]) -> list[Pair]:
    pairs = itertools.combinations(sorted(names), 2)
    bases = (f"{number:02d}-base" for number in range(BASES))
    wanted = set(bases)
    return [(a, b) for a, b in pairs if (same_base(a, b) and wanted & {a, b}) or {a, b} <= wanted]


def matches(hashes: dict[str, Any], one: str, other: str, limit: int) -> bool:
    """Whether half of the frames of the clip with fewer frames have a match in the other."""
    few, many = sorted((hashes[one], hashes[other]), key=len)
    apart = np.bitwise_count(few[:, None] ^ many[None]).sum(axis=-1, dtype=np.int64)
    return bool((apart.min(axis=1) <= limit).mean() >= 0.5)


def show(console: Console, found: set[Pair], by_peer: dict[str, set[Pair]]) -> None:
    table = Table("copy", "found", "recall", "at least (95 %)", *by_peer)
    for name in RECALL:
        share = recall(found, name)
        others = [f"{recall(each, name):.3f}" for each in by_peer.values()]
        count = f"{round(share * BASES)} of {BASES}"
        table.add_row(name, count, f"{share:.3f}", f"{wilson(share, BASES):.3f}", *others)
    wrong = [str(sum(not same_base(*pair) for pair in each)) for each in by_peer.values()]
    ours = sum(not same_base(*pair) and all("base" in name for name in pair) for pair in found)
    table.add_row("pairs of two base clips", str(ours), "", "", *wrong)
    console.print(table)
