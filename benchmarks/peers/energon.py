"""Megatron-Energon over the same tar shards: one JSON request in, one JSON answer out.

prepare  links the shards into `home` and indexes them;  raw  every sample, shuffled;
resume  state, topology
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path

sys.path.pop(0)  # beside this file lies one named as a package
import torch
from megatron.energon import (
    BaseWebdatasetFactory,
    DefaultTaskEncoder,
    WorkerConfig,
    get_savable_loader,
    get_train_dataset,
    stateless,
)
from megatron.energon.task_encoder.cooking import Cooker

YAML = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"


@stateless
def cook(sample):
    return dict(sample)


class Raw(DefaultTaskEncoder):
    """Samples as they lie in the tar."""

    cookers = (Cooker(cook),)
    decoder = None

    def __init__(self):
        super().__init__(raw_batch_type=dict)

    def batch(self, samples):
        return samples

    def encode_batch(self, batch):
        return batch


def prepare(request):
    home = Path(request["home"])
    home.mkdir(parents=True, exist_ok=True)
    names = []
    for shard in request["shards"]:
        names.append(Path(shard).name)
        (home / names[-1]).unlink(missing_ok=True)
        os.link(Path(shard).resolve(), home / names[-1])
    BaseWebdatasetFactory.prepare_dataset(
        home, names, split_parts_ratio=[("train", 1.0)], workers=1
    )
    (home / ".nv-meta/dataset.yaml").write_text(YAML)
    return {}


def opened(request, workers, repeat):
    return get_train_dataset(
        request["home"],
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        batch_size=None if not repeat else 16,
        shuffle_buffer_size=1000,
        max_samples_per_sequence=100,
        task_encoder=Raw(),
        repeat=repeat,
    )


def raw(request):
    started, first, samples, touched = time.perf_counter(), None, 0, 0
    loader = get_savable_loader(opened(request, 0, repeat=False))
    cpu, digests = time.process_time(), []
    for sample in loader:
        samples += 1
        touched += sum(memoryview(sample["mjpeg"])[::4096])  # a view costs nothing until it is read
        if samples == 16:
            first = time.perf_counter() - started
        if request.get("check"):
            key = sample["__key__"].rpartition("/")[2].encode()
            digests.append(hashlib.sha256(key + sample["json"] + sample["mjpeg"]).digest())
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
    """Consume `skip` samples and save; restore in a new loader: `keys` of the next 8 batches."""
    first = get_savable_loader(opened(request, request["workers"], repeat=True))
    batches = iter(first)
    for _ in range(max(1, request["skip"] // 16)):
        next(batches)
    state = first.save_state_rank()
    size = Path(request["home"]) / "state.pt"
    torch.save(state, size)
    del batches, first
    second = get_savable_loader(opened(request, request["workers_after"], repeat=True))
    started = time.perf_counter()
    second.restore_state_rank(state)
    batches = iter(second)
    batch = next(batches)
    seconds = time.perf_counter() - started
    keys = [[one["__key__"] for one in b] for b in (batch, *(next(batches) for _ in range(7)))]
    return {
        "first_s": seconds,
        "state_bytes": size.stat().st_size,
        "digest": hashlib.sha256(json.dumps(keys).encode()).hexdigest(),
    }


if __name__ == "__main__":
    request = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # it tells of its progress there
        answer = {"prepare": prepare, "raw": raw, "resume": resume}[request["task"]](request)
    sys.stdout.write(json.dumps(answer) + "\n")
