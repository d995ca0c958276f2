"""A recipe.lock.json is enough to come to the same manifest, elsewhere too, or to hear why not."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import pipeline.build
import pipeline.rebuild
from mixtures.manifest.files import LOCK
from pipeline.build import build
from pipeline.jobs import ray_executor
from pipeline.lock import differing, read_lock
from pipeline.rebuild import moved, rebuild
from shards.errors import DamagedData, UserError
from tests.support import small_world
from tests.support.in_process import Here


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`OUT` and `POOL` of a build without Ray, and its data beside them."""
    root = tmp_path_factory.mktemp("world")
    recipe = small_world.make(root, pictures=4, films=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "connect", lambda _: nullcontext(Here()))
        build(str(recipe), str(root / "out"), str(root / "pool"), with_shards=False)
    return root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray, from a folder without data: what may be named is the --root that is given."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(ray_executor, "connect", lambda _: nullcontext(Here()))


def test_another_folder_and_an_empty_pool_give_the_same_manifest(
    world: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("pictures", "films", "exam"):
        shutil.copytree(world / name, elsewhere / name)
        shutil.copy(world / f"{name}.json", elsewhere)
    shutil.copy(world / "tokenizer.json", elsewhere)
    lock = shutil.copy(world / "out" / LOCK, tmp_path)
    roots = {str(world): str(elsewhere)}
    built = rebuild(str(lock), str(tmp_path / "pool"), str(tmp_path / "again"), roots)
    assert built.manifest_id == read_lock(Path(lock)).manifest_id
    assert not list(differing(read_lock(Path(lock)), read_lock(tmp_path / "again" / LOCK)))
    assert str(world) not in (tmp_path / "again/recipe.yaml").read_text()
    # a medium that is another one since, under the same name
    shutil.copy(elsewhere / "pictures/1.jpg", elsewhere / "pictures/2.jpg")
    with pytest.raises(UserError, match=r"became .*: pictures: its records are the same, media"):
        rebuild(str(lock), str(tmp_path / "pool"), str(tmp_path / "again"), roots)


def test_an_annotation_file_that_is_another_one_is_named_before_any_work(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.build, "build", pytest.fail)
    shutil.copytree(world, tmp_path / "w")
    rows = json.loads((tmp_path / "w/films.json").read_text())
    (tmp_path / "w/films.json").write_text(json.dumps(rows[:-1]))
    words = str(world / "out" / LOCK), str(tmp_path / "pool"), str(tmp_path / "out")
    with pytest.raises(UserError, match=r"films: .*/w/films\.json: not the bytes that were locked"):
        rebuild(*words, {str(world): str(tmp_path / "w")})
    with pytest.raises(UserError, match=r"(?s)gone/tokenizer\.json: no such file.*--root OLD=NEW"):
        rebuild(*words, {str(world): str(tmp_path / "gone")})
    with pytest.raises(UserError, match=r"(?s)is outside the recipe's folder.*--root OLD=NEW"):
        rebuild(*words, {})


def test_another_ffmpeg_is_said_first(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pipeline.rebuild, "ffmpeg_build", lambda: "ffmpeg 99")
    words = str(world / "out" / LOCK), str(world / "pool"), str(tmp_path)
    built = rebuild(*words, {}, allowed=[str(world)])
    assert "here is ffmpeg 99: clips that the pool lacks may come" in capsys.readouterr().err
    assert built.manifest_id == read_lock(world / "out" / LOCK).manifest_id


def test_a_lock_says_all_addresses_and_no_manifest_does(world: Path) -> None:
    lock = read_lock(world / "out" / LOCK)
    assert [one.name for one in lock.sources] == ["pictures", "films"]
    assert [one.name for one in lock.held_out] == ["exam"]
    assert lock.sources[0].files[0][0] == str(world / "pictures.json")
    assert lock.ffmpeg.startswith("ffmpeg ") and lock.leaks == ""
    assert str(world) not in (world / "out/manifest.json").read_text()
    changed = replace(lock, sources=[replace(lock.sources[0], media="x"), lock.sources[1]])
    assert list(differing(lock, changed)) == [
        "pictures: its records are the same, media that they name are others"
    ]


def test_a_lock_that_is_damaged_or_not_there_is_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not there; a build writes it"):
        read_lock(tmp_path / LOCK)
    data = (world / "out" / LOCK).read_bytes()
    (tmp_path / LOCK).write_bytes(data.replace(b"pictures.json", b"pictures.jsom"))
    with pytest.raises(DamagedData, match=r"recipe\.lock\.json: not as it was written"):
        read_lock(tmp_path / LOCK)


def test_a_root_is_the_beginning_of_a_path() -> None:
    tree = {"a": ["/data/x/1", "/database/y", "hf://o/n"], "b": {"c": "/data", "d": 3}}
    assert moved(tree, {"/data/": "/new"}) == {
        "a": ["/new/x/1", "/database/y", "hf://o/n"],
        "b": {"c": "/new", "d": 3},
    }
