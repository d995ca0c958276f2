"""Megatron-Energon's order, from its own loaders: one JSON request in, JSON lines out.

order  the digest of the global batches for each world size and number of workers
"""

import contextlib
import io
import json
import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path

from counting import ordered
from energon_read import YAML, Raw
from megatron.energon import (
    BaseWebdatasetFactory,
    WorkerConfig,
    get_savable_loader,
    get_train_dataset,
)

BLEND = "__module__: megatron.energon\n__class__: MetadatasetV2\nsplits: {train: {blend: %s}}\n"


def make(folder, samples, sources):
    """A blend of sources of numbers, their weights 1, 2, ...; its file."""
    blend = []
    for source in range(sources):
        home = folder / str(source)
        home.mkdir()
        with tarfile.open(home / "a.tar", "w") as tar:
            for number in range(samples // sources):
                member = tarfile.TarInfo(f"{source}-{number:06d}.json")
                member.size = 2
                tar.addfile(member, io.BytesIO(b"{}"))
        BaseWebdatasetFactory.prepare_dataset(
            home, ["a.tar"], split_parts_ratio=[("train", 1.0)], workers=1
        )
        (home / ".nv-meta/dataset.yaml").write_text(YAML)
        blend.append({"path": f"./{source}", "weight": source + 1})
    path = folder / "blend.yaml"
    path.write_text(BLEND % json.dumps(blend))
    return path


def batches(path, rank, world_size, workers, size, steps):
    """The keys of a rank's batches."""
    loader = get_savable_loader(
        get_train_dataset(
            path,
            worker_config=WorkerConfig(rank=rank, world_size=world_size, num_workers=workers),
            batch_size=size,
            shuffle_buffer_size=100,
            max_samples_per_sequence=100,
            task_encoder=Raw(),
        )
    )
    found = iter(loader)
    return [[sample["__key__"] for sample in next(found)] for _ in range(steps)]


def order(request, folder):
    path = make(folder, request["samples"], request["sources"])
    yield from ordered(request, partial(batches, path))


if __name__ == "__main__":
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(sys.stderr):  # it tells of its progress there
            answers = list(order(request, Path(folder)))
    sys.stdout.write("".join(json.dumps(answer) + "\n" for answer in answers))
