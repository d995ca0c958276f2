"""WebDataset tars as input: samples out of adjacent members, media addressed where they lie."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from pipeline.sources import records
from pipeline.sources.formats import webdataset
from pipeline.sources.records import Record, RowRefusal
from pipeline.stages.open_media import open_address
from shards.errors import UserError

TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]


def tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def read(path: Path, **columns: str) -> list[Record | RowRefusal]:
    return list(records("webdataset", [path], tuple((k, (v,)) for k, v in columns.items())))


def test_media_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    places = "".join(["<image>"] * 12)
    talk = {"messages": [{"role": "user", "content": f"{places}Which?"},
                         {"role": "assistant", "content": "This."}]}  # fmt: skip
    members = {f"s.{number}.jpg": str(number).encode() for number in range(12)}
    (found,) = read(tar(tmp_path / "a.tar", members | {"s.json": json.dumps(talk).encode()}))
    assert isinstance(found, Record)
    assert [ref.data for ref in found.media] == [str(number).encode() for number in range(12)]


@pytest.mark.parametrize("ending", "heic TIF bmp flv ts".split())
def test_pictures_and_films_that_are_not_read_refuse_their_sample(
    tmp_path: Path, ending: str
) -> None:
    talk = json.dumps({"conversations": [{"from": "human", "value": "What?"}, TALK[1]]}).encode()
    members = {f"s.{ending}": b"medium", "s.json": talk, "t.json": talk}
    refused, text = read(tar(tmp_path / "a.tar", members))
    assert isinstance(refused, RowRefusal) and isinstance(text, Record)
    assert refused.code == "MEDIA_FORMAT_REFUSED" and f"{ending.upper()} is not" in refused.detail


@pytest.mark.parametrize(("named", "kept"), [(["a/0.jpg"], True), (["a/0.jpg", "b.jpg"], False)])
def test_an_object_that_names_more_media_than_lie_beside_it_is_refused(
    tmp_path: Path, named: list[str], kept: bool
) -> None:
    talk = json.dumps({"conversations": TALK, "images": named}).encode()
    (found,) = read(tar(tmp_path / "a.tar", {"s.jpg": b"0", "s.json": talk}))
    assert isinstance(found, Record if kept else RowRefusal)
    if isinstance(found, RowRefusal):
        assert found.code == "ROW_FIELD_UNREAD" and "names 2 media" in found.detail


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_of_one_name_are_a_sample_and_open_again(tmp_path: Path, form: int) -> None:
    long = "folder/" + "x" * (120 if form != tarfile.USTAR_FORMAT else 20)
    members = {
        "a/1.0.jpg": b"first",
        "a/1.1.jpg": b"second!",
        "a/1.json": json.dumps({"conversations": [
            {"from": "human", "value": "<image><image>Same?"}, TALK[1]]}).encode(),
        f"{long}.txt": "A café.\n".encode(),
        f"{long}.PNG": b"third",
    }  # fmt: skip
    path = tar(tmp_path / "a.tar", members, form)
    first, second = read(path)
    assert isinstance(first, Record) and isinstance(second, Record), (first, second)
    assert (first.record, second.record) == ("a/1", long)
    assert second.turns[1].text == "A café." and second.turns[0].media == ((0, 0),)
    wanted = [b"first", b"second!", b"third"]
    for ref, data in zip([*first.media, *second.media], wanted, strict=True):
        assert ref.data == data
        with open_address(ref.address) as found:
            assert isinstance(found, Path) and found.read_bytes() == data


def test_columns_name_what_is_asked_and_said(tmp_path: Path) -> None:
    known = {"ask": "Who?", "say": "He.", "more": 3}
    members = {"1.json": json.dumps(known).encode(), "1.mp4": b"film", "1.npy": b"\x93NUMPY"}
    (found,) = read(tar(tmp_path / "a.tar", members), question="ask", answer="say")
    assert isinstance(found, Record), found
    assert [turn.text for turn in found.turns] == ["Who?", "He."]
    assert found.media[0].kind == "video"
    assert found.unread == {"more": 3, "npy": webdataset.NOT_READ}


def test_a_sample_is_refused_by_name_for_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "MAX_MEMBER", 100)
    talk = json.dumps({"conversations": TALK}).encode()
    members = {
        "good.jpg": b"x", "good.json": talk,
        "sound.jpg": b"x", "sound.json": talk, "sound.wav": b"RIFF",
        "bare.jpg": b"x",
        "broken.jpg": b"x", "broken.json": b"{",
        "latin.jpg": b"x", "latin.txt": b"caf\xe9",
        "big.jpg": bytes(101), "big.txt": b"A cat.",
        "named.json": json.dumps({"image": "x/y.jpg", "conversations": TALK}).encode(),
        "good.txt": b"A cat.",
        "README": b"hello",
        "._good.jpg": b"junk",
    }  # fmt: skip
    found = read(tar(tmp_path / "a.tar", members))
    codes = {item.record: getattr(item, "code", "") for item in found[:-3]}
    assert codes == {
        "good": "",
        "sound": "ROW_FIELD_UNREAD",
        "bare": "ROW_MISSING_FIELD",
        "broken": "ROW_NOT_JSON",
        "latin": "ROW_NOT_UTF8",
        "big": "MEDIA_TOO_BIG",
        "named": "",
    }
    rest = [(item.record, getattr(item, "code", "")) for item in found[-3:]]
    missing = "ROW_MISSING_FIELD"
    assert rest == [("good", "ROW_ID_CONFLICT"), ("README", missing), ("._good.jpg", missing)]


def test_a_tar_that_is_compressed_or_damaged_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"1.jpg": bytes(5000), "1.txt": b"A cat."})
    with pytest.raises(UserError, match=r"a\.tar\.gz: .*unpack it first"):
        read(path.rename(tmp_path / "a.tar.gz"))
    cut = tmp_path / "b.tar"
    cut.write_bytes((tmp_path / "a.tar.gz").read_bytes()[:3000])
    with pytest.raises(UserError, match=r"b\.tar: .*fetch it again"):
        read(cut)
