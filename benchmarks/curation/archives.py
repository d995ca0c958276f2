"""An archive of thousands of members, streamed into a pool, against reading it once plus decoding.

5,000 pictures in a tar.gz become clips of a pool. The floor is one sequential read of the archive
by the standard library, plus the same stage over the same pictures as loose files; the peer is what
many loaders do, `tarfile` with an index, one `extractfile` per record in the records' own order.
CPU seconds, floor and ours interleaved, medians; both pools must hold the same clips.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from benchmarks.frame import Bar, at_most
from pipeline.stages import decode_media, list_media, pending, read_archive
from pipeline.stages.media_rows import MediaRow
from shards.errors import UserError
from shards.ids import clip_id, sha256_hex
from shards.index import CLIPS
from shards.pool import Pool
from shards.profile import Profile

MEMBERS = 5_000
RUNS = 3
RECORDS = 10  # drawn by the peer that opens the archive by record
PROFILE = Profile(fps=2, frame_cap=8, video_area=128 * 128, image_area=384 * 384)


def run(console: Console) -> list[Bar]:
    with tempfile.TemporaryDirectory() as home:
        root = Path(home)
        archive, loose = make(root)
        whole = archive.stat().st_size
        ours, floor, counted = [], [], 0
        for number in range(RUNS):
            theirs = root / f"floor{number}"
            read, _ = timed(lambda: read_through(archive))
            work, clips = timed(lambda out=theirs: decode_loose(loose, out))  # type: ignore[misc]
            floor.append(read + work)
            mine = root / f"ours{number}"
            spent, receipt = timed(lambda out=mine: stream_in(root, archive, out))  # type: ignore[misc]
            ours.append(spent)
            counted = receipt.counts["bytes_read"]
            if clip_rows(Pool(str(mine))) != clips or len(clips) != MEMBERS:
                raise UserError("the two sides decoded different clips")
        peer, _ = timed(lambda: by_record(archive))
    cost, least = statistics.median(ours), statistics.median(floor)
    console.print(f"{MEMBERS} members: {cost:.2f} s ours, {least:.2f} s one read plus decode")
    console.print(f"{RECORDS} members by name in random order: {peer:.2f} s of reading alone")
    return [
        at_most("CPU seconds, ours / one sequential read plus decode", cost / least, 1.3),
        at_most("bytes read / bytes of the archive", counted / whole, 1.05),
    ]


def make(root: Path) -> tuple[Path, Path]:
    """(a tar.gz of distinct JPEGs, the same as loose files)."""
    loose = root / "loose"
    loose.mkdir()
    archive = root / "pictures.tar.gz"
    rows = []
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for number in range(MEMBERS):
            name = f"{number:05d}.jpg"
            data = photograph(number)
            (loose / name).write_bytes(data)
            info = tarfile.TarInfo(f"pictures/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            rows.append(asked(name))
    (root / "a.json").write_text(json.dumps(rows))
    return archive, loose


def asked(name: str) -> dict[str, Any]:
    turns = [("human", "<image>\nWhat?"), ("gpt", "This.")]
    said = [{"from": who, "value": text} for who, text in turns]
    return {"id": name, "image": name, "conversations": said}


def photograph(number: int) -> bytes:
    """A JPEG of 384 x 288 with detail like a photograph's: smooth noise of several scales."""
    rng = np.random.Generator(np.random.Philox(key=number))
    pixels = np.zeros((288, 384, 3), np.float32)
    for size in (6, 24, 96):
        small = Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8))
        pixels += np.asarray(small.resize((384, 288), Image.Resampling.BILINEAR), np.float32) / 3
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "jpeg", quality=90)
    return out.getvalue()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def read_through(archive: Path) -> int:
    """Bytes of all members, read in the order in which they lie."""
    total = 0
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            total += len(file.read()) if file else 0
    return total


def decode_loose(loose: Path, out: Path) -> dict[str, int]:
    """The decode stage over loose files; hashed, as admission hashes them."""
    pool = Pool(str(out), PROFILE)
    rows = []
    for path in sorted(loose.iterdir()):
        digest = sha256_hex(path.read_bytes())
        name = clip_id(digest, "image", None, PROFILE.profile_id)
        address = f"file:{path}"
        rows.append(
            MediaRow(clip_id=name, media_digest=digest, kind="image", address=address, span=None)
        )
    for at in range(0, len(rows), pending.IMAGES_PER_PART):
        unit = tuple(rows[at : at + pending.IMAGES_PER_PART])
        decode_media.decode(decode_media.MediaUnit(pool=str(out), stage="decode", rows=unit))
    return clip_rows(pool)


def stream_in(root: Path, archive: Path, out: Path) -> Any:
    Pool(str(out), PROFILE)
    names = list_media.names(
        list_media.NamesUnit(
            pool=str(out), format="llava_json", annotations=(str(root / "a.json"),)
        )
    )
    return read_archive.stream(
        read_archive.ArchiveUnit(
            pool=str(out),
            stage="decode",
            parts=(str(archive),),
            under="",
            wanted=(names.outputs["index/wanted"][0],),
        )
    ).receipt


def clip_rows(pool: Pool) -> dict[str, int]:
    """clip id -> bytes of its frames."""
    table = pool.table(pool.receipts("decode"), "index/clips", CLIPS)
    sizes = (sum(each) for each in table["nbytes"].to_pylist())
    return dict(zip(table["clip_id"].to_pylist(), sizes, strict=True))


def by_record(archive: Path) -> None:
    """What a loader does that opens the archive for each record: gzip starts again each time."""
    names = [f"pictures/{number:05d}.jpg" for number in range(MEMBERS)]
    random.Random(0).shuffle(names)
    with tarfile.open(archive) as tar:
        for name in names[:RECORDS]:
            file = tar.extractfile(name)
            assert file is not None and file.read()
