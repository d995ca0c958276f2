"""Stock webdataset over tar shards: one JSON request in, one JSON answer out.

raw     every sample as it lies in the tar, shuffled; `check` digests what came
frames  every frame decoded by Pillow in DataLoader workers
resume  no state of its own: a DataLoader replays what was consumed
"""

import hashlib
import io
import json
import sys
import time

sys.path.pop(0)  # this file is named as the package it imports
import numpy
import webdataset


def opened(request, shuffle=1000):
    shards = webdataset.WebDataset(request["shards"], shardshuffle=False, empty_check=False)
    return shards.shuffle(shuffle) if shuffle else shards


def raw(request):
    started, first, samples, touched = time.perf_counter(), None, 0, 0
    cpu = time.process_time()
    digests = []
    for sample in opened(request, 1000 if request.get("shuffle", True) else 0):
        samples += 1
        touched += sum(memoryview(sample["mjpeg"])[::4096])  # a view costs nothing until it is read
        if samples == 16:
            first = time.perf_counter() - started
        if request.get("check"):
            parts = (sample["__key__"].encode(), sample["json"], sample["mjpeg"])
            digests.append(hashlib.sha256(b"".join(parts)).digest())
    cpu = time.process_time() - cpu
    digest = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return {
        "samples": samples,
        "digest": digest,
        "cpu_s": cpu,
        "first_s": first,
        "touched": touched,
    }


def frames_of(sample):
    from PIL import Image

    sizes = [n for clip in json.loads(sample["json"])["clips"] for n in clip["nbytes"]]
    found, at = [], 0
    for size in sizes:
        found.append(numpy.asarray(Image.open(io.BytesIO(sample["mjpeg"][at : at + size]))))
        at += size
    return found


def frames(request):
    from torch.utils.data import DataLoader

    shards = webdataset.WebDataset(
        request["shards"], shardshuffle=False, empty_check=False, workersplitter=split
    )
    loader = DataLoader(shards.map(frames_of), batch_size=None, num_workers=2)
    started, seen, pixels = time.perf_counter(), 0, 0
    for clip in loader:
        seen += len(clip)
        pixels += sum(frame.numel() for frame in clip)
    return {"frames": seen, "pixels": pixels, "wall_s": time.perf_counter() - started}


def split(source):
    """Every worker reads all shards and keeps its own samples' shards: few shards, two workers."""
    import torch

    worker = torch.utils.data.get_worker_info()
    shards = list(source)
    yield from shards if worker is None else shards[worker.id :: worker.num_workers]


def resume(request):
    """Seconds to the first batch of 16 after `skip` samples; replay is the only way there is."""
    started = time.perf_counter()
    samples = iter(opened(request))
    for _ in range(request["skip"] + 16):
        next(samples)
    return {"first_s": time.perf_counter() - started, "state_bytes": 0}


request = json.load(sys.stdin)
answer = {"raw": raw, "frames": frames, "resume": resume}[request["task"]](request)
sys.stdout.write(json.dumps(answer) + "\n")
