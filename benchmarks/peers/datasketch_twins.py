"""datasketch's near-duplicates: one JSON request in, one JSON line out.

The 3-grams of each text's words go into a MinHash of 192 values, the MinHashes into its LSH index,
and each is asked for its neighbours. CPU seconds are of that work alone.
"""

import json
import sys
import time

from datasketch import MinHash, MinHashLSH

PERMUTATIONS = 192


def shingles(text):
    words = text.lower().split()
    return {" ".join(words[i : i + 3]).encode() for i in range(max(len(words) - 2, 1))}


def twins(texts, threshold):
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    hashes = list(MinHash.bulk((shingles(text) for text in texts), num_perm=PERMUTATIONS))
    pairs = set()
    for number, each in enumerate(hashes):
        near = (other for other in index.query(each) if each.jaccard(hashes[other]) >= threshold)
        pairs |= {(other, number) for other in near}
        index.insert(number, each)
    return pairs


if __name__ == "__main__":
    request = json.load(sys.stdin)
    started = time.process_time()
    pairs = twins(request["texts"], request["threshold"])
    seconds = time.process_time() - started
    sys.stdout.write(json.dumps({"seconds": seconds, "pairs": sorted(pairs)}) + "\n")
