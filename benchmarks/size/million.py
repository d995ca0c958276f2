"""A curation at size: 10^6 tiny pictures in tar shards and 10^4 short films, from files to shards.

One hundred pictures to a film. Pictures are noise of their own; films are one hundred, repeated
with a serial number behind their last byte, so that they fit the disk: each comes again as a
hundred copies. The recipe is built twice by `python -m pipeline build`, with a tenth of the media
and with all of them; memory of the driver and of its workers is read every second. What the paper's
4.67M images and 2.01M videos would take follows from the two: so much a sample, decoding by kind.
A run of 10^6 that would take more than three hours, by its tenth, is left at the tenth.

`python -m benchmarks.size.million 10000` takes as many pictures.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_most, equal, show
from mixtures.tokens.text import train_tokenizer
from pipeline.build import build
from pipeline.jobs.dry_run import rates
from shards.errors import UserError
from shards.outcome import read_books
from shards.pool import Pool
from shards.store import Store

HOME = Path("runs/benchmarks/million")
PICTURES, PER_FILM = 1_000_000, 100
LEAST = 10_000
IN_A_SHARD, FILMS = 1_000, 100
MOST_HOURS = 3.0
IMAGES, VIDEOS, CORES = 4_670_000, 2_010_000, 64  # arXiv 2503.18943, section 3.2
GROWTH = 1.5
"""Of a worker's memory with ten times the media: it is flat."""
DRIVER_GB = 1.0
RECIPE = """\
name: million
seed: 1
pack_tokens: 2048
pack_patches: 4096
max_shard_bytes: 1000000000000
frames: {{fps: 2, cap: 8, area: 16384, min_area: 4096}}
layout: {{slow_frames: 2, image_token_budget: 64}}
text: {{tokenizer: {home}/tokenizer.json}}
sources:
  - {{name: pictures, dataset: made/pictures, format: llava_json, licence: CC0-1.0, repeat: 1,
     annotations: {home}/pictures.jsonl, archives: ["{home}/shards/*.tar"]}}
  - {{name: films, dataset: made/films, format: llava_json, licence: CC0-1.0, repeat: 1,
     annotations: {home}/films.jsonl, media: {home}/films}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A build of so many samples: wall seconds, receipts, what its driver asked of stores,
    milliseconds a medium by kind, and bytes of the driver and of its largest worker, second by
    second."""

    samples: int
    drawn: int
    seconds: float
    receipts: int
    requests: dict[str, int]
    milliseconds: dict[str, float]
    driver: tuple[int, ...]
    worker: tuple[int, ...]


def run(console: Console) -> list[Bar]:
    return measure(console, PICTURES)


