"""Published files named and packed as people do, from a recipe to the records that are admitted."""

from __future__ import annotations

import gzip
import io
import json
import os
import unicodedata
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Source
from pipeline.jobs import run_stages
from pipeline.jobs.collect import gather
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.sources.pin import pin
from pipeline.stages import decode_media
from pipeline.stages.open_media import open_address
from shards.errors import UserError
from shards.index import MEDIA, NAMED, REFUSED
from shards.pool import Pool
from tests.pipeline.archives.test_members import tar_of
from tests.pipeline.stages.test_read_archive import commit_nothing, hound
from tests.support import small_world
from tests.support.archives import asks, zipped
from tests.support.in_process import Here


def jpeg(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (128, 96), (number * 9, 40, 90)).save(out, "JPEG")
    return out.getvalue()


class Admitted:
    """What admission made of one source of a recipe, whose archives were read before."""

    def __init__(self, root: Path, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
        line = f"sources:\n  - {{name: s, dataset: d/s, licence: CC0-1.0, weight: 1, {keys}}}\n"
        text = small_world.RECIPE.partition("sources:")[0].format(root=root) + line
        (root / "recipe.yaml").write_text(text)
        (root / "tokenizer.json").write_bytes(b"")
        recipe = load_recipe(root / "recipe.yaml")
        self.pool = Pool(str(root / f"pool{len([*root.glob('pool*')])}"), recipe.profile)
        monkeypatch.setattr(decode_media, "decode", lambda unit: commit_nothing(self.pool, unit))
        (source,) = recipe.sources
        assert isinstance(source, Source)
        pinned = [pin(source, str(recipe.path))]
        with steps() as bars:
            job = Job(pool=self.pool, workers=Here(), bars=bars)
            found = run_stages.admit(pinned, gather(pinned, "decode", job), job, "admit")
        self.receipt = found["s"]
        self.kept = self.receipt.counts["samples"] - self.receipt.counts["samples_refused"]
        rows = self.pool.table([self.receipt], "refused", REFUSED).to_pylist()
        self.codes = {row["record"]: row["code"] for row in rows}
        named = self.pool.table([self.receipt], "named", NAMED).to_pylist()
        self.named = {row["what"]: row["count"] for row in named}

    def addresses(self) -> list[str]:
        rows = self.pool.table([self.receipt], "index/media", MEDIA).to_pylist()
        return [row["address"] for row in rows]


def split(path: Path, data: bytes, spelling: str, count: int) -> None:
    size = -(-len(data) // count)
    for number in range(count):
        piece = data[number * size : (number + 1) * size]
        (path / spelling.format(number + 1)).write_bytes(piece)


def test_twelve_parts_without_zeros_are_joined_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"{number}.jpg": jpeg(number) for number in range(12)}
    split(tmp_path, tar_of(files), "x.tar.part{}", 12)
    asks(tmp_path / "a.json", list(files))
    keys = (
        f'format: llava_json, annotations: {tmp_path}/a.json, archives: ["{tmp_path}/x.tar.part*"]'
    )
    admitted = Admitted(tmp_path, keys, monkeypatch)
    assert (admitted.kept, admitted.codes) == (12, {})
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("s: files in the order of their numbers") == 1
    assert "x.tar.part9 before" in said
    (tmp_path / "x.tar.part7").unlink()
    with pytest.raises(UserError, match=r"x\.tar\.part7: missing between .*archives of s"):
        Admitted(tmp_path, keys, monkeypatch)


@pytest.mark.parametrize("end", ["tar", "tar.gz", "zip"])
def test_parts_that_are_whole_archives_and_joined_archives_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    make = {"tar": tar_of, "tar.gz": lambda files: gzip.compress(tar_of(files))}
    pieces = []
    for part in range(3):
        files = {f"{number}.jpg": jpeg(number) for number in range(4 * part, 4 * part + 4)}
        zipped(tmp_path / "z", files)
        pieces.append((tmp_path / "z").read_bytes() if end == "zip" else make[end](files))
        (tmp_path / f"x.{end}-part-{part:02d}").write_bytes(pieces[-1])
    (tmp_path / f"whole.{end}").write_bytes(b"".join(pieces))
    asks(tmp_path / "a.json", [f"{number}.jpg" for number in range(12)])
    for pattern in (f"x.{end}-part-*", f"whole.{end}"):
        keys = f'annotations: {tmp_path}/a.json, archives: ["{tmp_path}/{pattern}"]'
        admitted = Admitted(tmp_path, f"format: llava_json, {keys}", monkeypatch)
        assert (admitted.kept, admitted.codes) == (12, {}), pattern


def test_near_names_in_archives_and_folders_are_joined_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["müller.jpg", "été.jpg", "パイソン.jpg", "plain.jpg"]
    held = {unicodedata.normalize("NFD", name): jpeg(i) for i, name in enumerate(names)}
    (tmp_path / "m").mkdir()
    for name, data in held.items():
        (tmp_path / "m" / name).write_bytes(data)
    (tmp_path / "m.tar").write_bytes(tar_of(held))
    asks(tmp_path / "a.json", names)
    for place in (f"media: {tmp_path}/m", f'archives: ["{tmp_path}/m.tar"]'):
        keys = f"format: llava_json, annotations: {tmp_path}/a.json, {place}"
        admitted = Admitted(tmp_path, keys, monkeypatch)
        assert (admitted.kept, admitted.named) == (4, {"near": 3}), place
        assert "3 names joined to a file whose name is near" in capsys.readouterr().err


class Unmarked(zipfile.ZipInfo):
    """An entry whose name is written in cp437, as old tools and Windows do."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("cp437"), 0


def test_zips_of_windows_and_of_other_code_pages_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = {
        "images/train/0.jpg": "images\\train\\0.jpg",
        "你好/1.jpg": "你好/1.jpg".encode("gbk").decode("cp437"),
        "日本/2.jpg": "日本/2.jpg".encode("shift_jis").decode("cp437"),
        "été/3.jpg": "été/3.jpg".encode().decode("cp437"),
        "é/4.jpg": "é/4.jpg",
    }
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for number, name in enumerate(spelled.values()):
            info = Unmarked("x")
            info.filename = name
            archive.writestr(info, jpeg(number))
    for kind, asked in (("slash", list(spelled)), ("backslash", ["images\\train\\0.jpg"])):
        asks(tmp_path / f"{kind}.json", asked)
        keys = f'annotations: {tmp_path}/{kind}.json, archives: ["{tmp_path}/m.zip"]'
        admitted = Admitted(tmp_path, f"format: llava_json, {keys}", monkeypatch)
        assert (admitted.kept, admitted.codes) == (len(asked), {}), kind
        assert admitted.named == ({"near": 4} if kind == "slash" else {})


def test_a_zip_whose_names_are_not_what_they_claim_ends_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "m.zip", {"é.jpg": jpeg(0), "b.jpg": jpeg(1)})
    data = (tmp_path / "m.zip").read_bytes().replace("é".encode(), b"\xff\xfe")
    (tmp_path / "m.zip").write_bytes(data)
    asks(tmp_path / "a.json", ["b.jpg"])
    keys = f'format: llava_json, annotations: {tmp_path}/a.json, archives: ["{tmp_path}/m.zip"]'
    assert Admitted(tmp_path, keys, monkeypatch).codes == {"b.jpg": "ARCHIVE_DAMAGED"}


def test_names_that_are_not_utf_8_end_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    for number in range(4):
        (tmp_path / f"m/{number}.jpg").write_bytes(jpeg(number))
    for name in (b"m/caf\xe9.jpg", b"caf\xe9.json", b"caf\xe9.tar"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:  # noqa: PTH118, PTH123
            inside = {"5.jpg": jpeg(5), "caf\udce9.jpg": jpeg(6)}
            rows = [small_world.row("c", "image", "5.jpg", "What?", "this")]
            file.write({b"g": jpeg(9), b"n": json.dumps(rows).encode()}.get(name[-1:], b""))
            file.write(tar_of(inside) if name.endswith(b"tar") else b"")
    asks(tmp_path / "a.json", [f"{number}.jpg" for number in range(4)])
    keys = (
        f'format: llava_json, annotations: ["{tmp_path}/[ac]*.json"], media: {tmp_path}/m, '
        f'archives: ["{tmp_path}/*.tar", "{tmp_path}/m/*.jpg"]'
    )
    admitted = Admitted(tmp_path, keys, monkeypatch)
    assert (admitted.kept, admitted.codes) == (5, {})
    assert admitted.named["not UTF-8"] == 1


def test_frames_play_in_the_order_of_their_numbers_without_junk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"v1/frame_{number}.jpg": jpeg(number) for number in range(1, 13)}
    for folder in ("v2", "v3"):
        files |= {f"{folder}/{number:04d}.jpg": jpeg(number) for number in range(1, 13)}
    files |= {"v2/Thumbs.db": b"junk", "v2/.DS_Store": b"junk", "v3/._0001.jpg": b"junk"}
    for name, data in files.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(data)
    (tmp_path / "m.tar").write_bytes(tar_of(dict(sorted(files.items()))))
    hound(tmp_path / "a.jsonl", ["v1", "v2", "v3"])
    digests = []
    for place in (f"media: {tmp_path}/m", f'archives: ["{tmp_path}/m.tar"]'):
        keys = f"format: llava_hound, annotations: {tmp_path}/a.jsonl, {place}"
        admitted = Admitted(tmp_path, keys, monkeypatch)
        assert (admitted.kept, admitted.codes) == (3, {})
        assert admitted.named == {"junk": 3, "numbered": 1}
        said = " ".join(capsys.readouterr().err.split())
        assert "(v1/frame_9.jpg before v1/frame_10.jpg)" in said
        rows = admitted.pool.table([admitted.receipt], "index/media", MEDIA).to_pylist()
        digests.append(sorted(row["media_digest"] for row in rows))
        for row in rows if place.startswith("media") else ():
            with open_address(row["address"]) as stills:
                assert not isinstance(stills, Path) and len(stills.files) == 12
                numbers = [int("".join(filter(str.isdigit, f.name))) for f in stills.files]
                assert numbers == list(range(1, 13))
    assert digests[0] == digests[1]


def test_a_macs_zip_keeps_its_frames_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"v1/{number}.jpg": jpeg(number) for number in range(1, 13)}
    twins = {name: f"__MACOSX/v1/._{name.rpartition('/')[2]}" for name in files}
    members = {each: files.get(each, b"junk") for name in files for each in (name, twins[name])}
    zipped(tmp_path / "m.zip", members)
    hound(tmp_path / "a.jsonl", ["v1"])
    keys = f'format: llava_hound, annotations: {tmp_path}/a.jsonl, archives: ["{tmp_path}/m.zip"]'
    admitted = Admitted(tmp_path, keys, monkeypatch)
    assert (admitted.kept, admitted.codes) == (1, {})


def test_the_hubs_cache_is_read_from_the_recipes_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    held = {f"{number}.jpg": jpeg(number) for number in range(4)}
    asks(tmp_path / "rows.json", list(held))
    held |= {"m.tar": tar_of(held), "a.json": (tmp_path / "rows.json").read_bytes()}
    for number, (name, data) in enumerate(held.items()):
        (blobs / f"b{number}").write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/b{number}")
    for place in (
        f"media: {snapshot}",
        f'archives: ["{snapshot}/m.tar"]',
        f'archives: ["{snapshot}/*.jpg"]',
    ):
        keys = f"format: llava_json, annotations: {snapshot}/a.json, {place}"
        admitted = Admitted(tmp_path, keys, monkeypatch)
        assert (admitted.kept, admitted.codes) == (4, {}), place
        for address in admitted.addresses() if "tar" not in place else ():
            with open_address(address) as path:
                assert isinstance(path, Path) and not path.is_symlink()
