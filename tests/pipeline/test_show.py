"""`python -m pipeline show`: turns, times and frames of samples as a model sees them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixtures.manifest.manifest import Manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from pipeline.__main__ import main
from pipeline.contact_sheet import sheet
from pipeline.shown_sample import Gallery, SampleQuery, Shown
from shards.errors import UserError
from shards.pool import Pool
from tests.support.tiny_pool import COLOURS, tiny_manifest


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that refuses what is said of green pictures, which are of 18 characters."""
    folder = tmp_path_factory.mktemp("shown")
    tiny_manifest(folder, timestamps="per_frame_text")
    path = folder / "recipe.yaml"
    path.write_text(
        path.read_text().replace("weight: 1}", "weight: 1, filters: {num_chars: {max: 17}}}")
    )
    plan = build_manifest(load_recipe(path), Pool(str(folder / "pool")))
    plan.write(str(folder / "out"))
    return folder / "out"


def found(out: Path, **asked: object) -> list[Shown]:
    gallery = Gallery(str(out), str(out.parent / "pool"))
    return list(gallery.find(SampleQuery(**{"count": 99, **asked})))  # type: ignore[arg-type]


def test_a_kept_clip_has_the_frames_of_its_layout_with_their_times(out: Path) -> None:
    shown = found(out, source="clips")
    manifest: Manifest = Gallery(str(out), str(out.parent / "pool")).manifest
    assert len(shown) == len(manifest.tables[1])
    (clip,) = shown[0].clips
    # six frames are stored, the view shows four of them, two of which are slow
    assert [frame.slow for frame in clip.frames] == [True, False, True, False]
    assert [frame.time for frame in clip.frames] == ["0.0s", "0.5s", "1.5s", "2.0s"]
    assert shown[0].sample is not None and shown[0].refusal is None


def test_the_tokens_of_a_clip_are_those_that_the_plan_counted(out: Path) -> None:
    gallery = Gallery(str(out), str(out.parent / "pool"))
    table = gallery.manifest.tables[1]
    (shown,) = gallery.find(SampleQuery(key=table["key"][0].tobytes().hex()))
    assert shown.sample is not None
    said = sum(gallery.manifest.codec.count_turns(shown.sample.turns))
    assert shown.clips[0].tokens + said == table["tokens"][0]


def test_what_was_refused_by_a_filter_is_shown_as_it_would_have_been(out: Path) -> None:
    shown = found(out, refused="FILTER_REFUSED")
    assert shown and all(one.refusal["code"] == "FILTER_REFUSED" for one in shown if one.refusal)
    answers = {one.sample.turns[-1].text for one in shown if one.sample}
    assert answers == {"green"}
    by_key = found(out, key=shown[0].key[:8])
    assert [one.key for one in by_key] == [shown[0].key]


def test_the_sheet_shows_each_frame_on_its_grid(out: Path) -> None:
    shown = found(out, refused="FILTER_REFUSED", count=1)
    with Image.open(io.BytesIO(sheet(shown))) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    green = (np.abs(pixels - np.array(COLOURS["green"])).max(1) < 60).sum()
    assert green >= 0.9 * 64 * 64


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"source": "none"}, "the build has pictures, clips"),
        ({"refused": "GREEN"}, "this build has FILTER_REFUSED"),
        ({"refused": "LEAK_MEDIA"}, "nothing was refused so; there is FILTER_REFUSED"),
        ({"key": "abc"}, "the first 6 suffice"),
        ({"key": "0" * 32}, "no sample has a key that begins with"),
    ],
)
def test_what_is_not_there_is_named(out: Path, asked: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        found(out, **asked)


def test_the_command_prints_turns_and_writes_the_sheet(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = str(out.parent / "pool")
    words = ["show", str(out), "--pool", pool, "--source", "pictures", "-n", "2"]
    monkeypatch.setattr(sys, "argv", ["", *words])
    main()
    said = capsys.readouterr().out
    assert said.count("<image> Which colour?") == 2 and "(learned)" in said
    assert f"frames: {out}/show.png" in said and (out / "show.png").stat().st_size > 1000
    monkeypatch.setattr(sys, "argv", ["", *words, "--json"])
    main()
    told = json.loads(capsys.readouterr().out)
    assert len(told["samples"]) == 2 and told["samples"][0]["clips"][0]["kind"] == "image"
