"""Links under a media folder: followed where their targets may be read, else refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.media.decode import decode_all
from pipeline.media.image_sequences import Stills
from pipeline.sources.media_lookup import Found, MediaTable, folder_table
from pipeline.sources.records import MediaRef
from pipeline.stages.open_media import open_address
from pipeline.untrusted import Problem
from shards.ids import sha256_hex
from shards.profile import Profile
from tests.support.small_world import film, picture


def find(table: MediaTable, name: str, fps: int | None = None) -> Found | Problem:
    return table.find(MediaRef(kind="image", name=name, fps=fps))


def read(found: Found | Problem) -> bytes:
    assert isinstance(found, Found), found
    with open_address(found.address) as path:
        assert isinstance(path, Path) and not path.is_symlink()
        return path.read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A recipe's folder with media, and secrets beside it."""
    for name in ("recipe/media/v", "recipe/more", "outside", "allowed"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "recipe/media/real.jpg").write_bytes(b"real")
    (tmp_path / "recipe/more/other.jpg").write_bytes(b"other")
    (tmp_path / "allowed/third.jpg").write_bytes(b"third")
    (tmp_path / "outside/secret.jpg").write_bytes(b"secret")
    return tmp_path


def table(world: Path, root: str = "recipe/media") -> MediaTable:
    allowed = [str(world / "recipe"), str(world / "allowed")]
    return folder_table(world / root, allowed=allowed)


def test_links_are_followed_where_their_targets_may_be_read(world: Path) -> None:
    media = world / "recipe/media"
    (media / "inside.jpg").symlink_to("real.jpg")
    (media / "beside.jpg").symlink_to("../more/other.jpg")
    (media / "allowed.jpg").symlink_to(world / "allowed/third.jpg")
    (media / "folder").symlink_to(world / "recipe/more")
    found = {name: read(find(table(world), name)) for name in os.listdir(media) if "." in name}  # noqa: PTH208
    assert found == {
        "real.jpg": b"real",
        "inside.jpg": b"real",
        "beside.jpg": b"other",
        "allowed.jpg": b"third",
    }
    assert read(find(table(world), "folder/other.jpg")) == b"other"


def test_a_root_that_is_a_link_counts_as_where_it_leads(world: Path) -> None:
    (world / "recipe/data").symlink_to(world / "outside")
    (world / "outside/also.jpg").symlink_to("secret.jpg")
    for name in ("secret.jpg", "also.jpg"):
        assert read(find(table(world, "recipe/data"), name)) == b"secret"


def test_every_other_link_is_refused_by_name(world: Path) -> None:
    media = world / "recipe/media"
    (media / "out.jpg").symlink_to(world / "outside/secret.jpg")
    (media / "chain.jpg").symlink_to("out.jpg")
    (media / "folder").symlink_to(world / "outside")
    (media / "round.jpg").symlink_to("round.jpg")
    (media / "nowhere.jpg").symlink_to("gone.jpg")
    (media / "up").symlink_to("..")
    (media / "v/1.jpg").symlink_to(world / "outside/secret.jpg")
    for name in ("out.jpg", "chain.jpg", "folder/secret.jpg", "round.jpg", "nowhere.jpg"):
        found = find(table(world), name)
        assert isinstance(found, Problem) and found.code == "MEDIA_NOT_A_FILE", name
        assert name in found.detail
    assert isinstance(find(table(world), "up/up/media/real.jpg"), Problem)
    frames = find(table(world), "v", fps=2)
    assert isinstance(frames, Problem) and "v/1.jpg" in frames.detail


def test_linked_folders_without_end_are_not_walked(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / "x" / name).mkdir(parents=True)
        for other in "abcdefgh":
            (tmp_path / "x" / name / f"to_{other}").symlink_to(f"../{other}")
    assert len(folder_table(tmp_path).folder.folders) < 1000


def hub(root: Path) -> Path:
    blobs, snapshot = root / "hub/blobs", root / "hub/snapshots/abc"
    (snapshot / "v").mkdir(parents=True)
    blobs.mkdir()
    for number in range(3):
        picture(blobs / f"b{number}.jpg", number)
        (blobs / f"b{number}.jpg").rename(blobs / f"b{number}")
        (snapshot / f"{number}.jpg").symlink_to(f"../../blobs/b{number}")
        (snapshot / f"v/{number}.jpg").symlink_to(f"../../../blobs/b{number}")
    return snapshot


def test_the_hubs_cache_is_read_as_it_lies(tmp_path: Path) -> None:
    snapshot = hub(tmp_path)
    (tmp_path / "hub/secret").write_bytes(b"secret")
    (snapshot / "out.jpg").symlink_to("../../secret")
    for root in (snapshot, snapshot / "v"):
        found = find(folder_table(root), "1.jpg")
        assert read(found) == (tmp_path / "hub/blobs/b1").read_bytes()
    frames = find(folder_table(snapshot), "v", fps=2)
    assert isinstance(frames, Found)
    with open_address(frames.address) as stills:
        assert isinstance(stills, Stills)
        assert [file.name for file in stills.files] == ["b0", "b1", "b2"]
    assert isinstance(find(folder_table(snapshot), "out.jpg"), Problem)


def test_a_gif_of_the_hubs_cache_is_known_by_its_name(tmp_path: Path) -> None:
    snapshot = hub(tmp_path)
    (tmp_path / "hub/blobs/g").write_bytes(b"GIF89a")
    (snapshot / "g.GIF").symlink_to("../../blobs/g")
    found = find(folder_table(snapshot), "g.GIF")
    assert isinstance(found, Found)
    with open_address(found.address) as path:
        assert isinstance(path, Path) and path.suffix == ".gif" and path.read_bytes() == b"GIF89a"


def code(address: str, kind: str = "image") -> str:
    """What the door says of what lies there now."""
    with open_address(address) as path:
        assert isinstance(path, Path), path
        (found,) = decode_all([(path, kind, None)], Profile())
    return getattr(found, "code", "")


def test_a_link_that_takes_a_files_place_is_refused(world: Path) -> None:
    media = world / "recipe/media"
    picture(media / "a.jpg", 1)
    picture(media / "deep/b.jpg", 2) if (media / "deep").mkdir() is None else None
    picture(media / "v/1.jpg", 3)
    film(world / "outside/film.mp4", 1)
    picture(world / "outside/b.jpg", 4)
    places = {name: find(table(world), name) for name in ("a.jpg", "deep/b.jpg")}
    places["v"] = find(table(world), "v", fps=2)
    addresses = {name: found.address for name, found in places.items() if isinstance(found, Found)}
    assert len(addresses) == 3 and not code(addresses["a.jpg"])
    (media / "a.jpg").unlink()
    (media / "a.jpg").symlink_to(world / "outside/secret.jpg")
    (media / "deep").rename(media / "was")
    (media / "deep").symlink_to(world / "outside")
    (media / "v/1.jpg").unlink()
    (media / "v/1.jpg").symlink_to(world / "outside/secret.jpg")
    for address in addresses.values():
        assert code(address) == "MEDIA_NOT_A_FILE", address
    (media / "v").rename(media / "w")
    (media / "v").symlink_to(world / "outside")
    assert code(addresses["v"]) == "MEDIA_NOT_A_FILE"


def test_digests_of_links_are_those_of_their_targets(world: Path) -> None:
    (world / "recipe/media/inside.jpg").symlink_to("real.jpg")
    folder = table(world).folder
    assert folder.digest_of(folder.files["inside.jpg"]) == sha256_hex(b"real")
