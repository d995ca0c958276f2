"""Dataset repositories: pinned to a commit, fetched whole and checked, refusals in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipeline.fetch import hub, local_files
from shards.errors import UserError
from shards.ids import sha256_hex, short_hash
from shards.retry import Patience
from tests.support.clocks.still import Still
from tests.support.fake_hub import COMMIT, REPO, Hub, serve

TAR = bytes(i * i % 251 for i in range(300_000))
FILES = {
    "data/train.json": b"[]",
    "v/a_videos_1.tar.gz": TAR,
    "v/a_videos_2.tar.gz": TAR[::-1],
    "ai2d(cauldron,llava_format)/train.parquet": b"PAR1" + TAR,
}

QUICK = Patience(pause=0.01, longest_pause=0.05, attempts=3)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(dict(FILES)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "right")
        monkeypatch.setattr(hub, "PATIENCE", QUICK)
        monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
        yield server


def address(path: str, revision: str = COMMIT, repo: str = REPO) -> str:
    return f"hf://datasets/{repo}{f'@{revision}' if revision else ''}/{path}"


@pytest.mark.parametrize("revision", ["", "main", COMMIT])
def test_an_address_is_pinned_to_its_commit(server: Hub, revision: str) -> None:
    assert local_files.pin(address("data/train.json", revision), "x") == [
        address("data/train.json")
    ]


def test_a_pattern_becomes_its_files(server: Hub) -> None:
    found = local_files.pin(address("v/*_videos_*.tar.gz", ""), "x")
    assert found == [address(f"v/a_videos_{i}.tar.gz") for i in (1, 2)]
    odd = local_files.pin(address("*/train.parquet", ""), "x")
    assert odd == [address("ai2d(cauldron,llava_format)/train.parquet")]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_fetched_once_and_named_by_its_content(server: Hub, name: str) -> None:
    found = local_files.local(address(name))
    assert found.path.read_bytes() == FILES[name] and found.digest == sha256_hex(FILES[name])
    assert found.path.parent.name == found.digest and found.path.name == Path(name).name
    before = server.calls.total()
    assert local_files.local(address(name)) == found and server.calls.total() == before


def flipped(path: Path, bit: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["file", "entry", "name", "digest", "other entry", "no json"])
def test_what_was_fetched_and_is_no_longer_whole_is_fetched_again(
    server: Hub, tmp_path: Path, what: str
) -> None:
    first, second = (address(f"v/a_videos_{i}.tar.gz") for i in (1, 2))
    found, _ = local_files.local(first), local_files.local(second)
    folder = tmp_path / "cache/addresses"
    entry = folder / f"{short_hash(first)}.json"
    value = local_files._ENTRY.unseal(entry.read_bytes(), "here")
    changes: dict[str, Callable[[], object]] = {
        "file": lambda: flipped(found.path),
        "entry": lambda: flipped(entry),
        "name": lambda: entry.write_bytes(local_files._ENTRY.seal(value | {"name": "../../x"})),
        "digest": lambda: entry.write_bytes(local_files._ENTRY.seal(value | {"digest": "../.."})),
        "other entry": lambda: shutil.copy(folder / f"{short_hash(second)}.json", entry),
        "no json": lambda: entry.write_bytes(b"{"),
    }
    changes[what]()
    before = server.calls.total()
    assert local_files.local(first) == found and server.calls.total() > before
    assert found.path.read_bytes() == TAR


def test_a_dropped_connection_is_resumed(server: Hub) -> None:
    server.drops.add("v/a_videos_1.tar.gz")
    assert local_files.local(address("v/a_videos_1.tar.gz")).path.read_bytes() == TAR
    (text,) = {text for text in server.ranges if text}
    assert 0 < int(text.removeprefix("bytes=").rstrip("-")) <= 150_000


def test_bytes_that_are_not_the_hubs_are_refused(server: Hub, tmp_path: Path) -> None:
    server.lies["v/a_videos_1.tar.gz"] = b"?" + TAR[1:]
    with pytest.raises(UserError, match=r"FETCH_CHANGED: sha256 .*the hub names"):
        local_files.local(address("v/a_videos_1.tar.gz"))
    server.lies["v/a_videos_1.tar.gz"] = TAR[:390]
    with pytest.raises(UserError, match=r"390 bytes, the publisher names 300000"):
        local_files.local(address("v/a_videos_1.tar.gz"))
    assert not list((tmp_path / "cache").glob("files/*/*"))
    server.lies.clear()
    assert local_files.local(address("v/a_videos_1.tar.gz")).path.read_bytes() == TAR


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (address("data/train.json", "", "maker/nothing"), "no such dataset .*ids move"),
        (address("data/train.json", "v9"), "no such revision"),
        (address("data/*.csv"), "no file of commit 0123.* fits the pattern"),
        ("hf://maker/films/data.json", "not of the form hf://datasets/"),
        (address("../etc/passwd"), "not of the form"),
        (address("a.json", ".."), "not of the form"),
        (address("a.json", "", "../films"), "not of the form"),
        (address("a.json", "", "maker/.."), "not of the form"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(server: Hub, what: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        local_files.pin(what, "x")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said_when_it_is_fetched(server: Hub) -> None:
    with pytest.raises(UserError, match="no such file at this revision"):
        local_files.local(address("data/test.json"))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_hub_that_recovers_is_waited_for(server: Hub, status: int, method: str) -> None:
    """A 503 on the first question (the commit), on the second (the file's head), on the bytes."""
    server.busy = {method: [status] * 2}
    hub._COMMITS.clear()
    (pinned,) = local_files.pin(address("data/train.json", ""), "x")
    assert local_files.local(pinned).path.read_bytes() == b"[]" and not server.busy[method]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize(
    "headers",
    [{"Retry_After": "7"}, {"RateLimit": '"api";r=0;t=7'}],
    ids=["Retry-After", "RateLimit"],
)
def test_a_listing_is_waited_for_as_long_as_the_hub_asks(
    server: Hub, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str]
) -> None:
    still = Still()
    monkeypatch.setattr(hub, "PATIENCE", Patience(clock=still.clock))
    server.busy, server.headers = {"GET": [status] * 2}, headers
    assert len(local_files.pin(address("v/*.tar.gz"), "x")) == 2 and still.pauses == [7, 7]


