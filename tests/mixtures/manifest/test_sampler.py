"""The order: the ratio holds everywhere, packs partition it, any number of ranks sees the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from mixtures.manifest.blocks import Blocks
from mixtures.manifest.draws import Draws, SampleReference
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.packs import Packs
from mixtures.manifest.sampler import BatchSampler
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.versions import BATCH_ALGO, RANK_SHARDING_ALGO
from shards.errors import UserError
from tests.support.made_pool import MadePool, many, write_recipe

GOLDEN = "7dde463aca2fa778af9561a7daae21b63946cd37cfa5ee58da14e549508b031b"
RATIOS = {"a": "weight: 7", "b": "weight: 2", "c": "weight: 1"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("order")
    sources = {"a": many("a", 150), "b": many("video-b", 40), "c": many("c", 30)}
    recipe = load_recipe(write_recipe(folder, RATIOS, "length: 512"))
    plan = build_manifest(recipe, MadePool(sources=sources).make(folder / "pool"))
    plan.write(str(folder))
    return load_manifest(folder / "manifest.json")


def test_every_prefix_and_window_keeps_the_ratio(manifest: Manifest) -> None:
    source = Draws(manifest).draw(0, 2048).source
    seen = np.cumsum(source[:, None] == np.arange(3), axis=0)
    share = np.arange(1, 2049)[:, None] * np.array([7, 2, 1]) / 10
    rounds = np.arange(2048)[:, None] // 512  # of the table, each of which costs less than one
    assert (abs(seen - share) < 1 + rounds).all()
    windows = seen[100:512] - seen[:412]
    assert (abs(windows - [70, 20, 10]) < 2).all()


def test_a_source_shows_all_its_samples_before_one_again(manifest: Manifest) -> None:
    drawn = Draws(manifest).samples(0, 2000)
    for name, count in (("a", 150), ("b", 40), ("c", 30)):
        own = [one for one in drawn if one.source == name]
        for epoch in range(len(own) // count):
            part = own[epoch * count : (epoch + 1) * count]
            assert {one.epoch for one in part} == {epoch}
            assert len({one.key for one in part}) == count
    first, second = ([d.key for d in drawn if d.source == "c" and d.epoch == e] for e in (0, 1))
    assert first != second and sorted(first) == sorted(second)


def test_a_position_is_a_function_of_the_manifest_alone(manifest: Manifest) -> None:
    draws = Draws(manifest)
    assert draws.sample(1234) == draws.samples(1200, 1300)[34] == Draws(manifest).sample(1234)
    far = draws.sample(10**15)
    assert far.position == 10**15 and far.source in RATIOS
    with pytest.raises(IndexError):
        draws.sample(-1)


def window(order: Packs, manifest: Manifest, k: int) -> list[tuple[SampleReference, ...]]:
    """The packs of window k, found by where their samples stand."""
    packs, i = [], 0
    while not packs or packs[-1][0].position < (k + 1) * manifest.pack.window:
        packs.append(order.pack(i))
        i += 1
    return [pack for pack in packs if pack[0].position // manifest.pack.window == k]


def test_packs_partition_the_positions_window_by_window(manifest: Manifest) -> None:
    order = Packs(manifest)
    for k in (0, 3, 40):
        positions = [one.position for pack in window(order, manifest, k) for one in pack]
        assert sorted(positions) == list(range(k * 32, (k + 1) * 32))
    for i in range(60):
        pack = order.pack(i)
        assert pack == tuple(sorted(pack, key=lambda one: one.position))
        assert sum(one.tokens for one in pack) <= 256
        assert sum(one.patches for one in pack) <= 4096


def test_a_pack_number_finds_its_window_from_anywhere(manifest: Manifest) -> None:
    forward, cold = Packs(manifest), Packs(manifest)
    packs = [forward.pack(i) for i in range(manifest.contents.packs + 60)]
    assert cold.pack(len(packs) - 1) == packs[-1]
    assert manifest.contents.packs == manifest.packs_per_window.sum()


@pytest.mark.parametrize("ahead", [0, 1, 40, 400])
def test_going_on_from_a_saved_place_gives_the_same_packs(manifest: Manifest, ahead: int) -> None:
    step = ahead + manifest.contents.packs // 4 - 20
    walked, cold = BatchSampler(manifest, 4), BatchSampler(manifest, 4)
    assert walked.has_step(step)
    window, pack = walked.place_of(step)
    cold.go_on(step, window, pack)
    for later in range(step, step + 3):
        assert cold.batch(later, 0, 2) == walked.batch(later, 0, 2)
        assert cold.place_of(later) == walked.place_of(later)
    assert cold.batch(0, 1, 2) == walked.batch(0, 1, 2)  # and back again


def test_going_on_far_beyond_the_length_counts_no_window_before_it(manifest: Manifest) -> None:
    """A place that can be, a million windows on: packed alone, so it comes at once."""
    order, window = BatchSampler(manifest, 4), 10**7
    inside = len(manifest.packs_per_window)
    first = manifest.contents.packs + (window - inside) * 7
    first += -first % 4
    order.go_on(first // 4, window, first)
    found = [one.position for pack in order.batch(first // 4, 0, 1) for one in pack]
    assert {position // 32 for position in found} == {window}


@pytest.mark.parametrize("change", [(0, 1), (1, 0), (-1, 0), (0, -1), (10**9, 0), (0, 10**30)])
@pytest.mark.parametrize("step", [3, 30, 300])
def test_a_place_that_cannot_be_is_refused(
    manifest: Manifest, step: int, change: tuple[int, int]
) -> None:
    order = BatchSampler(manifest, 4)
    window, pack = order.place_of(step)
    cold = BatchSampler(manifest, 4)
    if step == 300 and max(map(abs, change)) == 1:  # beyond the length only what no order can have
        change = (change[0] * 2000, change[1] * 100)
    with pytest.raises(UserError, match="resume from the checkpoint before it"):
        cold.go_on(step, window + change[0], pack + change[1])


def test_a_finite_order_goes_on_at_its_end_too(tmp_path: Path) -> None:
    ratios = {"a": "repeat: 1", "b": "repeat: 2"}
    recipe = load_recipe(write_recipe(tmp_path, ratios))
    sources = {"a": many("a", 50), "b": many("b", 20)}
    order = BatchSampler(
        build_manifest(recipe, MadePool(sources=sources).make(tmp_path)).manifest, 4
    )
    steps = 0
    while order.has_step(steps):
        steps += 1
    order.go_on(steps, *order.place_of(steps))
    assert not order.has_step(steps) and not order.has_step(10**20)


def test_a_step_too_far_beyond_the_length_is_refused_at_once(manifest: Manifest) -> None:
    order = BatchSampler(manifest, 4)
    with pytest.raises(UserError, match="more than 1000000; ask for an earlier step"):
        order.has_step(10**20)
    assert 0 < order.windows_to(manifest.contents.packs) < 100
    assert order.windows_to(manifest.contents.packs // 4 - 1) == 0


@pytest.mark.parametrize("world_size", [1, 7])
def test_a_step_of_many_blocks_packs_each_once(manifest: Manifest, world_size: int) -> None:
    """More blocks than small steps keep: sharding by cost and reading then share them."""
    with patch("mixtures.manifest.blocks._AT_ONCE", (1, 64)):
        order = BatchSampler(manifest, 240)
    with patch.object(Blocks, "block", autospec=True, side_effect=Blocks.block) as block:
        found = [pack for rank in range(world_size) for pack in order.batch(0, rank, world_size)]
    windows = order._packs.window_of(239)[0] + 1
    assert windows > 2 * 8 and block.call_count == -(-windows // 2)
    whole = BatchSampler(manifest, 240).batch(0, 0, 1)
    assert sorted(map(key_of, found)) == sorted(map(key_of, whole))


def test_packs_are_read_together_as_they_are_alone(manifest: Manifest) -> None:
    numbers = [70, 3, 3, 0, 41, 200, 4]
    assert Packs(manifest).packs(numbers) == [Packs(manifest, 9).pack(i) for i in numbers]
    assert Packs(manifest).packs([]) == []
    with pytest.raises(IndexError):
        Packs(manifest).packs([4, -1])


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8, 11])
def test_any_number_of_ranks_sees_the_same_packs_of_a_step(
    manifest: Manifest, world_size: int
) -> None:
    order, packs = BatchSampler(manifest, 8), Packs(manifest)
    for step in (0, 7):
        dealt = [order.batch(step, rank, world_size) for rank in range(world_size)]
        counts = [len(mine) for mine in dealt]
        assert max(counts) - min(counts) <= 1
        wanted = [packs.pack(i) for i in range(step * 8, step * 8 + 8)]
        assert sorted(pack for mine in dealt for pack in map(key_of, mine)) == sorted(
            map(key_of, wanted)
        )


def key_of(pack: tuple) -> list[int]:
    return [one.position for one in pack]


def test_no_source_falls_to_one_rank(manifest: Manifest) -> None:
    order, seen = BatchSampler(manifest, 4), Counter()
    for step in range(150):
        for rank in range(2):
            for pack in order.batch(step, rank, 2):
                seen.update((rank, one.source) for one in pack)
    for name in RATIOS:
        both = seen[0, name], seen[1, name]
        assert min(both) > 0.7 * max(both)


def test_totals_are_those_of_the_drawn_samples(manifest: Manifest) -> None:
    drawn = Draws(manifest).samples(0, manifest.length)
    totals = manifest.contents.totals
    assert totals.samples == manifest.length == 512
    assert totals.tokens == sum(one.tokens for one in drawn)
    assert totals.patches == sum(one.patches for one in drawn)


def test_the_order_of_this_manifest_never_changes(manifest: Manifest) -> None:
    """A change of any algorithm behind the order must change its version, and this digest."""
    assert manifest.contents.order_digest == GOLDEN
    assert [len(pack) for pack in map(Packs(manifest).pack, range(6))] == [4, 4, 4, 5, 5, 4]


def test_this_is_the_batch_of_feistel_splitmix64_1_and_lpt_counts_1(manifest: Manifest) -> None:
    """Of these packs; a change of the lanes alone must change the name of an algorithm."""
    assert (BATCH_ALGO, RANK_SHARDING_ALGO) == ("feistel-splitmix64/1", "lpt-counts/1")
    lanes = BatchSampler(manifest, 8).packs_by_rank(3, 3)
    assert lanes == [[24, 26, 28], [25, 30, 29], [27, 31]]
