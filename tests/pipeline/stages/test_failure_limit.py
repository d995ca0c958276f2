"""What is stopped: a source whose media fail in a row, and a medium that kills its worker."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline.build
from mixtures.recipe.load import load_recipe
from pipeline.jobs import ray_executor, run_stages
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.sources import pin
from pipeline.stages import admit_records, failure_limit, pending
from pipeline.stages.failure_limit import FailureLimit
from shards.errors import UserError
from shards.index import CLIPS, REFUSED
from shards.outcome import DEATHS
from shards.pool import Pool
from tests.support import small_world
from tests.support.in_process import Here, archived, gathered
from tests.support.small_world import books_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen pictures of which every other is a web page, in units of four; a limit of eight."""
    recipe = small_world.make(tmp_path, pictures=16)
    for number in range(0, 16, 2):
        page = f"<!DOCTYPE html><title>{number}</title>"
        (tmp_path / f"pictures/{number}.jpg").write_text(page)
    monkeypatch.setattr(pending, "IMAGES_PER_PART", 4)
    monkeypatch.setattr(failure_limit, "WINDOW", 8)
    return recipe


def decoded(recipe_path: Path) -> tuple[FailureLimit, Pool]:
    """Admit and decode as a build does."""
    recipe = load_recipe(recipe_path)
    pool = Pool(str(recipe_path.parent / "pool"), recipe.profile)
    pinned = [pin.pin(source, str(recipe_path)) for source in recipe.sources]
    admitted = {
        each.source.name: admit_records.admit(run_stages.source_unit(each, None, pool))
        for each in pinned
    }
    limit = FailureLimit({source.name: source.max_refused for source in recipe.sources})
    with steps() as bars:
        job = Job(pool=pool, workers=Here(), bars=bars, failure_limit=limit)
        run_stages.decode("decode", admitted, job)
    return limit, pool


def judged(pool: Pool) -> tuple[set[str], set[str]]:
    """(clips decoded, clips refused)."""
    receipts = pool.receipts("decode")
    clips = pool.table(receipts, "index/clips", CLIPS)["clip_id"].to_pylist()
    return set(clips), set(pool.table(receipts, "refused", REFUSED)["key"].to_pylist())


def test_a_source_that_fails_in_a_row_is_stopped_and_the_others_are_not(world: Path) -> None:
    limit, pool = decoded(world)
    with pytest.raises(UserError, match=r"of 8 media of 'pictures' in a row \d were refused with"):
        limit.check("recipe.yaml")
    clips, refused = judged(pool)
    assert len(clips | refused) == 8 + 6  # two units of pictures, and all films
    again, _ = decoded(world)
    assert again.stopped == limit.stopped and judged(pool) == (clips, refused)


def test_what_a_person_allows_is_decoded_to_its_end(world: Path) -> None:
    text = world.read_text().replace("CC0-1.0, weight: 3", "CC0-1.0, max_refused: 0.9, weight: 3")
    world.write_text(text)
    limit, pool = decoded(world)
    limit.check("recipe.yaml")
    assert sum(map(len, judged(pool))) == 16 + 4 + 6


@given(st.lists(st.sampled_from(["", "", "", "A", "B"]), max_size=60), st.fractions(0, 1))
def test_a_fuse_blows_where_a_window_holds_too_many_of_one_code(
    codes: list[str], bound: Fraction
) -> None:
    window = 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failure_limit, "WINDOW", window)
        patch.setattr(failure_limit, "CODES", {"A": "a", "B": "b"})
        limit = FailureLimit({"s": bound})
        for code in codes:
            limit.note("s", code)
            limit.note("somebody else's", "A")
    windows = [codes[start : start + window] for start in range(len(codes) - window + 1)]
    expected = any(held.count(code) > bound * window for held in windows for code in "AB")
    assert bool(limit.stopped) == expected
    assert limit.lets_pass({"s"}) != expected and limit.lets_pass({"s", "other"})


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "IMAGES_PER_PART", 2)
    monkeypatch.setattr(failure_limit, "WINDOW", 8)


@pytest.mark.usefixtures("small_window")
def test_a_source_is_stopped_within_an_archive_and_its_neighbour_is_not(tmp_path: Path) -> None:
    recipe = archived(tmp_path, each=16, shared="0")
    limit, pool, whole = gathered(recipe)
    assert list(limit.stopped) == ["bad"] and whole == 0
    clips, refused = judged(pool)
    assert (len(clips), len(refused)) == (8, 4)  # of `bad` eight in a row, of `good` all
    again, _, _ = gathered(recipe)
    assert again.stopped == limit.stopped and judged(pool) == (clips, refused)
    recipe.write_text(recipe.read_text().replace("max_refused: 0.2", "max_refused: 0.5"))
    allowed, _, whole = gathered(recipe)
    assert not allowed.stopped and whole == 1 and len(set.union(*judged(pool))) == 16


@pytest.mark.usefixtures("small_window")
def test_no_further_archive_of_a_stopped_source_is_read(tmp_path: Path) -> None:
    limit, pool, whole = gathered(archived(tmp_path, each=4, shared="0"))
    assert list(limit.stopped) == ["bad"] and whole == 2
    assert len(set.union(*judged(pool))) == 8  # the window, over two archives


