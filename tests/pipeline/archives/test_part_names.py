"""Which files make up one archive, and that none of them is missing."""

from __future__ import annotations

import random
import string
from itertools import islice, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archives.part_names import archives
from shards.errors import UserError


def split(width: int, digits: bool) -> list[str]:
    """The tags of `split -a WIDTH`, or of `split -d`."""
    signs = string.digits if digits else string.ascii_lowercase
    return ["".join(each) for each in islice(product(signs, repeat=width), 600)]


SPELLINGS = [
    "x.tar.gz_part_{}",
    "x.tar.gz-part-{}",
    "x.tgz.part{}",
    "d/x.zip.part.{}",
    "x.tarpart{}",
]


@given(
    st.sampled_from(SPELLINGS), st.integers(1, 3), st.booleans(), st.integers(1, 40), st.randoms()
)
def test_parts_are_one_file_and_a_gap_is_named(
    spelling: str, width: int, digits: bool, count: int, rng: random.Random
) -> None:
    names = [spelling.format(tag) for tag in split(width, digits)[:count]]
    assert archives(rng.sample(names, len(names))) == [tuple(names)]
    if len(names) > 2:
        gone = names.pop(rng.randrange(len(names) - 1))
        if digits and gone.endswith("0") and int(gone.rpartition("t")[2].strip("._-")) == 0:
            return  # then they count from 1
        with pytest.raises(UserError, match="missing") as caught:
            archives(names)
        assert gone in str(caught.value)


def test_numbers_without_zeros_in_front_count_on() -> None:
    names = [f"x.tar.part{number}" for number in range(1, 13)]
    assert archives(sorted(names)) == [tuple(names)]
    assert archives([f"x.tar.{number:03d}" for number in range(4)]) == [
        ("x.tar.000", "x.tar.001", "x.tar.002", "x.tar.003")
    ]


def test_where_split_widens_its_tags_it_counts_on() -> None:
    pairs = [a + b for a in string.ascii_lowercase[:25] for b in string.ascii_lowercase]
    letters = [f"x.tar.part_{tag}" for tag in [*pairs, "zaaa", "zaab"]]
    assert archives(letters) == [tuple(letters)]
    digits = [f"x.tar.part{tag:02d}" for tag in [*range(90), *range(9000, 9003)]]
    assert archives(digits) == [tuple(digits)]


def test_a_count_in_the_name_is_held_to() -> None:
    for first in (0, 1):
        names = [f"x.tar.gz-{number:05d}-of-00004" for number in range(first, first + 4)]
        assert archives(names) == [tuple(names)]
        for some in (names[:-1], names[:1]):
            with pytest.raises(UserError, match="of 4 parts"):
                archives(some)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["x.tar.part_aa", "x.tar.part_ac"], r"x\.tar\.part_ab: missing between"),
        (["x.tar.part_ab", "x.tar.part_ac"], r"x\.tar\.part_aa: missing, the parts begin with"),
        (["x.tar.part2", "x.tar.part3"], r"x\.tar\.part0: missing"),
        (["x.tar.part9", "x.tar.part11", "x.tar.part8"], "part0: missing"),
        (["x.tar.part1", "x.tar.part01"], "the same part"),
        (["x.tar.xz"], "packed by xz"),
        (["x.rar"], r"not a \.tar"),
    ],
)
def test_what_cannot_be_one_file_is_said(names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        archives(names)


def test_whole_archives_and_other_spellings_are_apart() -> None:
    names = ["b.tar", "a.tar", "a.tar.part1", "a.tar.part2", "a.tar_00", "c/a.tar.part1", "a10.zip"]
    assert archives([*names, "a9.zip", "a9.zip", "train-00001-of-00009.tar"]) == [
        ("a.tar",),
        ("a.tar.part1", "a.tar.part2"),
        ("a.tar_00",),
        ("a9.zip",),
        ("a10.zip",),
        ("b.tar",),
        ("c/a.tar.part1",),
        ("train-00001-of-00009.tar",),
    ]
