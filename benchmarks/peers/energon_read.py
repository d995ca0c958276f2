"""Megatron-Energon over the same tar shards: one JSON request in, one JSON answer out.

prepare  links the shards into `home` and indexes them;  raw  every sample, shuffled;
resume  state, topology
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import torch
from counting import count, resumed
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
    return count(
        request,
        lambda: get_savable_loader(opened(request, 0, repeat=False)),
        lambda sample: sample["__key__"].rpartition("/")[2],
    )


def resume(request):
    return resumed(
        request,
        lambda workers: get_savable_loader(opened(request, workers, repeat=True)),
        lambda batch: [sample["__key__"] for sample in batch],
        "save_state_rank",
        "restore_state_rank",
        stored_bytes,
    )


def stored_bytes(state):
    stored = io.BytesIO()
    torch.save(state, stored)
    return stored.tell()


if __name__ == "__main__":
    request = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # it tells of its progress there
        answer = {"prepare": prepare, "raw": raw, "resume": resume}[request["task"]](request)
    sys.stdout.write(json.dumps(answer) + "\n")
