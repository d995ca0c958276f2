"""imagehash's pHash and plain PDQ of the frames of clips: one folder of JPEGs per clip.

One JSON request in ({"frames": folder}), one JSON line out per clip: hashes in hex, by name.
"""

import json
import pathlib
import sys

sys.path.pop(0)
import imagehash
import numpy
import pdqhash
from PIL import Image

for folder in sorted(pathlib.Path(json.load(sys.stdin)["frames"]).iterdir()):
    frames = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    bits = [pdqhash.compute(numpy.asarray(frame))[0] for frame in frames]
    answer = {
        "clip": folder.name,
        "phash": [str(imagehash.phash(frame)) for frame in frames],
        "pdq": [numpy.packbits(each).tobytes().hex() for each in bits],
    }
    sys.stdout.write(json.dumps(answer) + "\n")
