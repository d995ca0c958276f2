"""What neighbours plant on a shared machine: links, fifos, folders of theirs, open doors."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import generate_and_save_token

from pipeline.fetch.digest_cache import cache
from pipeline.jobs import ray_executor
from pipeline.stages import open_media
from shards import key_index
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


def connected(_: Path) -> None:
    with ray_executor.connect(None):
        pass


def indexed(path: Path) -> None:
    with key_index._one_at_a_time(path):
        pass


USES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "plain": ("own", private_folder),
    "download cache": (".cache/slowfast-mix", lambda _: cache()),
    "named download cache": ("named", lambda _: cache()),
    "node cache": ("slowfast-mix-{uid}", lambda _: node_cache.this_node("", 1, 0, {})),
    "named node cache": ("named", lambda path: node_cache.this_node(str(path), 1, 0, {})),
    "node index": ("index", indexed),
    "scratch on disk": ("slowfast-scratch-{uid}", lambda _: open_media.disk()),
    "Ray's folder": ("ray-{uid}", connected),
}
"""Who asks for a private folder, where in a neighbour's reach it lies, and how it is asked for."""
PLANTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "link": (link, "no folder for you alone"),
    "fifo": (os.mkfifo, "no folder for you alone"),
    "file": (Path.touch, "no folder for you alone"),
    "theirs": (theirs, "belongs to somebody else"),
    "door": (door, "other users may write there"),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("use", USES)
def test_what_a_neighbour_planted_is_refused_and_not_touched(
    name: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, message = PLANTED[name]
    if name == "theirs" and os.geteuid() != 0:
        pytest.skip("only root gives folders away")
    where, ask = USES[use]
    path = tmp_path / where.format(uid=os.geteuid())
    path.parent.mkdir(exist_ok=True)
    plant(path)
    was = path.lstat()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_executor.ray, "init", None)  # never reached
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SLOWFAST_CACHE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with monkeypatch.context() as named:
        if use.startswith("named"):
            named.setenv("SLOWFAST_CACHE", str(path))
        with pytest.raises(UserError, match=message):
            ask(path)
    now = path.lstat()
    assert (now.st_mode, now.st_uid) == (was.st_mode, was.st_uid)
    if name == "link":
        assert list(path.with_name("victim").iterdir()) == []


def test_scratch_in_memory_whose_name_is_taken_goes_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own(folder: Path) -> str:
        if folder == Path("/dev/shm"):
            os.mkfifo(tmp_path / "fifo")
            return str(private_folder(tmp_path / "fifo"))
        return str(private_folder(tmp_path / "own"))

    monkeypatch.setattr(open_media, "_own", own)
    monkeypatch.setattr(open_media, "ROOM", 0)
    assert open_media.memory() == str(tmp_path / "own") and mode(tmp_path / "own") == 0o700


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Ray would have been started with, and the umask and the switch of that moment."""
    found: dict[str, Any] = {}

    def init(**options: object) -> None:
        found.update(options, umask=os.umask(0o077), cluster=ray_constants.ENABLE_RAY_CLUSTER)
        os.umask(found["umask"])
        if options["num_cpus"] is None:
            raise RuntimeError("no")

    monkeypatch.setattr(ray_executor.ray, "init", init)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    return found


@pytest.mark.parametrize("cpus", [2, None], ids=["starts", "fails"])
def test_ray_is_started_for_its_user_alone(
    started: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int | None
) -> None:
    monkeypatch.setattr(ray_executor.os, "cpu_count", lambda: cpus)
    before, routed = os.umask(0o022), ray_constants.ENABLE_RAY_CLUSTER
    try:
        if cpus:
            assert ray_executor._start_privately() == 0o022
        else:
            with pytest.raises(RuntimeError):
                ray_executor._start_privately()
        after = os.umask(0o022)
    finally:
        os.umask(before)
    private = tmp_path / f"ray-{os.geteuid()}"
    assert started["umask"] == 0o077 and after == 0o022
    assert started["_temp_dir"] == str(private / "r") and mode(private) == 0o700
    assert started["address"] == "local" and started["cluster"] is False
    assert ray_constants.ENABLE_RAY_CLUSTER == routed


def test_what_workers_leave_behind_has_the_rights_that_its_user_gives() -> None:
    before = os.umask(0o077)
    try:
        current = ray_executor.RayWorkers(0o027)._remote(lambda: os.umask(0o077), 1)._function()
    finally:
        os.umask(before)
    assert current == 0o027


def test_rays_own_token_is_for_its_user_alone(
    started: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor.ray, "init", lambda **_: generate_and_save_token())
    before = os.umask(0o022)
    try:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        ray_executor._start_privately()
    finally:
        os.umask(before)
    assert mode(tmp_path / ".ray/auth_token") == 0o600


@pytest.mark.parametrize("address", [None, "auto"])
def test_no_ray_is_asked_with_a_token_that_others_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.setattr(ray_executor.ray, "init", None)  # never reached
    monkeypatch.setattr(Path, "parents", property(lambda _: ()))  # nothing closes it to others
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o644)
    with (
        pytest.raises(UserError, match="other users of this machine can read Ray's token"),
        ray_executor.connect(address),
    ):
        pass


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