@pytest.mark.usefixtures("small_window")
def test_a_stopped_source_gets_nothing_more_of_an_archive_that_it_shares(tmp_path: Path) -> None:
    limit, pool, whole = gathered(archived(tmp_path, each=4, shared="*"))
    assert list(limit.stopped) == ["bad"] and whole == 2
    clips, refused = judged(pool)
    assert (len(clips), len(refused)) == (8, 4)


@pytest.fixture
def mostly_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe eleven of whose pictures are not there, of more than a limit of sixteen holds."""
    recipe = small_world.make(tmp_path, pictures=16)
    for number in range(10):
        (tmp_path / f"pictures/{number}.jpg").unlink()
    monkeypatch.setattr(failure_limit, "WINDOW", 16)
    monkeypatch.setattr(ray_executor, "connect", lambda _: nullcontext(Here()))
    return recipe


LACKING = r"of \d+ records of 'pictures' 11 were refused with MEDIA_MISSING"


def test_a_source_most_of_whose_media_are_missing_is_stopped_before_any_decoding(
    mostly_missing: Path, tmp_path: Path
) -> None:
    words = [str(mostly_missing), str(tmp_path / "out"), str(tmp_path / "pool")]
    with pytest.raises(UserError, match=f"{LACKING} .*max_refused"):
        pipeline.build.build(*words)
    assert not Pool(words[2]).receipts("decode") and not (tmp_path / "out/manifest.json").exists()


@pytest.mark.parametrize(("bound", "window", "told"), [("0.2", 100, True), ("0.9", 16, False)])
def test_few_missing_media_are_told_and_allowed_ones_are_not(
    mostly_missing: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bound: str,
    window: int,
    told: bool,
) -> None:
    monkeypatch.setattr(failure_limit, "WINDOW", window)
    recipe = load_recipe(mostly_missing)
    pool = Pool(str(mostly_missing.parent / "pool"), recipe.profile)
    limit = FailureLimit({source.name: Fraction(bound) for source in recipe.sources})
    with steps() as bars:
        job = Job(pool=pool, workers=Here(), bars=bars, failure_limit=limit)
        run_stages.admit([pin.pin(one, "recipe") for one in recipe.sources], {}, job, "admit")
    assert not limit.stopped and bool(re.search(LACKING, capsys.readouterr().err)) == told


@pytest.mark.parametrize(
    ("refused", "records", "bound", "window", "stopped", "told"),
    [
        ({"A": 3}, 5, "0.2", 1000, True, ""),  # more than half, however few
        ({"A": 2, "B": 1}, 5, "0.2", 1000, True, ""),
        ({"A": 3}, 5, "0.6", 1000, False, ""),
        ({"A": 3}, 5, "0.59", 1000, True, ""),
        ({"A": 5}, 10, "0.2", 1000, False, "of 10 records of 's' 5 were refused with A"),
        ({"A": 5}, 10, "0.2", 10, True, ""),
        ({"A": 2, "B": 2}, 10, "0.2", 10, False, ""),
        ({"ROW_DUPLICATE": 5}, 10, "0.2", 10, False, ""),
        ({"ROW_DUPLICATE": 6}, 10, "0.2", 10, True, ""),
        ({}, 0, "0", 10, False, ""),
    ],
)
def test_the_records_that_admission_refused_are_weighed(
    monkeypatch: pytest.MonkeyPatch,
    refused: dict[str, int],
    records: int,
    bound: str,
    window: int,
    stopped: bool,
    told: str,
) -> None:
    monkeypatch.setattr(failure_limit, "WINDOW", window)
    monkeypatch.setattr(failure_limit, "CODES", {"A": "a", "B": "b"})
    limit = FailureLimit({"s": Fraction(bound)})
    assert (
        limit.weigh("s", refused, records).startswith(told or "") and bool(limit.stopped) == stopped
    )
    assert not limit.weigh("somebody else's", refused, records)


KILLER = """
import os, signal, sys
from pipeline.stages import decode_media

decode, log = decode_media.decode, sys.argv.pop()

def dies_of_poison(unit):
    if any(row.address.endswith("/3.jpg") for row in unit.rows):
        with open(log, "a") as file:
            file.write(f"{len(unit.rows)}\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(unit)

decode_media.decode = dies_of_poison
from pipeline.__main__ import main
main()
"""


@pytest.mark.timeout(300)
def test_a_medium_that_kills_its_worker_is_refused_and_its_neighbours_are_kept(
    tmp_path: Path,
) -> None:
    recipe, out, log = small_world.make(tmp_path), tmp_path / "out", tmp_path / "log"
    words = ["build", str(recipe), "--out", str(out), str(log)]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert log.read_text().split() == ["18"] * DEATHS + ["1"] * DEATHS
    pictures = books_of(out)["pictures"]
    assert [pictures[name] for name in ("samples_refused", "not_chosen", "chosen")] == [4, 2, 14]
    pool = Pool(str(out / "pool"))
    rows = pool.table(pool.receipts("decode"), "refused", REFUSED).to_pylist()
    killers = [row["origin"] for row in rows if row["code"] == "MEDIA_KILLED_WORKER"]
    assert [origin.rpartition("/")[2] for origin in killers] == ["3.jpg"]
