"""MosaicML Streaming over MDS: one JSON request in, one JSON answer out.

prepare  tar shards -> MDS in `home`;  raw  every sample, shuffled;  resume  state, topology
"""

import hashlib
import json
import sys
import time

sys.path.pop(0)  # beside this file lies one named as a package
import torch

OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):  # the CPU build of torch has no torchvision operators to register
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402


def prepare(request):
    import tarfile

    columns = {"key": "str", "json": "bytes", "mjpeg": "bytes"}
    with MDSWriter(out=request["home"], columns=columns) as out:
        for shard in request["shards"]:
            with tarfile.open(shard) as tar:
                members = [(m.name, tar.extractfile(m).read()) for m in tar]
            for (name, told), (_, frames) in zip(members[::2], members[1::2], strict=True):
                out.write({"key": name.removesuffix(".json"), "json": told, "mjpeg": frames})
    return {}


def opened(request, **more):
    clean_stale_shared_memory()
    return StreamingDataset(
        local=request["home"], shuffle=True, batch_size=16, shuffle_seed=1, **more
    )


def raw(request):
    started, first, samples, touched = time.perf_counter(), None, 0, 0
    dataset = opened(request)
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


def resume(request):
    """Save after `skip` samples, load in a new loader; `keys` of the next 8 batches."""

    def loader(workers):
        dataset = opened(request, num_canonical_nodes=1)
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
    keys = [batch["key"], *(next(batches)["key"] for _ in range(7))]
    return {
        "first_s": seconds,
        "state_bytes": len(json.dumps(state, default=str)),
        "digest": hashlib.sha256(json.dumps(keys).encode()).hexdigest(),
    }


def collate(batch):
    return {name: [sample[name] for sample in batch] for name in batch[0]}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    answer = {"prepare": prepare, "raw": raw, "resume": resume}[request["task"]](request)
    sys.stdout.write(json.dumps(answer) + "\n")