@pytest.mark.parametrize("error", [httpx2.ReadTimeout, httpx2.ConnectError, httpx2.ReadError])
def test_no_answer_in_time_is_asked_for_again_and_every_question_has_a_time(
    server: Hub, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    still, times, original = Still(), [], httpx2.Client.request
    monkeypatch.setattr(hub, "PATIENCE", Patience(clock=still.clock))
    hub._COMMITS.clear()

    def slow(*values: object, **options: Any) -> httpx2.Response:
        times.append(options.get("timeout"))
        if len(times) % 3:
            raise error("no answer")
        return original(*values, **options)

    monkeypatch.setattr(httpx2.Client, "request", slow)
    (found,) = local_files.pin(address("data/*.json", ""), "x")
    hub.request(found)
    assert still.pauses == [1, 2] * 3  # for the commit, the listing and the head of a file
    assert len(times) == 9 and None not in times


def test_a_hub_that_asks_for_a_year_is_not_waited_for_so_long(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = Still()
    monkeypatch.setattr(hub, "PATIENCE", Patience(clock=still.clock))
    server.busy, server.headers = {"GET": [503] * 99}, {"Retry_After": str(365 * 24 * 3600)}
    with pytest.raises(UserError, match="it answers 503"):
        local_files.pin(address("v/*.tar.gz"), "x")
    assert still.pauses == [300] * 5


@pytest.mark.parametrize(("status", "times"), [(503, 99), (429, 99), (403, 1), (418, 1)])
def test_a_hub_that_does_not_recover_ends_the_build_in_one_line(
    server: Hub, status: int, times: int
) -> None:
    server.busy = {"HEAD": [status] * times}
    with pytest.raises(UserError, match=rf"the hub at http://127.*fails: .*{status}"):
        local_files.local(address("v/a_videos_1.tar.gz"))
    assert server.busy["HEAD"] == [] if times == 1 else len(server.busy["HEAD"]) == times - 3


@pytest.mark.parametrize("odd", ["²", "1" * 5000, "\x1b[2J", "-7", "Mon, 31 Feb"])
def test_a_hub_that_answers_nonsense_is_said(server: Hub, odd: str) -> None:
    server.busy = {"HEAD": [429] * 9}
    server.headers = {"Retry_After": odd, "RateLimit": f'"api";r=0;t={odd}', "X_Error_Message": odd}
    with pytest.raises(UserError, match="the hub at") as caught:
        local_files.local(address("v/a_videos_1.tar.gz"))
    assert "\x1b" not in str(caught.value)


def test_a_gated_dataset_names_the_remedy(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.gated = True
    assert local_files.pin(address("data/train.json", ""), "x")
    hub._COMMITS.clear()
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match=rf"accept its terms at {server.url}/datasets/{REPO} and"):
        local_files.pin(address("data/train.json", ""), "x")


def test_a_hub_that_is_down_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "PATIENCE", QUICK)
    with pytest.raises(UserError, match=r"the hub at http://127\.0\.0\.1:9 fails"):
        hub.pin(address("data/train.json", ""))
