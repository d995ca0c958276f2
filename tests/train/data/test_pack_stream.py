from __future__ import annotations

from itertools import islice
from pathlib import Path
from threading import current_thread
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import fingerprint
from train.data.jpeg_patches import ClipCache, Frames
from train.data.pack_stream import Stream
from train.data.rank_sampler import RankSampler
from train.data.sample_loader import SampleLoader


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"), timestamps="per_frame_text")


def open_stream(path: Path, **choices: Any) -> Stream:
    defaults = {"global_batch": 5, "micro_batch": 2, "data": str(path.parent.parent / "pool")}
    return Stream(load_manifest(path), **(defaults | choices))


def test_the_number_of_workers_changes_nothing(built: Path) -> None:
    taken = [
        fingerprint(list(islice(open_stream(built, workers=n, cache_bytes=n << 16).steps(), 4)))
        for n in (0, 1, 3)
    ]
    assert taken[0] == taken[1] == taken[2]
    assert len({key for packs in taken[0] for pack in packs for key in pack[0]}) > 10


def test_clips_that_come_again_are_taken_from_the_cache_and_change_nothing(built: Path) -> None:
    again = []

    class Counting(ClipCache):
        def get(self, key: tuple[Any, ...]) -> Frames | None:
            found = super().get(key)
            again.append(found is not None)
            return found

    plain = fingerprint(list(islice(open_stream(built).steps(), 20)))
    with patch("train.data.sample_loader.ClipCache", Counting):
        kept = fingerprint(list(islice(open_stream(built, cache_bytes=1 << 26).steps(), 20)))
    assert any(again) and kept == plain


def test_packs_carry_pixels_text_and_times(built: Path) -> None:
    packs = next(open_stream(built).steps())
    videos = next(pack for pack in packs if len(pack.times) > len(pack.keys))
    assert videos.supervised > 0
    assert videos.patches.shape == (videos.grids.prod(axis=1).sum(), 768)
    assert set(np.unique(videos.times)) <= {0.0, 0.5, 1.0, 1.5, 2.0, 2.5}
    assert videos.patches.std() > 10


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_every_rank_takes_as_many_micro_steps_and_together_they_take_the_same_packs(
    built: Path, world_size: int
) -> None:
    alone = list(islice(open_stream(built, micro_batch=1).steps(), 3))
    ranks = [
        list(islice(open_stream(built, micro_batch=1, rank=r, world_size=world_size).steps(), 3))
        for r in range(world_size)
    ]
    for step, packs in enumerate(alone):
        dealt = [pack for rank in ranks for pack in rank[step]]
        assert {len(rank[step]) for rank in ranks} == {-(-5 // world_size)}
        assert sorted(p.keys for p in dealt if p.keys) == sorted(p.keys for p in packs)
        assert sum(p.supervised for p in dealt) == sum(p.supervised for p in packs)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_from_what_was_consumed_not_from_what_was_prepared(
    built: Path, workers: int
) -> None:
    whole = fingerprint(list(islice(open_stream(built, workers=workers).steps(), 6)))
    first = open_stream(built, workers=workers)
    begun = first.steps()
    for _ in range(2):
        next(begun)
    second = open_stream(built, workers=workers)
    second.load(first.state())
    assert second.step == 2
    assert fingerprint(list(islice(second.steps(), 4))) == whole[2:]


def test_the_state_of_another_manifest_or_batch_is_refused(built: Path, tmp_path: Path) -> None:
    stream = open_stream(built)
    other = open_stream(tiny_manifest(tmp_path, seed=4))
    with pytest.raises(UserError, match="manifest_id"):
        stream.load(other.state())
    with pytest.raises(UserError, match="global_batch was 6, this run has 5"):
        stream.load(stream.state() | {"global_batch": 6})


def test_a_stream_goes_on_beyond_the_length_without_counting_to_there(built: Path) -> None:
    whole = open_stream(built, start=40, workers=0)
    expected = fingerprint(list(islice(whole.steps(), 2)))
    first = open_stream(built, start=40, workers=0)
    state = first.state()
    assert state["window"] > len(load_manifest(built).packs_per_window)
    second = open_stream(built, workers=0)
    second.load(state)
    assert fingerprint(list(islice(second.steps(), 2))) == expected
    with pytest.raises(UserError, match="the state is damaged"):
        second.load(state | {"pack": state["pack"] + 10**6})


def test_a_finite_order_ends_on_all_ranks_at_once_and_visits_everything(tmp_path: Path) -> None:
    path = tiny_manifest(tmp_path, ratio=("repeat: 1", "repeat: 1"))
    ranks = [
        list(open_stream(path, micro_batch=1, rank=rank, world_size=2, workers=1).steps())
        for rank in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1]) > 0
    keys = [key for rank in ranks for packs in rank for pack in packs for key in pack.keys]
    assert len(keys) == len(set(keys)) == 30


def test_the_cache_stays_under_its_bound_and_drops_the_oldest_use() -> None:
    cache = ClipCache(limit=300)
    frames = [np.full((1, 10, 10, 1), i, np.uint8) for i in range(4)]
    for i in (0, 1, 2, 3, 0, 1, 2):
        assert cache.get((i,)) is None  # nothing is kept the first time
        cache.put((i,), frames[i])
    assert cache.get((0,)) is frames[0]
    cache.put((3,), frames[3])
    assert cache.held == 300
    assert cache.get((1,)) is None
    assert cache.get((0,)) is frames[0]
    for _ in range(2):
        cache.put(("large",), np.zeros(301, np.uint8))
    assert cache.held == 300


def test_a_thread_that_panics_ends_the_stream(tmp_path: Path) -> None:
    class Panic(BaseException):
        pass

    stream = open_stream(tiny_manifest(tmp_path), workers=1)
    with patch.object(SampleLoader, "_read", side_effect=Panic), pytest.raises(Panic):
        next(iter(stream))


def test_steps_are_sampled_in_a_thread_of_their_own(built: Path) -> None:
    asked: set[str] = set()

    def noted(cls: type, name: str) -> Any:
        plain = getattr(cls, name)

        def told(self: Any, *arguments: Any) -> Any:
            asked.add(current_thread().name)
            return plain(self, *arguments)

        return patch.object(cls, name, told)

    sampled = noted(RankSampler, "micro_batches"), noted(RankSampler, "tower_calls")
    with sampled[0], sampled[1], noted(SampleLoader, "with_rows"):
        list(islice(open_stream(built, workers=2).steps(), 3))
    assert asked == {"sampling_0"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_that_cannot_be_sampled_ends_the_stream_there(built: Path, workers: int) -> None:
    plain = RankSampler.micro_batches

    def breaks(self: RankSampler, step: int) -> Any:
        if step == 2:
            raise UserError("no such step")
        return plain(self, step)

    steps = open_stream(built, workers=workers).steps()
    with patch.object(RankSampler, "micro_batches", breaks):
        assert next(steps) and next(steps)
        with pytest.raises(UserError, match="no such step"):
            next(steps)
