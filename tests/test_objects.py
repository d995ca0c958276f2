"""Object stores: a real S3 protocol server on loopback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from pipeline import fetch, objects
from pipeline.addresses import FetchProblem
from pipeline.download import Limits
from shards.errors import UserError

DATA = bytes(i * i % 251 for i in range(300_000))
QUICK = Limits(pause=0.01, attempts=3)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> fsspec.AbstractFileSystem:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    if not filesystem.exists("films"):
        filesystem.mkdir("films")
    for name in ("a/1.tar", "a/2.tar"):
        filesystem.pipe_file(f"films/{name}", DATA + name.encode())
    return filesystem


def test_objects_are_listed_and_fetched(store: fsspec.AbstractFileSystem) -> None:
    assert fetch.pin("s3://films/a/*.tar", "x") == ["s3://films/a/1.tar", "s3://films/a/2.tar"]
    found = fetch.local("s3://films/a/1.tar")
    assert found.path.read_bytes() == DATA + b"a/1.tar" and found.path.name == "1.tar"
    store.rm_file("films/a/1.tar")
    assert fetch.local("s3://films/a/1.tar") == found


def test_a_part_is_continued_while_the_object_is_the_same(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE", 100_000)
    part = tmp_path / "part"
    asked: list[int] = []
    filesystem = fsspec.filesystem("s3")
    original = filesystem.cat_file

    def cat_file(path: str, start: int, end: int) -> bytes:
        asked.append(start)
        if len(asked) == 3:
            raise TimeoutError("the line is dead")
        return bytes(original(path, start=start, end=end))

    monkeypatch.setattr(filesystem, "cat_file", cat_file)
    objects.download("s3://films/a/2.tar", part, QUICK)
    assert part.read_bytes() == DATA + b"a/2.tar"
    assert asked == [0, 100_000, 200_000, 200_000, 300_000]


def test_an_object_that_changes_is_read_again(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE", 200_000)
    filesystem, calls = fsspec.filesystem("s3"), []
    original = filesystem.cat_file

    def cat_file(path: str, start: int, end: int) -> bytes:
        calls.append(start)
        if len(calls) == 2:
            store.pipe_file(path, DATA[::-1])
        return bytes(original(path, start=start, end=end))

    monkeypatch.setattr(filesystem, "cat_file", cat_file)
    objects.download("s3://films/a/2.tar", tmp_path / "part", QUICK)
    assert (tmp_path / "part").read_bytes() == DATA[::-1]


def test_what_cannot_be_had_is_refused(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no object fits"):
        fetch.pin("s3://films/*.zip", "x")
    with pytest.raises(FetchProblem) as caught:
        objects.download("s3://films/gone", tmp_path / "part", QUICK)
    assert caught.value.code == "FETCH_REFUSED"
    with pytest.raises(FetchProblem) as caught:
        objects.download("s3://films/a/1.tar", tmp_path / "part", Limits(max_bytes=1000))
    assert caught.value.code == "FETCH_TOO_BIG"


def test_a_store_whose_package_is_not_there_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UserError, match=r"gs://bucket/\*\.tar: Please install gcsfs"):
        fetch.pin("gs://bucket/*.tar", "x")
