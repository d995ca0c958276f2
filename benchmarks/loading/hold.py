"""What a training process holds of a manifest: resident and private bytes beyond the bare imports.

    python -m benchmarks.loading.hold FOLDER      prints {"resident", "private"} in bytes, and how
    long

It loads the manifest, draws batches from the start and the end, and touches every row once.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from mixtures.manifest.files import load_manifest
from mixtures.manifest.sampler import BatchSampler


def held() -> dict[str, int]:
    """Resident and private bytes of this process."""
    kilobytes = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    }
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"resident": kilobytes["Rss"] * 1024, "private": private * 1024}


def main() -> None:
    before, start = held(), time.process_time()
    manifest = load_manifest(Path(sys.argv[1]) / "manifest.json")
    order = BatchSampler(manifest, 48)
    loaded = time.process_time() - start
    last = manifest.contents.packs // 48 - 1
    for step in (*range(20), *range(last - 20, last)):
        order.batch(step, 0, 4)
    rows = sum(int(table["tokens"].max() > 0) * len(table) for table in manifest.tables)
    after = held()
    grown = {name: after[name] - before[name] for name in before}
    sys.stdout.write(json.dumps(grown | {"rows": rows, "load_cpu_s": round(loaded, 2)}) + "\n")


if __name__ == "__main__":
    main()
