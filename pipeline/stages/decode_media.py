"""Some media -> clips in one part of the pool, their index and fingerprints, refusals.

The receipt's stage is `decode`, or `held_out` for evaluation data, which leave fingerprints only.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.dedup.fingerprints import Fingerprint, fingerprint
from pipeline.details import sentence
from pipeline.media.decode import check_tools
from pipeline.media.decoded import Decoded, MediaRefusal
from pipeline.media.frame_difference import differences
from pipeline.media.image_sequences import decode_all
from pipeline.stages.media_rows import MediaRow
from pipeline.stages.open_media import open_address
from shards.extents import tar_bytes
from shards.ids import sha256_hex
from shards.index import CLIPS, FINGERPRINTS, REFUSED, table_of
from shards.outcome import DEATHS, Refused
from shards.pool import Pool, Receipt
from shards.receipts import Work
from shards.sample import Clip, clip_members

DECODE_VERSION = "4"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaUnit:
    """Media to decode in one go: rows of the media index. Held-out media leave no frames behind.

    `scratch` holds the members of an archive that is being streamed; `no_sandbox` allows workers
    where the media sandbox does not hold; `attempt` counts from 0 how often these were tried.
    """

    pool: str
    stage: str
    rows: tuple[MediaRow, ...]
    scratch: Path | None = None
    no_sandbox: bool = False
    attempt: int = 0


def decode(unit: MediaUnit) -> Receipt:
    """Open each medium at the one door; one part, one index table, one table of fingerprints."""
    check_tools(no_sandbox=unit.no_sandbox)  # a worker's machine is not the driver's
    pool = Pool(unit.pool)
    if done := pool.done(_work(pool, unit)):
        return done
    began = time.perf_counter()
    clips = []
    fingerprints = []
    refused = []
    # members of archives and embedded media become files for as long as they are decoded
    with ExitStack() as stack:
        items = [
            (
                stack.enter_context(open_address(row.address, unit.scratch)),
                row.kind,
                row.span,
            )
            for row in unit.rows
        ]
        # one call: images of a unit share a sandboxed child, small videos an ffmpeg process
        outcomes = decode_all(items, pool.profile)
    for row, decoded in zip(unit.rows, outcomes, strict=True):
        if isinstance(decoded, MediaRefusal):
            refused.append(_media_refusal(row, decoded.code, decoded.detail))
        else:
            clips.append((row, decoded))
            fingerprints.append(fingerprint(row.clip_id, decoded))
    # what dry runs count on (pipeline.jobs.dry_run): nothing is decided by it
    took = {
        "images": sum(row.kind == "image" for row in unit.rows),
        "milliseconds": round(1000 * (time.perf_counter() - began)),
    }
    return _commit_decoded(pool, unit, clips, fingerprints, refused, took)


def refuse_media(unit: MediaUnit, code: str, detail: str) -> Receipt:
    """Write down that these media are refused without opening them (they kill their worker)."""
    refused = [_media_refusal(row, code, detail) for row in unit.rows]
    return _commit_decoded(Pool(unit.pool), unit, [], [], refused, {})


def decode_apart(unit: MediaUnit) -> Receipt:
    """Decode in a process of its own; what kills DEATHS of them is refused for good."""
    # spawn: a forked child would inherit threads and locks of this one
    for _ in range(DEATHS):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            with suppress(BrokenProcessPool):
                return apart.submit(decode, unit).result()
    return refuse_media(unit, "MEDIA_KILLED_WORKER", unit.rows[0].address)


def _commit_decoded(
    pool: Pool,
    unit: MediaUnit,
    decoded_clips: Sequence[tuple[MediaRow, Decoded]],
    fingerprints: list[Fingerprint],
    refusals: list[Refused],
    took: Mapping[str, int],
) -> Receipt:
    tables = {
        "index/fingerprints": table_of(FINGERPRINTS, fingerprints),
        "refused": table_of(REFUSED, (asdict(refusal) for refusal in refusals)),
    }
    parts = {}
    # held-out media leave no frames behind, so that nobody can train on them
    if unit.stage == "decode":
        data, index = _part(decoded_clips)
        tables["index/clips"] = index
        parts["clips"] = data
    return pool.commit(
        _work(pool, unit),
        tables,
        parts,
        counts={
            "media": len(unit.rows),
            "refused": len(refusals),
            "nbytes": sum(map(len, parts.values())),
            **took,
        },
        tools=check_tools(no_sandbox=unit.no_sandbox),
    )


def _work(pool: Pool, unit: MediaUnit) -> Work:
    clips = [row.clip_id for row in unit.rows]
    # the inputs are the clip ids: whatever unit a clip was decoded in, its receipt names it
    parameters: dict[str, str | int] = {"profile": pool.profile.profile_id}
    # another attempt is other work: the receipt of the last one counts
    parameters |= {"attempt": unit.attempt} if unit.attempt else {}
    return Work(unit.stage, DECODE_VERSION, parameters, clips)


def _part(decoded_clips: Sequence[tuple[MediaRow, Decoded]]) -> tuple[bytes, pa.Table]:
    """The tar of these clips and their rows of the clip index."""
    rows = [_clip_row(row, decoded) for row, decoded in decoded_clips]
    groups = []
    for values, (_, decoded) in zip(rows, decoded_clips, strict=True):
        clip = Clip(**{name: values[name] for name in Clip.__slots__})
        groups.append(clip_members(clip, json.dumps(values).encode(), decoded.frames))
    data, extents = tar_bytes(groups)
    # a part is named by its bytes: two workers that make the same one write the same file
    part = f"{sha256_hex(data)}.tar"
    places = [{"part": part, **asdict(extent)} for extent in extents]
    return data, table_of(CLIPS, (a | b for a, b in zip(rows, places, strict=True)))


def _clip_row(row: MediaRow, decoded: Decoded) -> dict[str, Any]:
    values = {name: getattr(decoded, name) for name in decoded.__slots__ if name != "frames"}
    return values | {
        "clip_id": row.clip_id,
        "media_digest": row.media_digest,
        "nbytes": tuple(len(frame) for frame in decoded.frames),
        "differences": differences(decoded.frames),
    }


def _media_refusal(row: MediaRow, code: str, detail: str) -> Refused:
    return Refused(
        source="",
        record="",
        key=row.clip_id,
        stage="decode",
        code=code,
        detail=sentence(detail),
        origin=row.address,
    )
