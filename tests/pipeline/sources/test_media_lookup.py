"""Media of a source: what lies there, under which digest, and how one piece is opened again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.fetch.local_files import resolve
from pipeline.sources import pin
from pipeline.sources.media_lookup import Found, folder_table
from pipeline.sources.records import MediaRef
from pipeline.stages.open_media import open_address
from pipeline.untrusted import Problem
from shards.errors import MissingData, UserError
from shards.ids import sha256_file, sha256_hex


def find(root: Path, name: str) -> Found | Problem:
    return folder_table(root).find(MediaRef(kind="image", name=name))


def test_a_file_is_found_by_its_relative_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.jpg").write_bytes(b"picture")
    found = find(tmp_path, "a/b.jpg")
    assert found == Found(sha256_hex(b"picture"), f"file:{tmp_path}//a/b.jpg")
    with open_address(found.address) as path:
        assert path.read_bytes() == b"picture"


def test_links_pipes_and_what_lies_behind_a_link_are_no_files(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret.jpg").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(outside / "secret.jpg")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "pipe.jpg")
    for name in ("link.jpg", "folder/secret.jpg", "pipe.jpg"):
        found = find(root, name)
        assert isinstance(found, Problem) and found.code == "MEDIA_NOT_A_FILE", name


def test_media_that_are_not_there_are_missing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for root, name in ((tmp_path, "b.jpg"), (tmp_path, "a/b.jpg")):
        found = find(root, name)
        assert isinstance(found, Problem) and found.code == "MEDIA_MISSING"


def test_embedded_media_are_found_without_a_folder() -> None:
    ref = MediaRef(kind="image", data=b"bytes", address="parquet:/x#0/0")
    assert folder_table(None).find(ref) == Found(sha256_hex(b"bytes"), "parquet:/x#0/0")


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
def test_embedded_bytes_are_read_again_from_their_row(tmp_path: Path, row_group_size: int) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"image": {"bytes": b"%d" % i, "path": None}} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    for i in range(5):
        with open_address(f"parquet:{path}#{i}/0") as copy:
            assert copy.read_bytes() == b"%d" % i
        assert not copy.exists()


def test_lists_of_embedded_images_are_addressed_by_number(tmp_path: Path) -> None:
    path = tmp_path / "with#sign.parquet"
    images = [{"bytes": b"a", "path": None}, {"bytes": b"b", "path": None}]
    pq.write_table(pa.Table.from_pylist([{"images": images}]), path)
    with open_address(f"parquet:{path}#0/1") as copy:
        assert copy.read_bytes() == b"b"


def test_an_address_that_lost_its_bytes_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    for address in (f"file:{tmp_path}/gone", f"parquet:{tmp_path}/gone.parquet#0/0"):
        with pytest.raises(MissingData, match=r"gone.*build"), open_address(address):
            pass
    with pytest.raises(UserError, match="not an address"), open_address("http://x/y"):
        pass


def test_paths_of_a_recipe_are_checked_with_the_key_that_names_them(tmp_path: Path) -> None:
    assert resolve(str(tmp_path), "media") == tmp_path
    with pytest.raises(UserError, match=r"nothing.*media of clips.*correct the path"):
        resolve(str(tmp_path / "nothing"), "media of clips")
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(UserError, match="not a folder"):
        folder_table(file)


def test_annotations_are_files_and_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    source = SimpleNamespace(name="a", annotations=(str(tmp_path),), archives=())
    with pytest.raises(UserError, match=r"a folder, named by r\.yaml: annotations of a; name the"):
        pin._pinned(source, "r.yaml")  # type: ignore[arg-type]


def test_a_file_is_hashed_when_it_is_asked_for_and_once(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "near.JPG"):
        (tmp_path / name).write_bytes(name.encode())
    hashed = Mock(side_effect=sha256_file)
    table = folder_table(tmp_path, hashed)
    assert not hashed.called
    for name in ("a.jpg", "a.jpg", "missing.jpg", "near.jpg"):
        table.find(MediaRef(kind="image", name=name))
    assert [call.args[0].name for call in hashed.call_args_list] == ["a.jpg", "near.JPG"]
