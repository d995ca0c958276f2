"""Names that miss their file: joined where one file answers, else the near ones are said."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.names import printable
from pipeline.sources.media_lookup import Found, folder_digest, folder_table
from pipeline.sources.near_names import folded, near_index, readings, suffixes
from pipeline.sources.records import MediaRef
from pipeline.stages.open_media import open_address
from pipeline.untrusted import Problem
from shards.ids import sha256_hex


def put(root: Path, name: str | bytes, data: bytes) -> None:
    path = os.path.join(os.fsencode(root), os.fsencode(name))  # noqa: PTH118
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)


def find(root: Path, name: str, fps: int | None = None) -> Found | Problem:
    return folder_table(root).find(MediaRef(kind="image", name=name, fps=fps))


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        (unicodedata.normalize("NFD", "a/müller.jpg"), "a/müller.jpg"),
        (
            unicodedata.normalize("NFC", "パイソン.jpg"),
            unicodedata.normalize("NFD", "パイソン.jpg"),
        ),
        ("Train/A.JPG", "train/a.jpg"),
        ("train/a.jpg", "train\\a.jpg"),
        ("train\\a.jpg", "train/a.jpg"),
        ("İstanbul/STRASSE.jpg", "i\u0307stanbul/straße.jpg"),
        ("你好.jpg".encode("gbk"), "你好.jpg"),
        ("日本.jpg".encode("shift_jis"), "日本.jpg"),
        ("été.jpg".encode("cp437"), "été.jpg"),
        ("你好.jpg".encode("gbk").decode("cp437"), "你好.jpg"),
        ("é/你.jpg".encode().decode("cp437"), "é/你.jpg"),
    ],
)
def test_a_name_is_joined_to_the_one_file_that_is_near(
    tmp_path: Path, held: str | bytes, asked: str
) -> None:
    put(tmp_path, held, b"picture")
    put(tmp_path, "other.jpg", b"other")
    found = find(tmp_path, asked)
    assert isinstance(found, Found) and found.digest == sha256_hex(b"picture")
    assert found.near == printable(os.fsdecode(held))
    found.address.encode()  # goes into tables
    with open_address(found.address) as path:
        assert isinstance(path, Path) and path.read_bytes() == b"picture"


def test_of_two_near_files_none_is_taken_and_both_are_said(tmp_path: Path) -> None:
    for name in ("A.jpg", "a.JPG"):
        put(tmp_path, name, b"the same")
    found = find(tmp_path, "a.jpg")
    assert isinstance(found, Problem) and found.code == "MEDIA_MISSING"
    assert "'A.jpg', 'a.JPG'" in found.detail
    put(tmp_path, "a.jpg", b"itself")
    exact = find(tmp_path, "a.jpg")
    assert isinstance(exact, Found) and not exact.near and exact.digest == sha256_hex(b"itself")


def test_forms_that_look_alike_are_spelled_out(tmp_path: Path) -> None:
    for form, case in (("NFD", "É.jpg"), ("NFD", "é.JPG")):
        put(tmp_path, unicodedata.normalize(form, case), b"picture")
    found = find(tmp_path, "É.jpg")
    assert isinstance(found, Problem) and "near are 'E\\u0301.jpg', 'e" in found.detail


def test_a_folder_of_pictures_is_found_by_a_near_name(tmp_path: Path) -> None:
    for name in (
        "Vidéo/frame_10.jpg",
        "Vidéo/frame_9.jpg",
        "Vidéo/.DS_Store",
        "Vidéo/._frame_9.jpg",
    ):
        put(tmp_path, unicodedata.normalize("NFD", name), name.encode())
    found = find(tmp_path, "vidéo", fps=2)
    assert isinstance(found, Found) and found.near and found.junk == 2
    names = [unicodedata.normalize("NFC", f"Vidéo/frame_{n}.jpg").encode() for n in (10, 9)]
    files = zip(("frame_10.jpg", "frame_9.jpg"), map(sha256_hex, names), strict=True)
    assert found.digest == folder_digest(files)
    assert found.numbered.endswith("frame_9.jpg before " + printable(found.near) + "/frame_10.jpg")
    with open_address(found.address) as stills:
        assert not isinstance(stills, Path)
        assert [file.name for file in stills.files] == ["frame_9.jpg", "frame_10.jpg"]


def test_names_that_are_not_utf_8_can_be_told_and_hashed(tmp_path: Path) -> None:
    put(tmp_path, b"caf\xe9.jpg", b"picture")
    put(tmp_path, b"v\xe9/\xe9.jpg", b"frame")
    table = folder_table(tmp_path)
    assert {*map(printable, table.folder.files)} == {"caf\\xe9.jpg", "v\\xe9/\\xe9.jpg"}
    found = find(tmp_path, "vΘ", fps=2)  # as cp437 reads it
    assert isinstance(found, Found) and found.address.isascii()
    with open_address(found.address) as stills:
        assert not isinstance(stills, Path) and stills.files[0].read_bytes() == b"frame"


def test_what_is_nowhere_is_missing(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", b"picture")
    found = find(tmp_path, "b.jpg")
    assert isinstance(found, Problem)
    assert (found.code, found.detail) == ("MEDIA_MISSING", "no file b.jpg")


@given(st.text(max_size=12).map(lambda name: name.replace("\\", "")))
def test_a_name_is_near_itself_however_it_is_written(name: str) -> None:
    for form in ("NFC", "NFD"):
        assert folded(unicodedata.normalize(form, name)) == folded(name)
    assert folded(folded(name)) == folded(name)
    assert name in near_index([name])[folded(name)]
    assert next(readings(name)) == name


def test_the_names_of_a_path_are_its_ends() -> None:
    assert list(suffixes("a/b/c.jpg")) == ["a/b/c.jpg", "b/c.jpg", "c.jpg"]
