"""What every side of the loader's benchmarks counts, in the same way; standard library only.

Peers run as scripts beside this file, each with the packages of its own environment.
"""

import hashlib
import json
import time
from itertools import chain

MOST = 1 << 20
"""Bytes of frames that a sample has at most."""


def count(request, open_samples, name):
    """Open and read every sample: how many, their digest, CPU seconds, seconds to the sixteenth.

    `open_samples()` gives mappings that hold the bytes `json` and `mjpeg`; `name(sample)` is the
    sample's name, asked for only where the request wants a digest (`check`).
    """
    started, first, samples, read = time.perf_counter(), None, 0, 0
    opened, taken = open_samples(), memoryview(bytearray(MOST))
    cpu, digests = time.process_time(), []
    for sample in opened:
        samples += 1
        size = len(sample["mjpeg"])  # read as a decoder reads it: views of a mapping cost nothing
        taken[:size] = sample["mjpeg"]
        read += size
        if samples == 16:
            first = time.perf_counter() - started
        if request.get("check"):
            parts = (name(sample).encode(), sample["json"], sample["mjpeg"])
            digests.append(hashlib.sha256(b"".join(parts)).digest())
    return {
        "cpu_s": time.process_time() - cpu,
        "samples": samples,
        "digest": hashlib.sha256(b"".join(sorted(digests))).hexdigest(),
        "first_s": first,
        "bytes": read,
    }


def as_json(state):
    return len(json.dumps(state, default=str))


def resumed(request, open_loader, keys, save="state_dict", load="load_state_dict", size=as_json):
    """Save after `skip` samples, load in a new loader: its first batch, the next 8 batches' keys.

    `open_loader(workers)` gives a loader of batches of 16 whose state the methods `save` and `load`
    carry and that takes `size(state)` bytes; `keys(batch)` are the names of a batch's samples.
    """
    first = open_loader(request["workers"])
    batches = iter(first)
    for _ in range(max(1, request["skip"] // 16)):
        next(batches)
    state = getattr(first, save)()
    del batches, first
    second = open_loader(request["workers_after"])
    started = time.perf_counter()
    getattr(second, load)(state)
    batches = iter(second)
    batch = next(batches)
    seconds = time.perf_counter() - started
    told = json.dumps([keys(one) for one in (batch, *(next(batches) for _ in range(7)))])
    return {
        "first_s": seconds,
        "state_bytes": size(state),
        "digest": hashlib.sha256(told.encode()).hexdigest(),
    }


def ordered(request, batches):
    """The digest of the samples of each global batch, for each world size and number of workers.

    `batches(rank, world_size, workers, size, steps)` are the samples of a rank's batches.
    """
    for world_size in request["world_sizes"]:
        for workers in request["workers"]:
            size, wanted = request["global_batch"] // world_size, request["steps"]
            ranks = [batches(r, world_size, workers, size, wanted) for r in range(world_size)]
            steps = [sorted(chain(*step)) for step in zip(*ranks, strict=True)]
            if len(steps) != wanted:
                raise RuntimeError(f"{len(steps)} steps of {wanted}")
            digest = hashlib.sha256(json.dumps(steps).encode()).hexdigest()
            yield {"world_size": world_size, "workers": workers, "digest": digest}
