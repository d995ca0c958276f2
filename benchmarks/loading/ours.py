"""Our side of the loader's benchmarks: one JSON request in, one JSON answer out, as the peers do.

raw     every sample's members by index, crc32 checked, in the manifest's order
bare    every frame decoded by simplejpeg alone, its bytes in memory beforehand
frames  every frame read and decoded, as on its way into a pack;  packs  whole packs of `Stream`
resume  a stream opened at `step`, its first pack, and the keys of the steps that follow
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.peers.counting import count
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.tokens.frame_view import view_clip
from shards.reader import ShardReader, Stored
from shards.store import Store
from train.config import Config
from train.data.jpeg_patches import decoded
from train.data.node_cache import Node
from train.data.pack_stream import Stream

THREADS, BATCH = 2, 1024
Answer = dict[str, Any]


def raw(request: Answer) -> Answer:
    def opened() -> Iterator[dict[str, Any]]:
        manifest = load_manifest(request["manifest"])
        return _members(manifest, ShardReader(Store(request["shards"])))

    return count(request, opened, lambda one: f"{one['position']:012d}_{one['key']}")


def _members(manifest: Manifest, reader: ShardReader) -> Iterator[dict[str, Any]]:
    """Every sample in the manifest's order; shards hold one source."""
    draws, (source,) = Draws(manifest), manifest.names
    for start in range(0, manifest.length, BATCH):
        stop = min(start + BATCH, manifest.length)
        found = draws.keys(start, stop).hex()
        keys = [found[at : at + 32] for at in range(0, len(found), 32)]
        members = reader.members([source] * len(keys), keys)
        for position, key, (told, frames) in zip(range(start, stop), keys, members, strict=True):
            yield {"position": position, "key": key, "json": told, "mjpeg": frames}


def _drawn(request: Answer) -> tuple[Manifest, list[Any]]:
    manifest = load_manifest(request["manifest"])
    return manifest, Draws(manifest).samples(0, request["samples"])


def bare(request: Answer) -> Answer:
    """The ceiling: JPEGs in memory, nothing but the decoder, on all cores."""
    _, drawn = _drawn(request)
    reader = ShardReader(Store(request["shards"]))
    stored = [reader.read(one.source, one.key) for one in drawn]
    jpegs = [bytes(frame) for one in stored for clip in one.frames for frame in clip]
    with ThreadPoolExecutor(THREADS) as threads:
        started, cpu = time.perf_counter(), time.process_time()
        sizes = list(threads.map(_decode_all, (jpegs[at::THREADS] for at in range(THREADS))))
    return _spent(started, cpu) | {"frames": len(jpegs), "pixels": sum(sizes)}


def _decode_all(jpegs: list[bytes]) -> int:
    return sum(simplejpeg.decode_jpeg(jpeg).size for jpeg in jpegs)


def frames(request: Answer) -> Answer:
    manifest, drawn = _drawn(request)
    reader = ShardReader(Store(request["shards"]))

    def opened(one: Any) -> tuple[int, int]:
        found: Stored = reader.read(one.source, one.key)
        clips = found.sample.clips
        looks = [view_clip(clip, manifest.view, manifest.layout) for clip in clips]
        frames = pixels = 0
        for clip, jpegs, look in zip(clips, found.frames, looks, strict=True):
            for shown in decoded(jpegs, look, range(len(look.frames)), clip):
                frames, pixels = frames + 1, pixels + shown.size
        return frames, pixels

    with ThreadPoolExecutor(THREADS) as threads:
        started, cpu = time.perf_counter(), time.process_time()
        counts = np.array(list(threads.map(opened, drawn)))
    return _spent(started, cpu) | {
        "frames": int(counts[:, 0].sum()),
        "pixels": int(counts[:, 1].sum()),
    }


def packs(request: Answer) -> Answer:
    opened = time.perf_counter()
    manifest = load_manifest(request["manifest"])
    cache = Config().cache_mib << 20
    stream = Stream(manifest, request["shards"], workers=THREADS, cache_bytes=cache)
    seen = pixels = samples = 0
    started, cpu = time.perf_counter(), time.process_time()
    for pack in stream:
        first = seen == 0
        seen, pixels = seen + len(pack.grids), pixels + pack.patches.size
        samples += len(pack.keys)
        if first:
            first_s = time.perf_counter() - opened
        if samples >= request["samples"]:
            break
    spent = _spent(started, cpu)
    return spent | {"frames": seen, "pixels": pixels, "first_s": first_s, "samples": samples}


def _spent(started: float, cpu: float) -> Answer:
    return {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def resume(request: Answer) -> Answer:
    """Seconds from nothing to the first pack of `step`; the keys of the next `steps`, all ranks."""
    started, cpu = time.perf_counter(), time.process_time()
    steps: dict[int, list[list[str]]] = {}
    for rank in range(request["world_size"]):
        stream = Stream(
            load_manifest(request["manifest"]),
            request["shards"],
            rank,
            request["world_size"],
            workers=request["workers"],
            global_batch=request["global_batch"],
        )
        stream.load(stream.state() | {"step": request["step"]})
        for step, made in enumerate(islice(stream.steps(), request["steps"])):
            if rank == step == 0:
                first = time.perf_counter() - started
                first_cpu = time.process_time() - cpu
            steps.setdefault(step, []).extend(key for pack in made for key in pack.keys)
    kept = [sorted(keys) for keys in steps.values()]
    return {
        "first_s": first,
        "first_cpu_s": first_cpu,
        "state_bytes": len(json.dumps(stream.state()).encode()),
        "digest": hashlib.sha256(json.dumps(kept).encode()).hexdigest(),
        "samples": sum(map(len, kept)),
    }


def remote(request: Answer) -> Answer:
    """One rank of a node that reads through its cache; a step takes step_bytes / rate seconds."""
    node = Node(
        folder=Path(request["folder"]), limit=request["limit"], ranks=range(*request["ranks"])
    )
    stream = Stream(
        load_manifest(request["manifest"]),
        request["address"],
        request["rank"],
        request["world_size"],
        workers=THREADS,
        global_batch=request["global_batch"],
        node=node,
    )
    waits, keys, opened = [], [], time.perf_counter()
    for packs in stream.steps():
        waits.append(time.perf_counter() - opened)
        keys += [key for pack in packs for key in pack.keys]
        time.sleep(request["step_bytes"][len(waits) - 1] / request["rate"])
        opened = time.perf_counter()
    return {"waits": waits, "keys": keys, "replaced": stream.replaced}


TASKS = {
    "raw": raw,
    "bare": bare,
    "frames": frames,
    "packs": packs,
    "resume": resume,
    "remote": remote,
}

if __name__ == "__main__":
    request = json.load(sys.stdin)
    sys.stdout.write(json.dumps(TASKS[request["task"]](request)) + "\n")
