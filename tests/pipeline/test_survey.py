"""A folder of one's own: which format reads each file, where media lie, the recipe of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.recipe.load import load_recipe
from pipeline.checks import checked
from pipeline.first_recipe import PRESETS, QWEN, write_recipe
from pipeline.survey import Survey, survey
from shards.errors import UserError
from tests.support.archives import tarred
from tests.support.small_world import row


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def written(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def as_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


ROWS = [row(f"p{n}", "image", f"{n}.jpg", f"What is {n}?", "this") for n in range(4)]


def llava(folder: Path) -> None:
    written(folder / "a.json", ROWS)
    touched(folder, *(f"deep/pictures/{n}.jpg" for n in range(4)))


def messages(folder: Path) -> None:
    said = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "This."}]
    (folder / "a.jsonl").write_text(json.dumps({"messages": said, "videos": ["films/A.mp4"]}))
    touched(folder, "films/a.MP4")


def folders_of_pictures(folder: Path) -> None:
    written(folder / "a.json", [row("f", "video", "first", "What?", "This.")])
    touched(folder, *(f"frames/first/{n}.jpeg" for n in range(3)))


def multiple_choice(folder: Path) -> None:
    options = {f"a{n}": f"option {n}" for n in range(5)}
    cells = {"video": "1", "question": "why", "answer": "0", "qid": "7", "type": "CW"}
    as_csv(folder / "val_of_choices.csv", [cells | options])
    touched(folder, "videos/1.mp4")


def table_of_films(folder: Path) -> None:
    as_csv(folder / "t.csv", [{"file": "v/1.mp4", "prompt": "What?", "response": "This."}])
    touched(folder, "v/1.mp4")


def alpaca_without_media(folder: Path) -> None:
    written(folder / "t.json", [{"instruction": "Add.", "input": "1 1", "output": "2"}])


def embedded(folder: Path) -> None:
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "This."}]
    for number in range(2):
        rows = [{"messages": talk, "images": [{"bytes": b"jpeg%d" % number, "path": None}]}]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{number}.parquet")


def tars(folder: Path) -> None:
    tarred(folder / "own-000.tar", {"a.jpg": b"x", "a.txt": b"A picture."})


def in_archives(folder: Path) -> None:
    written(folder / "a.json", ROWS)
    tarred(folder / "media.tar", {"0.jpg": b"x"})


FOLDERS: dict[Callable[[Path], None], tuple[str, str, dict[str, Any]]] = {
    llava: ("llava_json", "deep/pictures", {"read": 4, "images": 4, "missing": ()}),
    messages: ("llava_json", ".", {"videos": 1, "missing": ()}),
    folders_of_pictures: ("llava_hound", "frames", {"videos": 1}),
    multiple_choice: ("nextqa_csv", "videos", {"videos": 1}),
    table_of_films: (
        "table",
        ".",
        {"columns": (("answer", ("response",)), ("question", ("prompt",)), ("video", ("file",)))},
    ),
    alpaca_without_media: (
        "table",
        "",
        {"columns": (("answer", ("output",)), ("question", ("instruction", "input")))},
    ),
    embedded: (
        "parquet_images",
        "",
        {"annotations": ("part-*.parquet",), "name": "part", "images": 2},
    ),
    tars: ("webdataset", "", {"images": 1, "name": "own"}),
    in_archives: ("llava_json", "", {"missing": ("0.jpg", "1.jpg", "2.jpg", "3.jpg")}),
}


@pytest.mark.parametrize("make", FOLDERS, ids=lambda make: make.__name__)
def test_a_format_is_told_by_what_its_adapter_makes_of_the_file(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path)
    form, media, more = FOLDERS[make]
    (found,) = survey(tmp_path).sources
    assert found.format == form and found.shown
    assert found.media == (str(tmp_path / media) if media else "")
    assert {name: getattr(found, name) for name in more} == more


@pytest.mark.parametrize("purpose", PRESETS)
@pytest.mark.parametrize("make", FOLDERS, ids=lambda make: make.__name__)
def test_the_recipe_loads_and_names_what_is_there(
    tmp_path: Path, make: Callable[[Path], None], purpose: str
) -> None:
    make(tmp_path)
    path = tmp_path / "recipe.yaml"
    tokenizer = write_recipe(survey(tmp_path), purpose, path)
    recipe = load_recipe(path)
    (source,) = recipe.sources
    assert source.format == FOLDERS[make][0] and not recipe.held_out
    assert bool(source.archives) == (make is in_archives)
    assert tokenizer == (QWEN if purpose == "qwen2.5" else str(tmp_path / "tokenizer.json"))
    if purpose == "scratch":
        checked(str(path), str(tmp_path / "out"), str(tmp_path / "pool"), (), with_shards=False)


def two_sources(folder: Path) -> Survey:
    llava(folder)
    lost = row("x", "image", "lost.jpg", "Where?", "nowhere")
    written(folder / "more/a.json", [*ROWS[:2], lost, {"id": "bad"}])
    written(folder / "test.json", [ROWS[3]])
    (folder / "notes.json").write_text('{"by": "me"}')
    return survey(folder)


def test_sources_have_names_of_their_own_and_weights_by_what_is_there(tmp_path: Path) -> None:
    found = two_sources(tmp_path)
    path = tmp_path / "recipe.yaml"
    write_recipe(found, "scratch", path)
    recipe = load_recipe(path)
    assert {one.name: one.weight for one in recipe.sources} == {"a": 4, "more_a": 2}
    assert [one.name for one in recipe.held_out] == ["test"]
    (name, why) = found.unread[0]
    assert name == "notes.json" and "no format reads its records" in why
    (other,) = (one for one in found.sources if one.name == "more_a")
    assert other.refused["ROW_MISSING_FIELD"][0] == 1 and other.missing == ("lost.jpg",)


def test_a_folder_without_annotations_says_what_would_be_read(tmp_path: Path) -> None:
    touched(tmp_path, "1.mp4")
    with pytest.raises(UserError, match="no annotations here"):
        survey(tmp_path)
    written(tmp_path / "a.json", [{"when": 1, "what": "x"}])
    with pytest.raises(UserError, match=r"a\.json: no format .* its first record has when, what"):
        survey(tmp_path)


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    llava(tmp_path)
    path = tmp_path / "recipe.yaml"
    write_recipe(survey(tmp_path), "scratch", path)
    before = path.read_bytes(), (tmp_path / "tokenizer.json").read_bytes()
    with pytest.raises(UserError, match=r"recipe\.yaml: is there already"):
        write_recipe(survey(tmp_path), "scratch", path)
    assert before == (path.read_bytes(), (tmp_path / "tokenizer.json").read_bytes())


def test_names_that_yaml_would_read_otherwise_are_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "it's: #1, {yes}"
    folder.mkdir()
    llava(folder)
    path = folder / "recipe.yaml"
    write_recipe(survey(folder), "scratch", path)
    assert load_recipe(path).sources[0].media == str(folder / "deep/pictures")


def test_folders_named_like_evaluation_data_are_held_out(tmp_path: Path) -> None:
    """Train and test apart by their folders, as hubs publish them."""
    for split, rows in (("train", ROWS[:3]), ("test", ROWS[3:])):
        llava(tmp_path)
        written(tmp_path / split / "metadata.json", rows)
    (tmp_path / "a.json").unlink()
    path = tmp_path / "recipe.yaml"
    write_recipe(survey(tmp_path), "scratch", path)
    recipe = load_recipe(path)
    assert [one.name for one in recipe.sources] == ["train_metadata"]
    assert [one.name for one in recipe.held_out] == ["test_metadata"]


def test_a_pattern_takes_no_file_of_another_source(tmp_path: Path) -> None:
    llava(tmp_path)
    for name, rows in (("part1", ROWS[:1]), ("part2", ROWS[1:2]), ("part_extra", ROWS[2:3])):
        written(tmp_path / f"{name}.json", rows)
    found = {one.name: one.annotations for one in survey(tmp_path).sources}
    assert found["part"] == ("part1.json", "part2.json")
    assert found["part_extra"] == ("part_extra.json",)


@pytest.mark.parametrize("name", ["20240501", "1e5", "true"])
def test_folders_named_like_numbers_are_names(tmp_path: Path, name: str) -> None:
    llava(tmp_path / name)
    path = tmp_path / name / "recipe.yaml"
    write_recipe(survey(tmp_path / name), "scratch", path)
    assert load_recipe(path).name == name
