"""The catalogue and the two recipes over it: complete, and honest about what is missing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Source
from pipeline.fetch import hub, local_files
from pipeline.sources import FORMATS, MAPPED
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.catalogue import catalogue, completed
from pipeline.sources.pin import pin
from shards.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "mixtures").glob("sf_llava_1_5_*.yaml"))


def source(**values: object) -> Source:
    return Source(**({"name": "s", "dataset": "llava-hound", "licence": "Apache-2.0"} | values))  # type: ignore[arg-type]


def test_every_entry_says_licence_and_how_sure_it_is() -> None:
    entries = catalogue()
    assert len(entries) > 50
    for entry in entries.values():
        assert entry.licence and entry.kind in ("image", "video") and entry.task
        assert entry.sure in ("verified", "computed", "recalled")
        assert not entry.annotations or entry.format in FORMATS
        for address in (*entry.annotations, *(archive.at for archive in entry.archives)):
            known = address.replace("{id}", entry.ids[0])
            if known.startswith("hf://"):
                assert hub.parse(known).path
            else:
                assert local_files.pin(known, "archives") == [known]
    used = {entry.format for entry in entries.values()} - {""}
    assert set(FORMATS) - used <= {"sharegpt_messages", *MAPPED, *BENCHMARKS}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "table"}, "a table needs `answer`"),
        ({"format": "table", "columns": (("question", ("q",)),)}, "a table needs `answer`"),
        (
            {"format": "table", "columns": (("answer", ("a",)), ("messages", ("m",)))},
            "a table needs `answer`",
        ),
        ({"columns": (("answer", ("a",)),)}, "columns: only of formats table, webdataset"),
    ],
)
def test_columns_are_named_where_they_mean_something(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        completed(source(**values), "r.yaml")


def test_ids_repeat_by_the_catalogue_or_by_the_recipe() -> None:
    own = next(name for name, entry in catalogue().items() if entry.ids_repeat)
    entry = catalogue()[own]
    told = source(dataset=own, licence=entry.licence, annotations=("a.json",), format="llava_json")
    assert completed(told, "r.yaml").ids_repeat
    mine = source(dataset="my/own", annotations=("a.json",), format="llava_json")
    assert not completed(mine, "r.yaml").ids_repeat
    assert completed(replace(mine, ids_repeat=True), "r.yaml").ids_repeat


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_are_complete_over_the_catalogue(path: Path) -> None:
    recipe = load_recipe(path)
    assert len(recipe.sources) > 30
    for each in recipe.sources:
        full = completed(each, str(path))
        assert full.format in FORMATS and full.annotations
        kind = catalogue()[each.dataset].kind
        assert full.archives or full.format == "parquet_images", (each.name, kind)


def test_the_second_stage_holds_the_images_of_the_first() -> None:
    first, second = ({each.name for each in load_recipe(path).sources} for path in RECIPES)
    assert first < second


def test_a_source_takes_from_the_catalogue_what_it_leaves_out() -> None:
    full = completed(source(), "r.yaml")
    assert full.format == "llava_hound" and full.archives
    own = completed(source(media="here", annotations=("a.jsonl",)), "r.yaml")
    assert own.archives == () and own.annotations == ("a.jsonl",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "llava-hounds"}, r"r\.yaml: s: dataset 'llava-hounds'.*mean 'llava-hound'"),
        ({"licence": "MIT"}, "catalogue says 'Apache-2.0'"),
        ({"dataset": "next-qa", "licence": "MIT"}, "name your copy as `annotations`"),
    ],
)
def test_what_the_catalogue_cannot_complete_is_said(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        completed(source(**values), "r.yaml")


def test_the_fallback_id_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pin_address(address: str, _: str) -> list[str]:
        asked.append(hub.parse(address).repo)
        if len(asked) == 1:
            raise hub.HubMissingError("gone")
        return [address]

    monkeypatch.setattr(local_files, "pin", pin_address)
    one = replace(source(), dataset="llava-onevision-data")
    found = pin(one, "r.yaml")
    assert asked == list(catalogue()["llava-onevision-data"].ids)
    assert asked[1] in found.annotations[0]


def test_the_command_lists_licence_gating_and_size() -> None:
    command = [sys.executable, "-m", "pipeline", "sources"]
    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env={"COLUMNS": "200"}
    ).stdout
    for word in ("llava-hound", "CC-BY-NC-4.0", "gated", "133 GB", "next-qa", "finevideo"):
        assert word in said
