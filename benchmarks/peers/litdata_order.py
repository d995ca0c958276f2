"""litData's draw of a mixture: one JSON request in, one JSON line out.

mixture  the source of each sample of `CombinedStreamingDataset`, until one source is exhausted
"""

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

from litdata import CombinedStreamingDataset, StreamingDataset
from litdata.streaming.cache import Cache


def mixture(request, folder):
    datasets = []
    for i, count in enumerate(request["kept"]):
        home = Path(folder) / str(i)
        home.mkdir()
        cache = Cache(str(home), chunk_bytes="64MB")
        for n in range(count):
            cache[n] = i
        cache.done()
        cache.merge()
        datasets.append(StreamingDataset(str(home), shuffle=True))
    weights = [a / b for a, b in request["weights"]]
    mixed = CombinedStreamingDataset(datasets, weights=weights, iterate_over_all=False)
    return {"source": list(islice(mixed, request["positions"]))}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps(mixture(request, folder)) + "\n")
