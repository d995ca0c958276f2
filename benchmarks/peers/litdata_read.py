"""litData over its chunks: one JSON request in, one JSON answer out.

prepare  tar shards -> chunks in `home`;  raw  every sample, shuffled;  resume  state, topology
"""

import json
import sys
import tarfile

from counting import count, resumed
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
    return count(
        request,
        lambda: StreamingDataset(request["home"], shuffle=True),
        lambda sample: sample["key"],
    )


def collate(batch):
    """What crosses from a worker must be bytes: views of its mapping cannot."""
    return [{"key": one["key"], "mjpeg": bytes(one["mjpeg"])} for one in batch]


def resume(request):
    def loader(workers):
        dataset = StreamingDataset(request["home"], shuffle=True)
        return StreamingDataLoader(
            dataset, batch_size=16, num_workers=workers, collate_fn=collate, drop_last=True
        )

    return resumed(request, loader, lambda batch: [sample["key"] for sample in batch])


if __name__ == "__main__":
    request = json.load(sys.stdin)
    answer = {"prepare": prepare, "raw": raw, "resume": resume}[request["task"]](request)
    sys.stdout.write(json.dumps(answer) + "\n")
