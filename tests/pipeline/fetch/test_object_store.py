"""Object stores: real servers of S3's protocol and of Google's on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import gcp_storage_emulator.server as gcs
import pytest
from gcsfs.retry import HttpError

from pipeline.fetch import local_files, object_store
from pipeline.fetch.retry import Limits
from pipeline.fetch.url_guard import FetchProblem
from shards.errors import UserError
from shards.retry import Patience
from tests.shards.test_retry import answered
from tests.support.clocks.still import Still
from tests.support.s3_server import s3_server

DATA = bytes(i * i % 251 for i in range(300_000))
BUSY = {"code": 429, "message": "slow down"}
QUICK = Limits(pause=0.01, attempts=3)


@pytest.fixture(scope="module", params=["s3", "gs"])
def scheme(request: pytest.FixtureRequest) -> Iterator[str]:
    """The scheme of a store whose server runs, where its file system finds it."""
    with pytest.MonkeyPatch.context() as patch:
        yield from (s3 if request.param == "s3" else gs)(patch)


def s3(patch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as variables:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield "s3"


def gs(patch: pytest.MonkeyPatch) -> Iterator[str]:
    server = gcs.create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    host, port = server._api._httpd.server_address
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    # or each call asks Google what kind of bucket it is, with credentials that are not here
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    yield "gs"
    server.stop()


@pytest.fixture
def store(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> fsspec.AbstractFileSystem:
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    filesystem = fsspec.filesystem(scheme, skip_instance_cache=True)
    if not filesystem.exists("films"):
        filesystem.mkdir("films")
    for name in ("a/1.tar", "a/2.tar"):
        filesystem.pipe_file(f"films/{name}", DATA + name.encode())
    return filesystem


def test_objects_are_listed_and_fetched(scheme: str, store: fsspec.AbstractFileSystem) -> None:
    films = [f"{scheme}://films/a/{number}.tar" for number in (1, 2)]
    assert local_files.pin(f"{scheme}://films/a/*.tar", "x") == films
    found = local_files.local(films[0])
    assert found.path.read_bytes() == DATA + b"a/1.tar" and found.path.name == "1.tar"
    store.rm_file("films/a/1.tar")
    assert local_files.local(films[0]) == found


@pytest.mark.parametrize(
    "rest", ["films/a::file:///etc/passwd", "key:secret@films/a", "http://169.254.169.254/a"]
)
def test_an_address_names_a_bucket_and_no_server(scheme: str, rest: str) -> None:
    with pytest.raises(UserError, match="not of the form s3://BUCKET/NAME"):
        object_store.pin(f"{scheme}://{rest}")


def busy(
    monkeypatch: pytest.MonkeyPatch, scheme: str, method: str, errors: list[Exception]
) -> None:
    """The first calls of a method of the store's file system raise these."""
    filesystem = fsspec.filesystem(scheme)
    original = getattr(filesystem, method)

    def fails(*values: object, **options: object) -> object:
        if errors:
            raise errors.pop(0)
        return original(*values, **options)

    monkeypatch.setattr(filesystem, method, fails)


@pytest.mark.parametrize("method", ["glob", "info", "cat_file"])
def test_a_store_that_is_busy_is_waited_for(
    scheme: str,
    store: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    method: str,
) -> None:
    still = Still()
    monkeypatch.setattr(object_store, "PATIENCE", Patience(clock=still.clock))
    errors = [answered(503, **{"Retry-After": "7"}), TimeoutError("slow down"), HttpError(BUSY)]
    busy(monkeypatch, scheme, method, errors)
    (first, _) = object_store.pin(f"{scheme}://films/a/*.tar")
    object_store.download(first, tmp_path / "part", Limits(clock=still.clock))
    assert (tmp_path / "part").read_bytes() == DATA + b"a/1.tar"
    assert not errors and still.pauses == [7, 2, 4]


def test_a_part_is_continued_while_the_object_is_the_same(
    scheme: str, store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PIECE", 100_000)
    part = tmp_path / "part"
    asked: list[int] = []
    filesystem = fsspec.filesystem(scheme)
    original = filesystem.cat_file

    def cat_file(path: str, start: int, end: int) -> bytes:
        asked.append(start)
        if len(asked) == 3:
            raise TimeoutError("the line is dead")
        return bytes(original(path, start=start, end=end))

    monkeypatch.setattr(filesystem, "cat_file", cat_file)
    object_store.download(f"{scheme}://films/a/2.tar", part, QUICK)
    assert part.read_bytes() == DATA + b"a/2.tar"
    assert asked == [0, 100_000, 200_000, 200_000, 300_000]


def test_a_part_whose_note_is_damaged_is_read_from_its_beginning(
    scheme: str, store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    part.write_bytes(DATA[:100_000][::-1])
    part.with_name("part.version").write_bytes(b'"torn')
    object_store.download(f"{scheme}://films/a/2.tar", part, QUICK)
    assert part.read_bytes() == DATA + b"a/2.tar" and list(tmp_path.glob("part*")) == [part]


def test_an_object_that_changes_is_read_again(
    scheme: str, store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PIECE", 200_000)
    filesystem, calls = fsspec.filesystem(scheme), []
    original = filesystem.cat_file

    def cat_file(path: str, start: int, end: int) -> bytes:
        calls.append(start)
        if len(calls) == 2:
            store.pipe_file(path, DATA[::-1])
        return bytes(original(path, start=start, end=end))

    monkeypatch.setattr(filesystem, "cat_file", cat_file)
    object_store.download(f"{scheme}://films/a/2.tar", tmp_path / "part", QUICK)
    assert (tmp_path / "part").read_bytes() == DATA[::-1]


def test_what_cannot_be_had_is_refused(
    scheme: str, store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no object fits"):
        local_files.pin(f"{scheme}://films/*.zip", "x")
    with pytest.raises(FetchProblem) as caught:
        object_store.download(f"{scheme}://films/gone", tmp_path / "part", QUICK)
    assert caught.value.code == "FETCH_REFUSED"
    with pytest.raises(FetchProblem) as caught:
        object_store.download(
            f"{scheme}://films/a/1.tar", tmp_path / "part", Limits(max_bytes=1000)
        )
    assert caught.value.code == "FETCH_TOO_BIG"


def test_a_store_whose_package_is_not_there_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UserError, match=r"gs://bucket/\*\.tar: Please install gcsfs"):
        local_files.pin("gs://bucket/*.tar", "x")


def test_a_store_that_does_not_answer_is_said_in_one_line(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Locked(Exception):
        """What clients of stores raise is seldom an OSError."""

    def locked(*_: object) -> None:
        raise Locked("Unable to locate credentials")

    still = Still()
    monkeypatch.setattr(object_store, "PATIENCE", Patience(clock=still.clock))
    monkeypatch.setattr(fsspec.filesystem(scheme), "glob", locked)
    with pytest.raises(UserError, match=r"Unable to locate credentials; check its credentials"):
        local_files.pin(f"{scheme}://films/*.tar", "x")
