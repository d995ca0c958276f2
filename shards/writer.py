"""Samples and clips -> the bytes of one tar. The same input gives the same bytes, always."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shards.ids import KEY_PATTERN
from shards.sample import Clip, Sample, sample_to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The bytes of one group of adjacent members: headers, payloads and padding."""

    offset: int
    extent: int
    crc32: int


def tar_bytes(groups: Iterable[Sequence[tuple[str, bytes]]]) -> tuple[bytes, list[Extent]]:
    """A USTAR archive of the groups' members in order, and the extent of each group.

    Times, owners and modes are fixed, so bytes depend on names and payloads only.
    """
    buffer = io.BytesIO()
    extents = []
    # USTAR: no extended headers, whose times and ids would differ from run to run
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for group in groups:
            start = buffer.tell()
            for name, payload in group:
                tar.addfile(_member(name, len(payload)), io.BytesIO(payload))
            extents.append((start, buffer.tell()))
    # crc32 over headers, payloads and padding: all that a reader fetches
    data = buffer.getvalue()
    return data, [
        Extent(offset=start, extent=end - start, crc32=zlib.crc32(data[start:end]))
        for start, end in extents
    ]


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = 0
    info.mode = 0o644
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def sample_members(
    position: int, epoch: int, sample: Sample, frames: Iterable[Sequence[bytes | memoryview]]
) -> list[tuple[str, bytes]]:
    """The two members of a sample in a shard: `<position>_<key>.json` and `.mjpeg`."""
    if not KEY_PATTERN.fullmatch(sample.key):
        # names sort as positions do, and stock webdataset groups by the stem
        raise AssertionError(f"not a sample key: {sample.key!r}")
    stem = f"{position:012d}_{sample.key}"
    payload = b"".join(b"".join(clip) for clip in frames)
    return [(f"{stem}.json", sample_to_json(sample, epoch)), (f"{stem}.mjpeg", payload)]


def clip_members(
    clip: Clip, description: bytes, frames: Sequence[bytes]
) -> list[tuple[str, bytes]]:
    """The two members of a clip in a part of the pool."""
    return [(f"{clip.clip_id}.json", description), (f"{clip.clip_id}.mjpeg", b"".join(frames))]
