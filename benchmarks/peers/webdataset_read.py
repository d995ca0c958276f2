"""Stock webdataset over tar shards: one JSON request in, one JSON answer out.

raw     every sample as it lies in the tar, shuffled; `check` digests what came
frames  every frame decoded by Pillow in DataLoader workers
resume  no state of its own: a DataLoader replays what was consumed
"""

import io
import json
import sys
import time

import numpy
import torch
import webdataset
from counting import count
from PIL import Image
from torch.utils.data import DataLoader


def opened(request):
    shards = webdataset.WebDataset(request["shards"], shardshuffle=False, empty_check=False)
    return shards.shuffle(1000)


def raw(request):
    return count(request, lambda: opened(request), lambda sample: sample["__key__"])


def frames_of(sample):
    sizes = [n for clip in json.loads(sample["json"])["clips"] for n in clip["nbytes"]]
    found, at = [], 0
    for size in sizes:
        found.append(numpy.asarray(Image.open(io.BytesIO(sample["mjpeg"][at : at + size]))))
        at += size
    return found


def frames(request):
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
