"""litData over its chunks: one JSON request in, one JSON answer out.

prepare  tar shards -> chunks in `home`;  raw  every sample, shuffled;  resume  state, topology
"""

import hashlib
import json
import sys
import tarfile
import time

sys.path.pop(0)  # this file is named as the package it imports
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.cache import Cache


def prepare(request):
    cache, number = Cache(request["home"], chunk_bytes="64MB"), 0
    for shard in request["shards"]:
        with tarfile.open(shard) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar]
        for (name, told), (_, frames) in zip(members[::2], members[1::2], strict=True):
            cache[number] = {"key": name.removesuffix(".json"), "json": told, "mjpeg": frames}
            number += 1
    cache.done()
    cache.merge()
    return {}


def raw(request):
    started, first, samples, touched = time.perf_counter(), None, 0, 0
    dataset = StreamingDataset(request["home"], shuffle=True)
    cpu, digests = time.process_time(), []
    for sample in dataset:
        samples += 1
        touched += sum(memoryview(sample["mjpeg"])[::4096])  # a view costs nothing until it is read
        if samples == 16:
            first = time.perf_counter() - started
        if request.get("check"):
            parts = (sample["key"].encode(), sample["json"], sample["mjpeg"])
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


def collate(batch):
    """What crosses from a worker must be bytes: views of its mapping cannot."""
    return [{"key": one["key"], "mjpeg": bytes(one["mjpeg"])} for one in batch]


def resume(request):
    """Consume `skip` samples and save; load in a new loader: `keys` of the next 8 batches."""

    def loader(workers):
        dataset = StreamingDataset(request["home"], shuffle=True)
        return StreamingDataLoader(
            dataset, batch_size=16, num_workers=workers, collate_fn=collate, drop_last=True
        )

    first = loader(request["workers"])
    batches = iter(first)
    for _ in range(max(1, request["skip"] // 16)):
        next(batches)
    state = first.state_dict()
    del batches, first
    second = loader(request["workers_after"])
    started = time.perf_counter()
    second.load_state_dict(state)
    batches = iter(second)
    batch = next(batches)
    seconds = time.perf_counter() - started
    keys = [[one["key"] for one in b] for b in (batch, *(next(batches) for _ in range(7)))]
    return {
        "first_s": seconds,
        "state_bytes": len(json.dumps(state, default=str)),
        "digest": hashlib.sha256(json.dumps(keys).encode()).hexdigest(),
    }


if __name__ == "__main__":
    request = json.load(sys.stdin)
    answer = {"prepare": prepare, "raw": raw, "resume": resume}[request["task"]](request)
    sys.stdout.write(json.dumps(answer) + "\n")
