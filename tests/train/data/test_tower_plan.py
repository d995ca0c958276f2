"""Calls of the tower: every frame whole and once, as many calls as the count of patches says."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mixtures.manifest.files import load_manifest
from mixtures.manifest.sampler import BatchSampler
from tests.support.tiny_model import LAYOUT, mixed_samples
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import pool_of
from train.data.collate import build_pack, empty_pack
from train.data.pack_stream import Stream
from train.data.rank_sampler import RankSampler
from train.data.tower_plan import (
    FrameTable,
    TowerCall,
    TowerRule,
    calls_for,
    learned_frames,
    plan_tower,
)

LARGEST = 1536 // 16
"""Rows and columns of the largest image."""
GRIDS = st.lists(
    st.tuples(st.integers(1, LARGEST), st.integers(1, LARGEST)), min_size=0, max_size=40
)


def table(grids: list[tuple[int, int]], shown: int, learned: list[bool]) -> FrameTable:
    return FrameTable(
        grids=np.array(grids, np.int64).reshape(-1, 2),
        learned=np.array(learned, bool),
        scale=np.ones(len(grids), np.float32),
        shown=shown,
    )


def frames_in(call: TowerCall[NDArray[np.int64]]) -> list[int]:
    """The patches of each frame, in the order of the call."""
    groups = (*call.shown_groups, *call.beyond_groups)
    return [g.height * g.width for g in groups for _ in range(g.frames)]


@given(st.data(), GRIDS, st.integers(1, 20_000), st.sampled_from([1, 4]), st.integers(1, 4))
@settings(deadline=None)
def test_frames_up_to_the_largest_image_stay_whole_in_calls_that_their_sum_foretells(
    data: st.DataObject, grids: list[tuple[int, int]], chunk: int, keep: int, more: int
) -> None:
    shown = data.draw(st.integers(0, len(grids)))
    learned = [keep == 1 or data.draw(st.booleans()) for _ in grids]
    sizes = [height * width for height, width in grids]
    rule, wanted = TowerRule(chunk=chunk, keep=keep), calls_for(sum(sizes), chunk) + more - 1
    calls = plan_tower(table(grids, shown, learned), rule, wanted).calls
    assert [call.learned for call in calls] == [True] * wanted + [False] * wanted * (keep > 1)
    firsts = np.cumsum([0, *sizes])
    seen: list[tuple[int, int]] = []
    for call in calls:
        count = len(call.shown) + len(call.beyond)
        assert sum(frames_in(call)) == count < chunk + max(sizes, default=1)
        # rows of frames beyond the cap are counted anew
        rows = np.concatenate([call.shown, call.beyond + firsts[shown]])
        for part in np.split(rows, np.cumsum(frames_in(call))[:-1]) if count else []:
            frame = int(np.searchsorted(firsts, part[0], side="right")) - 1
            assert np.array_equal(part, np.arange(firsts[frame], firsts[frame + 1]))
            assert call.learned == learned[frame]
            seen.append((frame >= shown, frame))
    assert sorted(seen) == [(frame >= shown, frame) for frame in range(len(grids))]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"), timestamps="none, memory_tokens: 3")


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_every_rank_knows_the_calls_of_the_rank_with_most(
    path: Path, world: int, micro_batch: int
) -> None:
    manifest, rule = load_manifest(path), TowerRule(chunk=20, keep=4)
    streams = [
        Stream(
            manifest,
            pool_of(path),
            rank,
            world,
            workers=rank,  # with threads and without
            global_batch=5,
            micro_batch=micro_batch,
            tower=rule,
        )
        for rank in range(world)
    ]
    counts = set()
    for step in zip(*(islice(stream.steps(), 4) for stream in streams), strict=True):
        for packs in zip(*step, strict=True):
            needed = [calls_for(len(p.patches) + len(p.memory.patches), 20) for p in packs]
            assert {len(pack.tower.calls) for pack in packs} == {2 * max(needed)}
            counts.add(max(needed))
    assert len(counts) > 1


def test_the_plan_counts_the_patches_that_packs_have(path: Path) -> None:
    manifest = load_manifest(path)
    order = BatchSampler(manifest, 4)
    sampler = RankSampler(order=order, rank=0, world_size=1, global_batch=4, micro_batch=1)
    (numbers,) = order.packs_by_rank(0, 1)
    drawn = sampler.micro_batches(0)
    counted = [order.patches([number]) for number in numbers]
    assert counted == [sum(one.patches for one in pack) for pack in drawn]
    assert sampler.tower_calls(0, 7) == [calls_for(count, 7) for count in counted]


def test_a_pack_without_pixels_has_as_many_calls_as_its_neighbours() -> None:
    assert [len(call.shown) for call in empty_pack().tower.calls] == [0]
    assert len(empty_pack(TowerRule(keep=4), 3).tower.calls) == 6


@given(st.integers(0, 200), st.sampled_from([2, 3, 4, 8]), st.integers(0, 99))
def test_one_frame_of_every_run_is_learned_from(count: int, keep: int, position: int) -> None:
    rule = TowerRule(keep=keep)
    drawn = learned_frames(rule, count, "key", position, 0)
    assert np.array_equal(drawn, learned_frames(rule, count, "key", position, 0))
    full = drawn[: count // keep * keep].reshape(-1, keep)
    assert (full.sum(1) == 1).all() and drawn[len(full) * keep :].sum() <= 1


def test_draws_hang_on_seed_key_position_and_clip_and_all_frames_have_one_chance() -> None:
    rule = TowerRule(keep=4)
    places = [("key", 0, 0), ("key", 1, 0), ("other", 0, 0), ("key", 0, 1)]
    drawn = [learned_frames(rule, 64, *place).tobytes() for place in places]
    drawn.append(learned_frames(TowerRule(keep=4, seed=1), 64, "key", 0, 0).tobytes())
    assert len(set(drawn)) == 5
    # six frames: the last run has two, and of it often none is drawn
    often = sum(learned_frames(rule, 6, "key", i, 0).astype(int) for i in range(4000))
    assert np.abs(np.asarray(often) / 4000 - 0.25).max() < 0.03


def test_images_are_always_learned_from_and_count_once() -> None:
    pack = build_pack(mixed_samples(), LAYOUT, TowerRule(keep=4))
    learned = np.concatenate([call.shown for call in pack.tower.calls if call.learned])
    scale = np.concatenate([call.scale.ravel() for call in pack.tower.calls if call.learned])
    images = np.r_[0:4, 84:96]  # a: 2 x 2 patches, then five frames of 4 x 4, d: 2 x 6
    assert set(images) <= set(learned.tolist())
    assert all(scale[i] == (1 if row in images else 4) for i, row in enumerate(learned))