def measure(console: Console, pictures: int) -> list[Bar]:
    if pictures < LEAST:
        raise UserError(f"{pictures} pictures: a tenth of them must have films; {LEAST} at least")
    few = built(console, pictures // 10)
    hours = 10 * few.seconds / 3600
    if hours > MOST_HOURS:
        console.print(f"{pictures} pictures would take {hours:.1f} h: left at a tenth of them")
        fewer, most = built(console, pictures // 100), few
    else:
        fewer, most = few, built(console, pictures)
    console.print(_table([fewer, most]))
    console.print(_price(fewer, most), highlight=False)
    return _bars(fewer, most)


def _bars(fewer: Built, most: Built) -> list[Bar]:
    growth = max(most.worker) / max(fewer.worker)
    return [
        equal("samples that were not drawn once", most.samples - most.drawn, 0),
        at_most("memory of a worker, all media by a tenth", growth, GROWTH),
        at_most("GB of the driver at its peak", max(most.driver) / 1e9, DRIVER_GB),
    ]


def _table(runs: list[Built]) -> Table:
    table = Table(*"samples,wall s,samples/s/core,receipts,requests,driver MB,worker MB".split(","))
    for one in runs:
        rate = one.samples / one.seconds / (os.cpu_count() or 1)
        memory = ("  ".join(f"{n >> 20}" for n in _quarters(m)) for m in (one.driver, one.worker))
        table.add_row(
            *(str(one.samples), f"{one.seconds:.0f}", f"{rate:.1f}", str(one.receipts)),
            *(str(sum(one.requests.values())), *memory),
        )
    asked = ", ".join(f"{count} {name}" for name, count in sorted(runs[-1].requests.items()))
    table.caption = f"memory: the peak of each quarter; requests of the driver, last run: {asked}"
    return table


def _quarters(values: tuple[int, ...]) -> list[int]:
    """The largest value of each quarter of a run."""
    return [max(part, default=0) for part in np.array_split(np.array(values, np.int64), 4)]


def _price(fewer: Built, most: Built) -> str:
    """What the paper's mixture would take: what both runs spent beside decoding grows with the
    number of samples, decoding with that of images and of videos."""
    cores = os.cpu_count() or 1
    beside = [one.seconds * cores - _decoding(one) for one in (fewer, most)]
    slope = (beside[1] - beside[0]) / (most.samples - fewer.samples)
    decoding = IMAGES * most.milliseconds["image"] + VIDEOS * most.milliseconds["video"]
    hours = (decoding / 1000 + slope * (IMAGES + VIDEOS)) / 3600
    return (
        f"decoding {most.milliseconds['image']:.1f} ms a picture, {most.milliseconds['video']:.0f} "
        f"ms a film; all else {1000 * slope:.1f} core ms a sample\n"
        f"{IMAGES + VIDEOS:,} samples of such media: {hours:.0f} core hours, {hours / CORES:.1f} h "
        f"on {CORES} cores; of media as they are published: `build --dry-run` over a pool that has "
        "some of them"
    )


def _decoding(one: Built) -> float:
    """Core seconds of decoding."""
    films = one.samples // (PER_FILM + 1)
    images = one.samples - films
    return (images * one.milliseconds["image"] + films * one.milliseconds["video"]) / 1000


# a run -------------------------------------------------------------------------------


def built(console: Console, pictures: int) -> Built:
    """Make the media if they are not there, and build them from nothing."""
    home = (HOME / str(pictures)).absolute()
    if not (home / "recipe.yaml").exists():
        make(home, pictures)
    for name in ("pool", "out"):
        shutil.rmtree(home / name, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.size.million", "build", str(home)]
    began = time.monotonic()
    with (
        (home / "build.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as driver,
    ):
        memory = list(_watched(driver))
    seconds = time.monotonic() - began
    if driver.returncode:
        raise UserError(f"{home}/build.log: the build ended with status {driver.returncode}")
    console.print((home / "build.log").read_text(), highlight=False, markup=False)
    pool = Pool(str(home / "pool"))
    books = read_books(Store(str(home / "out")))[0]
    return Built(
        samples=sum(one.samples for one in books),
        drawn=sum(one.drawn for one in books),
        seconds=seconds,
        receipts=len(pool.ledger.table()),
        requests=json.loads((home / "requests.json").read_text()),
        milliseconds={kind: rate.milliseconds for kind, rate in rates(pool).items()},
        driver=tuple(one for one, _ in memory),
        worker=tuple(one for _, one in memory),
    )


def build_counted(home: Path) -> None:
    """A build in this process, which counts what it asks of stores; its workers' are not seen."""
    asked: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        plain = getattr(Store, name)

        def told(store: Store, *arguments: Any, **options: Any) -> Any:
            asked[name] += 1
            return plain(store, *arguments, **options)

        return told

    with ExitStack() as stack:
        for name in ("get", "list", "exists", "put", "put_once", "remove"):
            stack.enter_context(patch.object(Store, name, counting(name)))
        build(str(home / "recipe.yaml"), str(home / "out"), str(home / "pool"))
    (home / "requests.json").write_text(json.dumps(asked))


def _watched(driver: subprocess.Popen[bytes]) -> Iterator[tuple[int, int]]:
    """Bytes of a driver and of the largest of Ray's workers below it, once a second."""
    while driver.poll() is None:
        below = _below(driver.pid)
        workers = [_resident(pid) for pid in below if _command(pid).startswith("ray::")]
        yield _resident(driver.pid), max(workers, default=0)
        time.sleep(1)


def _below(root: int) -> set[int]:
    """The processes that a process began, and those that they began."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name in brackets may hold spaces
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _resident(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


# what is curated ---------------------------------------------------------------------


def make(home: Path, pictures: int) -> None:
    """Pictures in tar shards, films in a folder, annotations of both, a tokenizer, a recipe."""
    shutil.rmtree(home, ignore_errors=True)
    for name in ("shards", "films"):
        (home / name).mkdir(parents=True)
    with (home / "pictures.jsonl").open("w") as rows:
        for start in range(0, pictures, IN_A_SHARD):
            numbers = range(start, min(pictures, start + IN_A_SHARD))
            with tarfile.open(home / f"shards/{start // IN_A_SHARD:04d}.tar", "w") as tar:
                for number in numbers:
                    _add(tar, f"{number:07d}.jpg", picture(number))
            rows.writelines(_row("image", f"{number:07d}.jpg", number) for number in numbers)
    base = [film(home / "films", number) for number in range(min(FILMS, pictures // PER_FILM))]
    with (home / "films.jsonl").open("w") as rows:
        for number in range(pictures // PER_FILM):
            # a free box: players and ffmpeg pass over it
            serial = b"\x00\x00\x00\x10free" + number.to_bytes(8, "big")
            (home / f"films/{number:06d}.mp4").write_bytes(base[number % len(base)] + serial)
            rows.write(_row("video", f"{number:06d}.mp4", number))
    words = [_row("image", "0.jpg", number) for number in range(200)]
    (home / "tokenizer.json").write_bytes(train_tokenizer(words, 400))
    (home / "recipe.yaml").write_text(RECIPE.format(home=home))


def picture(number: int) -> bytes:
    """64 x 48 pixels: a grid of 5 x 4 colours of its own, and what lies between them."""
    colours = np.random.Generator(np.random.Philox(key=number)).integers(
        0, 256, (4, 5, 3), np.uint8
    )
    drawn = Image.fromarray(colours).resize((64, 48), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=90)
    return file.getvalue()


def film(folder: Path, number: int) -> bytes:
    """Two seconds of 128 x 96 pixels."""
    path = folder / "base.mp4"
    source = (
        f"mandelbrot=s=128x96:r=10:start_scale={0.3 + number / 90}:start_x={-0.7 + number / 200}"
    )
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-t", "2"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    data = path.read_bytes()
    path.unlink()
    return data


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _row(kind: str, name: str, number: int) -> str:
    turns = [("human", f"<{kind}>\nWhat is number {number}?"), ("gpt", f"It is {number}.")]
    said = [{"from": who, "value": text} for who, text in turns]
    return json.dumps({"id": f"{kind}-{number}", kind: name, "conversations": said}) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build_counted(Path(sys.argv[2]))
    else:
        show(Console(), measure(Console(), int(sys.argv[1])))
