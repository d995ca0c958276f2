"""litData's order and its draw of a mixture: one JSON request in, JSON lines out.

order    the digest of the global batches for each world size and number of workers
mixture  the source of each sample of `CombinedStreamingDataset`, until one source is exhausted
"""

import json
import os
import sys
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path

from counting import ordered
from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from litdata.streaming.cache import Cache


def make(folder, kept):
    """One dataset of numbers per source: number * sources + source; their folders."""
    homes = [Path(folder) / str(source) for source in range(len(kept))]
    for source, (home, count) in enumerate(zip(homes, kept, strict=True)):
        home.mkdir()
        cache = Cache(str(home), chunk_bytes="64MB")
        for n in range(count):
            cache[n] = n * len(kept) + source
        cache.done()
        cache.merge()
    return homes


def opened(homes, weights):
    datasets = [StreamingDataset(str(home), shuffle=True) for home in homes]
    return CombinedStreamingDataset(datasets, weights=weights, iterate_over_all=False)


def batches(homes, rank, world_size, workers, size, steps):
    """The samples of a rank's batches; the environment tells it its rank, as under a launcher."""
    os.environ |= {"WORLD_SIZE": str(world_size), "GLOBAL_RANK": str(rank)}
    mixed = opened(homes, list(range(1, len(homes) + 1)))
    loader = StreamingDataLoader(mixed, batch_size=size, num_workers=workers)
    return [batch.tolist() for batch in islice(loader, steps)]


def order(request, folder):
    homes = make(folder, [request["samples"] // request["sources"]] * request["sources"])
    yield from ordered(request, partial(batches, homes))


def mixture(request, folder):
    mixed = opened(make(folder, request["kept"]), [a / b for a, b in request["weights"]])
    sources = len(request["kept"])
    yield {"source": [number % sources for number in islice(mixed, request["positions"])]}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        for answer in {"order": order, "mixture": mixture}[request["do"]](request, folder):
            sys.stdout.write(json.dumps(answer) + "\n")
