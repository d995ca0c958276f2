"""Prices in columns are those of every sample laid out by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixtures.pool.columns import IMAGE, VIDEO, Clips, Samples
from mixtures.pool.sample_costs import SampleCosts
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Recipe
from mixtures.tokens.frame_view import view_clip
from mixtures.tokens.text import TextCodec
from mixtures.tokens.token_plan import frames_used, plan_clip
from shards.pool import Pool
from shards.profile import Profile
from tests.support.clips import clip_of
from tests.support.made_pool import TOKENIZER, write_recipe

CODEC = TextCodec(TOKENIZER)
SIDES = st.sampled_from([32, 64, 200, 640])
TIMES = st.lists(st.integers(1, 900), max_size=40).map(lambda steps: np.cumsum([0, *steps]))
CLIP = st.tuples(st.booleans(), SIDES, SIDES, st.sampled_from([(1, 300), (7, 1001)]), TIMES)
LAYOUTS = [
    "timestamps: per_frame_text",
    "timestamps: per_frame_text, fast_frames: complement",
    "timestamps: per_frame_text, arrangement: isf",
    "timestamps: per_frame_text, arrangement: queries",
    "timestamps: per_frame_text, pathways: fast",
    "timestamps: per_frame_text, memory_tokens: 4",
    "timestamps: sentence",
    "timestamps: none",
    "timestamps: per_frame_text, pathways: none",
]


def columns_of(made: list[tuple[Any, ...]], used: list[list[int]]) -> tuple[Clips, Samples]:
    """Clips that all have a timing of their own, and samples over them without text."""
    keys = np.frombuffer(b"".join(i.to_bytes(16, "big") for i in range(len(used))), "V16")
    bases = np.array([base for *_, base, _ in made], np.int64)
    times = [pts if is_video else pts[:1] for is_video, *_, pts in made]
    none = np.zeros(len(made), np.int64)
    clips = Clips(
        ids=np.zeros(len(made), "V16"),
        kind=np.array([VIDEO if clip[0] else IMAGE for clip in made], np.uint8),
        width=np.array([clip[1] for clip in made], np.int32),
        height=np.array([clip[2] for clip in made], np.int32),
        timing=np.arange(len(made), dtype=np.int32),
        millis=none.astype(np.uint32),
        nbytes=none,
        bases=bases,
        pts=np.concatenate(times),
        ends=np.cumsum([0, *map(len, times)]),
        why={},
        facts_id="",
    )
    samples = Samples(
        name="a",
        key=keys,
        turns=keys,
        tokens=np.full(len(used), 7, np.uint32),
        num_turns=np.full(len(used), 2, np.int32),
        licence=np.zeros(len(used), np.int32),
        licences=["MIT"],
        clips=np.array([clip for own in used for clip in own], np.int32),
        ends=np.cumsum([0, *map(len, used)]),
    )
    return clips, samples


def laid_out(recipe: Recipe, clips: Clips, own: list[int]) -> tuple[int, int, int]:
    """(tokens, patches, frames) of one sample, the way that the trainer comes to them."""
    images = sum(clips.kind[i] == IMAGE for i in own)
    tokens, patches, shown = 7, 0, 0
    for i in own:
        base, pts = clips.times(i)
        kind = "image" if clips.kind[i] == IMAGE else "video"
        clip = clip_of(list(pts), base, kind, (int(clips.width[i]), int(clips.height[i])))
        clip_view = view_clip(clip, recipe.frames, recipe.layout, images)
        slots = plan_clip(clip_view, kind, recipe.layout, CODEC.count, images)
        tokens += sum(slot.n for slot in slots)
        shown += len(frames_used(slots))
        patches += len(frames_used(slots)) * clip_view.grid[0] * clip_view.grid[1]
    return tokens, patches, shown


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("selection", ["uniform", "uniform_last"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(CLIP, min_size=1, max_size=6), st.data())
def test_prices_are_what_each_sample_takes(
    tmp_path: Path, layout: str, selection: str, made: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    frames = f"frames: {{fps: 2, cap: 9, area: 65536, selection: {selection}}}"
    layout = f"layout: {{slow_frames: 4, image_token_budget: 300, {layout}}}"
    recipe = load_recipe(write_recipe(tmp_path, {"a": "weight: 1"}, frames, layout))
    several = st.lists(st.integers(0, len(made) - 1), max_size=3)
    used = data.draw(st.lists(several, min_size=1, max_size=6))
    clips, samples = columns_of(made, used)
    rows = SampleCosts(recipe, CODEC, clips, Pool(str(tmp_path / "pool"), Profile())).rows(samples)
    found = [tuple(row) for row in rows[["tokens", "patches", "frames"]].tolist()]
    assert found == [laid_out(recipe, clips, own) for own in used]
