"""One order for every list of names: numbers as numbers, everything else by its bytes."""

from __future__ import annotations

import random
import re
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fetch import hub, local_files, object_store
from pipeline.names import in_order, is_junk, matching, number_order, printable, renumbered
from pipeline.stages.open_media import pictures_in
from tests.support.fake_hub import serve

NAMES = st.text(st.sampled_from("ab0189é_./-\udce9"), max_size=12)
PLAIN = st.text(st.sampled_from("abé_./-:"), max_size=8)


def test_frames_and_parts_stand_in_the_order_of_their_numbers() -> None:
    names = [f"frame_{number}.jpg" for number in range(1, 13)]
    assert in_order(sorted(names)) == names
    assert in_order(["v2/10.jpg", "v10/2.jpg", "v2/9.jpg"]) == [
        "v2/9.jpg",
        "v2/10.jpg",
        "v10/2.jpg",
    ]


def test_files_of_a_folder_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("2.json", "10.json", "1.json", "1.csv", "a/3.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in matching(tmp_path, "**/*.json")]
    assert found == ["1.json", "2.json", "10.json", "a/3.json"]
    assert in_order(["a1", "a01", "a001", "a2"]) == ["a001", "a01", "a1", "a2"]
    assert in_order(["9" * 5000, "1" + "0" * 5000]) == ["9" * 5000, "1" + "0" * 5000]


@given(st.lists(NAMES))
def test_the_order_does_not_depend_on_the_listing(names: list[str]) -> None:
    shuffled = random.Random(0).sample(names, len(names))
    assert in_order(shuffled) == in_order(names) and set(in_order(names)) == set(names)


@given(st.lists(PLAIN))
def test_names_without_numbers_stand_by_their_bytes(names: list[str]) -> None:
    assert in_order(names) == sorted(set(names))
    assert renumbered(names) is None


@given(st.lists(st.tuples(PLAIN, st.integers(0, 10**6), PLAIN)))
def test_numbers_of_one_length_stand_by_their_bytes(parts: list[tuple[str, int, str]]) -> None:
    names = [f"{before}{number:07d}{behind}" for before, number, behind in parts]
    assert in_order(names) == sorted(set(names))
    assert renumbered(names) is None


@given(PLAIN, PLAIN, st.sets(st.integers(0, 10**9)), st.integers(0, 3))
def test_numbers_stand_by_their_size(
    before: str, behind: str, numbers: set[int], zeros: int
) -> None:
    names = [f"{before}{'0' * zeros}{number}{behind}" for number in sorted(numbers)]
    assert in_order(set(names)) == names
    changed = sorted(names) != names
    assert (renumbered(names) is not None) == changed


@given(NAMES, NAMES)
def test_a_pair_that_differs_elsewhere_stands_by_its_bytes(one: str, two: str) -> None:
    if re.sub("[0-9]+", "", one) == "" or re.sub("[0-9]+", "", two) == "":
        return
    first = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
    if first is not None and not one[first].isdigit() and not two[first].isdigit():
        assert (number_order(one) < number_order(two)) == (one < two)


def test_junk_is_what_file_managers_leave() -> None:
    names = ["v/.DS_Store", "Thumbs.db", "desktop.ini", "a/._0001.jpg", "0001.jpg", "_1.jpg", ".x"]
    assert [name for name in names if is_junk(name)] == names[:4]


def test_a_name_that_is_not_utf_8_can_be_printed() -> None:
    assert printable("caf\udce9.jpg") == "caf\\xe9.jpg" and printable("café.jpg") == "café.jpg"


def test_every_list_of_files_is_in_this_order(tmp_path: Path) -> None:
    numbered = [f"x{number}.json" for number in (1, 2, 9, 10, 11, 100)]
    for name in sorted(numbered, reverse=True):
        (tmp_path / name).write_bytes(b"[]")
    on_disk = local_files.pin(f"{tmp_path}/x*.json", "annotations")
    assert [Path(path).name for path in on_disk] == numbered
    assert [path.name for path in pictures_in(tmp_path)] == numbered
    held = dict.fromkeys(numbered, b"[]")
    with serve(held) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        found = hub.pin("hf://datasets/maker/films/x*.json")
    assert [path.rpartition("/")[2] for path in found] == numbered
    store = fsspec.filesystem("memory")
    for name in numbered:
        store.pipe_file(f"/bucket/{name}", b"[]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store, "_open", lambda _: (store, "/bucket/x*.json"))
        listed = object_store.pin("s3://bucket/x*.json")
    assert [path.rpartition("/")[2] for path in listed] == numbered
