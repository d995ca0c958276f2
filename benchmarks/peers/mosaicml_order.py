"""MosaicML Streaming's order, from its own arithmetic: one JSON request in, JSON lines out.

order    the digest of the global batches for each world size and number of workers
mixture  the source of each sample of an epoch drawn by weights
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torchvision_operators  # noqa: F401  before `streaming` imports torchvision
from streaming import MDSWriter, Stream, StreamingDataset
from streaming.base.batching import generate_work
from streaming.base.util import clean_stale_shared_memory
from streaming.base.world import World


def opened(folder, kept, weights, epoch_size, batch_size):
    """One stream of integers per source, mixed by proportion."""
    streams = []
    for i, (count, weight) in enumerate(zip(kept, weights, strict=True)):
        home = Path(folder) / str(i)
        with MDSWriter(out=str(home), columns={"n": "int"}) as out:
            for n in range(count):
                out.write({"n": n})
        streams.append(Stream(local=str(home), proportion=weight))
    clean_stale_shared_memory()
    return StreamingDataset(
        streams=streams,
        shuffle=True,
        shuffle_seed=1,
        batch_size=batch_size,
        num_canonical_nodes=1,
        shuffle_block_size=4_000_000,  # the default for one canonical node
        epoch_size=epoch_size,
    )


def order(request, folder):
    size, sources = request["global_batch"], request["sources"]
    kept = [request["samples"] // sources] * sources
    epoch = size * (request["steps"] + 50)
    dataset = opened(folder, kept, range(1, sources + 1), epoch, size)
    for world_size in request["world_sizes"]:
        for workers in request["workers"]:
            each = max(workers, 1)
            dataset.batch_size = size // world_size
            work = generate_work("random", dataset, World(1, world_size, each, 0), 0, 0)[0]
            digest = hashlib.sha256()
            for step in range(request["steps"]):
                ids = np.sort(work[:, step % each, step // each].reshape(-1))
                digest.update(ids.astype("<i8").tobytes())
            yield {"world_size": world_size, "workers": workers, "digest": digest.hexdigest()}


def mixture(request, folder):
    weights = [a / b for a, b in request["weights"]]
    dataset = opened(folder, request["kept"], weights, request["positions"], 48)
    ids = generate_work("random", dataset, World(1, 1, 1, 0), 0, 0)[0, 0, 0].reshape(-1)
    firsts = np.cumsum([0, *request["kept"]])[:-1]
    source = np.searchsorted(firsts, ids[ids >= 0], side="right") - 1
    yield {"source": source.tolist()}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        for answer in {"order": order, "mixture": mixture}[request["do"]](request, folder):
            sys.stdout.write(json.dumps(answer) + "\n")
