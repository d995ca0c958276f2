"""What was refused is tried again where a build is told to, and the latest attempt counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixtures.pool.columns import read_clips
from pipeline.failed_build import _broken
from pipeline.jobs import run_stages
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.stages import decode_media, fetch_media, pending
from pipeline.stages.admit_records import SourceUnit, admit
from shards.index import MEMBERS, REFUSED
from shards.outcome import worth_another_try
from shards.pool import Pool
from shards.profile import Profile
from tests.support import small_world
from tests.support.archives import asks
from tests.support.in_process import Here


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Two pictures of a source, both refused: one was too slow, one is no picture."""
    monkeypatch.setenv("SLOWFAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "media").mkdir()
    small_world.picture(tmp_path / "media/0.jpg", 0)
    (tmp_path / "media/1.jpg").write_bytes(b"no picture")
    asks(tmp_path / "a.json", ["0.jpg", "1.jpg"])
    pool = Pool(str(tmp_path / "pool"), Profile())
    admit(
        SourceUnit(
            pool=pool.store.url,
            name="s",
            dataset="d",
            format="llava_json",
            annotations=(str(tmp_path / "a.json"),),
            media=str(tmp_path / "media"),
            licence="MIT",
        )
    )
    for row in pending.wanted_media(pool, pool.receipts("admit")):
        unit = decode_media.MediaUnit(pool=pool.store.url, stage="decode", rows=(row,))
        code = "MEDIA_TOO_SLOW" if row.address.endswith("0.jpg") else "MEDIA_UNREADABLE"
        decode_media.refuse_media(unit, code, "as made")
    return pool


def decoded(pool: Pool, *retry: str) -> dict[str, str]:
    """The outcome of each picture by its name, after a build's decoding."""
    (admitted,) = pool.receipts("admit")
    with steps() as bars:
        job = Job(pool=pool, workers=Here(), bars=bars, retry=frozenset(retry))
        run_stages.decode("decode", {"s": admitted}, job)
    rows = pending.wanted_media(pool, [admitted])
    known = pending.Known(pool, pool.ledger.table("decode")).outcomes([row.clip_id for row in rows])
    return {row.address[-5:]: known[row.clip_id] for row in rows}


def test_media_are_tried_again_if_their_code_is_named(pool: Pool) -> None:
    before = {"0.jpg": "MEDIA_TOO_SLOW", "1.jpg": "MEDIA_UNREADABLE"}
    assert decoded(pool) == before
    assert decoded(pool, "MEDIA_TOO_MUCH_MEMORY") == before
    assert decoded(pool, "MEDIA_TOO_SLOW") == before | {"0.jpg": ""}
    assert len(pool.receipts("decode")) == 3
    # what is no picture is none a second time, and its later refusal counts
    assert decoded(pool, "MEDIA_TOO_SLOW", "MEDIA_UNREADABLE") == before | {"0.jpg": ""}
    assert len(pool.receipts("decode")) == 4
    # plans and the books of a build that failed say the same
    clips = read_clips(pool)
    assert {code for code, _ in clips.why.values()} == {"MEDIA_UNREADABLE"}
    (refusal,) = _broken(pool).values()
    assert refusal["origin"].endswith("1.jpg") and refusal["detail"] != "as made"


def test_addresses_are_asked_again_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(str(tmp_path / "pool"), Profile())
    asked: list[str] = []

    def answers(code: str, *good: str) -> None:
        def linked(url: str) -> dict[str, Any]:
            asked.append(url)
            row = {"name": url, "media_digest": "", "address": "", "code": "", "detail": ""}
            found = {"media_digest": "0" * 64, "address": f"file:{url}"}
            return row | (found if url in good else {"code": code, "detail": ""})

        monkeypatch.setattr(fetch_media, "_linked", linked)

    urls = ("https://a/1", "https://a/2", "https://a/3")
    answers("FETCH_REFUSED", "https://a/1")
    fetch_media.link(fetch_media.LinkUnit(pool=pool.store.url, urls=urls))
    again = {"FETCH_UNREACHABLE"}, {"FETCH_REFUSED"}
    assert not list(fetch_media.again(pool, urls, frozenset(again[0])))
    assert not list(fetch_media.again(pool, ["https://a/1"], frozenset(again[1])))
    (unit,) = fetch_media.again(pool, urls, frozenset(again[1]))
    asked.clear()
    answers("FETCH_UNREACHABLE", "https://a/2")
    fetch_media.link(unit)
    assert asked == ["https://a/2", "https://a/3"]
    (last,) = fetch_media.last_attempts(pool.receipts("link"))
    rows = pool.table([last], "index/members", MEMBERS).to_pylist()
    assert [row["code"] for row in rows] == ["", "", "FETCH_UNREACHABLE"]
    (third,) = fetch_media.again(pool, urls, frozenset(again[0]))
    assert third.attempt == 2


def test_codes_that_may_pass_another_time_are_told(pool: Pool) -> None:
    refused = pool.table(pool.receipts("decode"), "refused", REFUSED)
    told = worth_another_try(refused)
    assert told.endswith("build again with --retry MEDIA_TOO_SLOW") and "1 MEDIA_TOO_SLOW" in told
    assert worth_another_try(refused.slice(0, 0)) == ""
