"""MosaicML Streaming over MDS: one JSON request in, one JSON answer out.

prepare  tar shards -> MDS in `home`;  raw  every sample, shuffled;  resume  state, topology
"""

import json
import sys
import tarfile

import torchvision_operators  # noqa: F401  before `streaming` imports torchvision
from counting import count, resumed
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.util import clean_stale_shared_memory


def prepare(request):
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
    return count(request, lambda: opened(request), lambda sample: sample["key"])


def resume(request):
    def loader(workers):
        dataset = opened(request, num_canonical_nodes=1)
        return StreamingDataLoader(
            dataset, batch_size=16, num_workers=workers, collate_fn=collate, drop_last=True
        )

    return resumed(request, loader, lambda batch: batch["key"])


def collate(batch):
    return {name: [sample[name] for sample in batch] for name in batch[0]}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    answer = {"prepare": prepare, "raw": raw, "resume": resume}[request["task"]](request)
    sys.stdout.write(json.dumps(answer) + "\n")
