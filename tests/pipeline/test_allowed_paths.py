"""`--allow-path`: what a build reads outside the recipe's folder; it stands in no id."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

import pipeline.__main__
import pipeline.build
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import HeldOut
from pipeline.build import Built, build
from pipeline.jobs import ray_executor
from pipeline.jobs.job import Job
from pipeline.jobs.job_package import media_told
from pipeline.jobs.progress import steps
from pipeline.jobs.run_stages import check_nodes
from pipeline.sources.pin import pin
from shards.errors import UserError, run_command
from shards.outcome import read_books
from shards.pool import Pool
from shards.profile import Profile
from shards.store import Store
from tests.support import small_world
from tests.support.archives import asks
from tests.support.in_process import Here

SOURCES = """
sources:
  - {{name: a, dataset: d/a, format: llava_json, annotations: {data}/a.json, media: {data}/media, licence: MIT, weight: 1}}
"""  # noqa: E501
NUMBER = 6


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures under DATA/media, the last of which is a link to another folder, ELSEWHERE."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (data / "media").mkdir(parents=True)
    elsewhere.mkdir()
    for number in range(NUMBER):
        small_world.picture(data / f"media/{number}.jpg", number)
    last = data / f"media/{NUMBER - 1}.jpg"
    last.rename(elsewhere / "last.jpg")
    last.symlink_to(elsewhere / "last.jpg")
    asks(data / "a.json", [f"{number}.jpg" for number in range(NUMBER)])
    (data / "tokenizer.json").write_bytes(small_world.train_tokenizer(["What is it? 1"] * 4, 300))
    monkeypatch.setattr(ray_executor, "connect", lambda _: nullcontext(Here()))
    return data


def recipe(folder: Path, data: Path) -> Path:
    folder.mkdir(exist_ok=True)
    text = small_world.RECIPE.partition("sources:")[0] + SOURCES.replace("{data}", str(data))
    (folder / "recipe.yaml").write_text(text.format(root=data))
    return folder / "recipe.yaml"


def built(path: Path, *allowed: Path) -> Built:
    out, pool = path.parent / "out", path.parent / "pool"
    return build(str(path), str(out), str(pool), allowed=[str(each) for each in allowed])


def codes(path: Path) -> list[str]:
    tables = read_books(Store(path.parent / "out"))[1]
    return [row["code"] for row in tables["refused.parquet"].to_pylist()]


def test_an_allowed_folder_is_read_and_changes_no_manifest(data: Path, tmp_path: Path) -> None:
    beside, apart = recipe(data, data), recipe(tmp_path / "apart", data)
    both = (data, tmp_path / "elsewhere")
    assert built(beside, *both).manifest_id == built(apart, *both).manifest_id
    assert codes(apart) == []
    third = recipe(tmp_path / "third", data)
    built(third, data)  # the folder is allowed, where its link leads is not
    assert codes(third) == ["MEDIA_NOT_A_FILE"]
    with pytest.raises(UserError, match=f"annotations: '{data}/a.json' is outside .*--allow-path"):
        built(recipe(tmp_path / "fourth", data), tmp_path / "elsewhere")


def test_the_command_takes_the_option_more_than_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(tmp_path / "apart", data)
    words = ["build", str(path), "--out", str(tmp_path / "out")]
    for folder in (data, tmp_path / "elsewhere"):
        words += ["--allow-path", str(folder)]
    monkeypatch.setattr(sys, "argv", ["pipeline", *words])
    pipeline.__main__.main()
    assert (tmp_path / "out/manifest.json").exists()


@pytest.mark.parametrize("wrong", ["data", "./data", "~/data", "", "s3://bucket/data"])
def test_what_is_no_absolute_path_is_refused_by_name(data: Path, wrong: str) -> None:
    with pytest.raises(UserError, match="not an absolute path") as told:
        load_recipe(recipe(data, data), [str(data), wrong])
    assert str(told.value).startswith(f"--allow-path {wrong}:")


def test_what_is_no_folder_here_ends_a_build_by_name_and_writes_nothing(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = recipe(tmp_path / "apart", data)
    words = ["build", str(path), "--out", str(tmp_path / "out")]
    for folder in (tmp_path / "gone", data / "a.json", data):
        words += ["--allow-path", str(folder)]
    monkeypatch.setattr(sys, "argv", ["pipeline", *words])
    with pytest.raises(SystemExit) as left:
        run_command(pipeline.__main__.main)
    said = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and not (tmp_path / "out").exists()
    assert [line.split(": ")[1] for line in said] == [
        f"--allow-path {tmp_path}/gone",
        f"--allow-path {data}/a.json",
    ]


class Elsewhere(Here):
    """A cluster with one machine more, whose answers are given by this one."""

    def each_node(self, function: Callable[[], str]) -> dict[str, str]:
        return {"other": function()}


def test_every_machine_must_have_the_folder(data: Path, tmp_path: Path) -> None:
    with steps() as bars:
        job = Job(
            pool=Pool(str(tmp_path / "pool"), Profile()),
            workers=Elsewhere(),
            bars=bars,
            no_sandbox=True,
        )
        check_nodes(job, [data])
        with pytest.raises(UserError, match="--allow-path /nowhere: no such folder on "):
            check_nodes(job, [data, Path("/nowhere")])


def test_links_of_a_leak_index_may_lead_to_allowed_folders(data: Path, tmp_path: Path) -> None:
    exam = HeldOut(name="e", format="llava_json", annotations=(str(data / "a.json"),))
    homes = pin(exam, str(tmp_path / "benchmarks.yaml"), [tmp_path / "elsewhere"]).homes
    assert homes == (str(tmp_path), str(Path.cwd()), str(tmp_path / "elsewhere"))


def test_media_in_a_jobs_package_are_counted(data: Path, tmp_path: Path) -> None:
    assert media_told(None) == ""
    assert media_told(Path(pipeline.build.__file__).parent) == ""
    (data / "train.TAR.GZ").write_bytes(bytes(1000))
    nbytes = 1000 + sum(path.stat().st_size for path in (data / "media").iterdir())
    told = media_told(data)
    assert told.startswith(f"this job's package holds {NUMBER + 1} media files and archives")
    assert f"({nbytes:,} bytes)" in told and "--allow-path" in told and "\n" not in told
