"""Details are sentences: no folders, secrets, memory addresses, spelled bytes, lists of codecs."""

from __future__ import annotations

import pytest

from pipeline.details import sentence

SAID = {
    r"starts with b'\x00\x00\x00\x1cftyp'": "its first bytes are of no kind that is read here",
    'starts with b"it\'s"': "its first bytes are of no kind that is read here",
    "not one of JPEG, MPO, PNG, WEBP": "a kind of picture that is not read here",
    "cannot identify image file <_io.BytesIO object at 0x7f00aa>": "no picture that is read here",
    "[mov,mp4,m4a @ 0x55d0c0de] moov atom not found": "moov atom not found",
    "[h264 @ 0x55d0c0de] Codec (vp6f) not on whitelist 'h264,hevc,vp9'": (
        "Codec (vp6f) is not one that is read here"
    ),
    "file:/home/ann/data/films/3.mp4: Invalid argument": (
        "3.mp4: what it holds is not what its headers say"
    ),
    "/tmp/x/3.mp4: Invalid data found when processing input": (
        "3.mp4: what it holds is not what its headers say"
    ),
    "https://host.org/v/1.mp4?X-Amz-Signature=secret&e=1: 403": "https://host.org/v/1.mp4: 403",
    "s3://lake/v/1.mp4?versionId=7 is gone": "s3://lake/v/1.mp4 is gone",
    "'/home/ann/x/1.jpg' is not a relative path": "'1.jpg' is not a relative path",
}
PLAIN = (
    "6000 x 4000 pixels, at most 100",
    "a/b/c.jpg is not there",
    "says what train/7 says",
    "places [0, 1], 1 media",
    "'../x' may leave the media folder",
    "https://host.org/v/1.mp4: the server answers 404",
    "25/1 frames per second",
)


@pytest.mark.parametrize("detail", SAID)
def test_what_machines_say_becomes_a_sentence(detail: str) -> None:
    assert sentence(detail) == SAID[detail]


@pytest.mark.parametrize("detail", PLAIN)
def test_a_sentence_stays_as_it_is(detail: str) -> None:
    assert sentence(detail) == detail
