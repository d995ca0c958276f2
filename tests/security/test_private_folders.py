"""What neighbours plant on a shared machine: links, fifos, folders of theirs, open doors."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.fetch.digest_cache import cache
from pipeline.jobs import ray_executor
from pipeline.stages import open_media
from shards.errors import UserError
from shards.store import private_folder
from train.data import node_cache

OTHER = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_is_made_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert mode(private_folder(tmp_path / "a/b")) == 0o700
    finally:
        os.umask(before)


def test_a_folder_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    assert mode(private_folder(tmp_path / "a")) == 0o700


def link(path: Path) -> None:
    path.with_name("victim").mkdir()
    path.symlink_to(path.with_name("victim"))


def theirs(path: Path) -> None:
    path.mkdir()
    os.chown(path, OTHER, OTHER)


def door(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


PLANTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "link": (link, "no folder for you alone"),
    "fifo": (os.mkfifo, "no folder for you alone"),
    "file": (Path.touch, "no folder for you alone"),
    "theirs": (theirs, "belongs to somebody else"),
    "door": (door, "other users may write there"),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("use", ["plain", "download cache", "node cache", "named node cache"])
def test_what_a_neighbour_planted_is_refused_and_not_touched(
    name: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, message = PLANTED[name]
    if name == "theirs" and os.geteuid() != 0:
        pytest.skip("only root gives folders away")
    path = tmp_path / f"slowfast-mix-{os.getuid()}"
    plant(path)
    was = path.lstat()
    monkeypatch.setattr(node_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("SLOWFAST_CACHE", str(path))
    asked: dict[str, Callable[[], object]] = {
        "plain": lambda: private_folder(path),
        "download cache": cache,
        "node cache": lambda: node_cache.this_node("", 1, 0, {}),
        "named node cache": lambda: node_cache.this_node(str(path), 1, 0, {}),
    }
    with pytest.raises(UserError, match=message):
        asked[use]()
    now = path.lstat()
    assert (now.st_mode, now.st_uid) == (was.st_mode, was.st_uid)


def test_a_file_of_the_node_cache_is_no_link_to_a_victim(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x" * 1000)
    (tmp_path / "progress").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        node_cache._numbers(tmp_path / "progress", 3)
    assert victim.stat().st_size == 1000


def test_scratch_lies_where_nobody_else_can_plant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_media.tempfile, "gettempdir", lambda: str(tmp_path))
    os.mkfifo(tmp_path / "slowfast-scratch-fifo")  # opened by a sweep, it would wait for ever
    with open_media.scratch(open_media.disk()) as folder:
        assert mode(folder) == 0o700 and mode(folder.parent) == 0o700
        assert folder.parent.parent == tmp_path
    assert list(folder.parent.iterdir()) == []


def test_a_token_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    for rights in (0o644, 0o640, 0o604):
        token.chmod(rights)
        ray_executor._check_token()  # nobody else can enter the folder that it is in
    for folder in (tmp_path, *tmp_path.parents):
        if mode(folder) & 0o011 != 0o011:
            monkeypatch.setattr(Path, "parents", property(lambda _: ()))
    for rights in (0o644, 0o640, 0o604):
        token.chmod(rights)
        with pytest.raises(UserError, match="other users of this machine can read Ray's token"):
            ray_executor._check_token()
    token.chmod(0o600)
    ray_executor._check_token()
