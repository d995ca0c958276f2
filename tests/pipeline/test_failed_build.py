"""A build that ends with an error after admission says what became of every record, and why."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest

import pipeline.build
from mixtures.plan.build_manifest import NothingLeft
from pipeline.build import build
from pipeline.jobs import ray_executor
from shards.errors import UserError
from shards.outcome import Books, read_books
from shards.store import Store
from tests.support import small_world
from tests.support.in_process import Here


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small world, built without Ray, into a folder with the manifest of an earlier build."""
    monkeypatch.setattr(ray_executor, "connect", lambda _: nullcontext(Here()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text("{}")
    return small_world.make(tmp_path, pictures=6, films=2)


def fails(recipe: Path, error: type[Exception] = UserError) -> str:
    """The error that a build of the recipe ends with."""
    with pytest.raises(error) as told:
        build(str(recipe), str(recipe.parent / "out"), str(recipe.parent / "pool"))
    return str(told.value)


def accounts(recipe: Path) -> tuple[dict[str, Books], Counter[tuple[str, str]]]:
    """The books by source and how often each source has each code; they must balance."""
    books, tables = read_books(Store(recipe.parent / "out"))
    rows = tables["refused.parquet"].to_pylist()
    refused = Counter(row["source"] for row in rows)
    for one in books:
        one.check(
            one.records_refused, refused[one.source] - one.records_refused - one.not_chosen,
            one.not_chosen,
        )  # fmt: skip
        assert refused[one.source] == one.records_refused + one.samples_refused + one.not_chosen
    return {one.source: one for one in books}, Counter((r["source"], r["code"]) for r in rows)


def page(recipe: Path) -> str:
    return (recipe.parent / "out/report.html").read_text()


def test_a_source_more_than_half_of_which_is_refused_ends_the_build_after_its_books(
    recipe: Path,
) -> None:
    for number in range(6):
        (recipe.parent / f"pictures/{number}.jpg").unlink()
    told = fails(recipe)
    assert "of 12 records of 'pictures' 7 were refused" in told and "max_refused" in told
    books, codes = accounts(recipe)
    assert (books["pictures"].records, books["pictures"].samples_refused) == (12, 7)
    assert books["films"].chosen == 3 and books["films"].drawn == 0
    assert codes["pictures", "MEDIA_MISSING"] == 7
    assert "7 were refused" in page(recipe) and "nowhere.jpg" in page(recipe)
    assert not (recipe.parent / "out/manifest.json").exists()
    text = recipe.read_text().replace("CC0-1.0, weight: 3", "CC0-1.0, max_refused: 0.9, weight: 3")
    recipe.write_text(text)
    built = build(str(recipe), str(recipe.parent / "out"), str(recipe.parent / "pool"))
    assert built.manifest_id == json.loads(
        (recipe.parent / "out/manifest.json").read_text()
    )["manifest_id"]  # fmt: skip


def test_every_source_of_which_nothing_is_left_is_named_with_its_codes_and_an_example(
    recipe: Path,
) -> None:
    for path in [*recipe.parent.glob("pictures/*.jpg"), *recipe.parent.glob("films/*.mp4")]:
        path.write_text(f"<!DOCTYPE html><title>404 {path.name}</title>")
    first, second = fails(recipe, NothingLeft).split("\n")
    assert "nothing of the source 'pictures' is left (11 MEDIA_UNREADABLE (" in first
    assert "1 MEDIA_MISSING (" in first and "e.g. p-missing: " in first
    assert "nothing of the source 'films' is left (3 MEDIA_" in second
    books, codes = accounts(recipe)
    assert codes["pictures", "MEDIA_UNREADABLE"] == 11 and books["films"].samples_refused == 3
    assert not any(one.chosen for one in books.values())
    assert "&#39;films&#39; is left" in page(recipe)
    assert not (recipe.parent / "out/manifest.json").exists()


def test_media_that_were_refused_so_far_stand_in_the_books(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any error after admission, a bug too: what is known is written, the error goes on."""

    def broken(*_: object) -> None:
        raise RuntimeError("the comparison is broken")

    monkeypatch.setattr(pipeline.build, "compare", broken)
    assert fails(recipe, RuntimeError) == "the comparison is broken"
    books, codes = accounts(recipe)
    assert codes["films", "MEDIA_UNREADABLE"] == 1 and codes["pictures", "MEDIA_EMPTY"] == 1
    assert books["pictures"].chosen == 12 - 3
    assert "the comparison is broken" in page(recipe)


def test_what_was_planned_stays_where_only_packing_failed(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(pipeline.build, "pack", full)
    assert fails(recipe) == "the disk is full"
    books, codes = accounts(recipe)
    assert codes["pictures", "DUPLICATE_SAMPLE"] == 1 and books["films"].drawn == 2
    assert json.loads((recipe.parent / "out/manifest.json").read_text())["manifest_id"]
    assert "the disk is full" in page(recipe)
