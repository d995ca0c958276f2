"""Stock webdataset reading tar shards; answers {samples, digest, cpu_s}."""

import hashlib
import json
import sys
import time

sys.path.pop(0)  # this file is named as the package it imports
import webdataset

request = json.load(sys.stdin)
start, digest, samples = time.process_time(), hashlib.sha256(), 0
for sample in webdataset.WebDataset(request["shards"], shardshuffle=False, empty_check=False):
    digest.update(sample["__key__"].encode())
    digest.update(sample["json"])
    digest.update(sample["mjpeg"])
    samples += 1
seconds = time.process_time() - start
sys.stdout.write(
    json.dumps({"samples": samples, "digest": digest.hexdigest(), "cpu_s": seconds}) + "\n"
)
