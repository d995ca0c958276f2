"""A node's cache: it fetches what is needed next, drops what is needed last, and trusts no file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.loading.link import bytes_sent, link
from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from shards.extents import ByteRange
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import fingerprint
from train.data.node_cache import PATIENCE_SECONDS, RANGE_BYTES, WASTE, Node, coalesce, this_node
from train.data.pack_stream import Stream
from train.data.prefetch_plan import NEVER, PrefetchPlan


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"), timestamps="per_frame_text")


@pytest.fixture
def served(built: Path) -> Iterator[str]:
    with link(built.parent.parent, 0.001, 1e9, fail_every=5) as address:
        yield address


STEPS = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.just(0)), max_size=4), max_size=30
)


def test_what_was_dropped_for_want_of_room_does_not_come_back_at_once() -> None:
    prefetch_plan = PrefetchPlan(1)
    for step, items in enumerate([[("a", 1), ("j", 2)], [], [("a", 1), ("j", 2)]]):
        prefetch_plan.learn(step, items)
    assert prefetch_plan.take(1 << 30) == (["a", "j"], [])
    prefetch_plan.pass_to(1)
    fetched, dropped = prefetch_plan.take(1 << 30)
    assert not set(fetched) & {"a", "j"} and dropped


@given(STEPS, st.integers(1, 12), st.data())
def test_what_a_step_needs_is_held_and_nothing_needed_sooner_was_dropped(
    steps: list[list[tuple[str, int]]], limit: int, data: st.DataObject
) -> None:
    sizes = {name: data.draw(st.integers(1, 3)) for name in "abcdefghij"}
    uses = [[(name, sizes[name]) for name, _ in step] for step in steps]
    prefetch_plan = PrefetchPlan(limit)
    for step, items in enumerate(uses):
        prefetch_plan.learn(step, items)
    for now, items in enumerate(uses):
        prefetch_plan.pass_to(now)
        before = dict(prefetch_plan.held)
        fetched, dropped = prefetch_plan.take(1 << 30)
        needed = {name for name, _ in items}
        assert needed <= set(prefetch_plan.held)
        assert not set(fetched) & set(before) and set(dropped) <= set(before) | set(fetched)
        next_use = {
            name: next((n for n in range(now, len(uses)) if (name, sizes[name]) in uses[n]), NEVER)
            for name in sizes
        }
        if dropped and fetched:
            assert max(next_use[n] for n in fetched) <= min(next_use[n] for n in dropped)
        urgent = sum(sizes[name] for name in needed)
        assert prefetch_plan.bytes_held == sum(prefetch_plan.held.values()) <= max(limit, urgent)


def test_it_fetches_less_than_least_recently_used_when_things_recur() -> None:
    uses = [[(f"{(step * 7) % 40}", 1)] for step in range(400)]
    prefetch_plan, fetched = PrefetchPlan(20), 0
    for step, items in enumerate(uses):
        prefetch_plan.learn(step, items)
    for now in range(len(uses)):
        prefetch_plan.pass_to(now)
        fetched += len(prefetch_plan.take(1 << 30)[0])
    recent: list[str] = []
    misses = 0
    for ((name, _),) in uses:
        misses += name not in recent
        recent = [*[other for other in recent if other != name][-19:], name]
    assert misses == 400
    assert fetched < 330


PLACES = st.lists(
    st.builds(
        ByteRange,
        st.sampled_from(["a.tar", "b.tar"]),
        st.integers(0, 1 << 22),
        st.integers(1, 1 << 18),
        st.just(0),
    ),
    max_size=30,
    unique=True,
)


@given(PLACES)
def test_requests_bring_every_place_once_and_waste_little(byte_ranges: list[ByteRange]) -> None:
    requests = coalesce(byte_ranges)
    assert sorted(
        byte_range for request in requests for byte_range in request.byte_ranges
    ) == sorted(byte_ranges)
    for file, start, stop, brought in requests:
        assert all(
            p.file == file and start <= p.offset and p.offset + p.extent <= stop for p in brought
        )
        asked = sum(byte_range.extent for byte_range in brought)
        assert stop - start <= asked + asked // WASTE
        assert len(brought) == 1 or stop - start <= RANGE_BYTES
    firsts = [
        min(byte_ranges.index(byte_range) for byte_range in request.byte_ranges)
        for request in requests
    ]
    assert firsts == sorted(firsts)


def streams(built: Path, data: str, home: Path, limit: int, ranks: int = 2) -> list[Stream]:
    manifest = load_manifest(built)
    node = Node(folder=home, limit=limit, ranks=range(ranks))
    return [
        Stream(manifest, data, rank, ranks, workers=2, global_batch=6, node=node if limit else None)
        for rank in range(ranks)
    ]


def take(stream: Stream) -> list[object]:
    return fingerprint(list(islice(stream.steps(), 6)))  # type: ignore[return-value]


def test_ranks_share_one_cache_and_see_what_they_would_see_without_it(
    built: Path, served: str, tmp_path: Path
) -> None:
    local = [take(s) for s in streams(built, str(built.parent.parent / "pool"), tmp_path, 0)]
    remote = streams(built, f"{served}/pool", tmp_path / "node", 1 << 20)
    before = bytes_sent(served)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(take, remote)) == local
    pool = (built.parent.parent / "pool/clips").iterdir()
    assert bytes_sent(served) - before <= 1.5 * sum(part.stat().st_size for part in pool)


def test_a_spoilt_file_of_the_cache_is_not_believed(
    built: Path, served: str, tmp_path: Path
) -> None:
    alone = take(streams(built, str(built.parent.parent / "pool"), tmp_path, 0, ranks=1)[0])
    assert take(streams(built, f"{served}/pool", tmp_path / "n", 1 << 20, ranks=1)[0]) == alone
    for file in (tmp_path / "n/extents").iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
    again = streams(built, f"{served}/pool", tmp_path / "n", 1 << 20, ranks=1)[0]
    assert take(again) == alone
    assert again.replaced == 0


def test_a_cache_smaller_than_a_step_is_slow_but_right(
    built: Path, served: str, tmp_path: Path
) -> None:
    alone = take(streams(built, str(built.parent.parent / "pool"), tmp_path, 0, ranks=1)[0])
    assert take(streams(built, f"{served}/pool", tmp_path / "n", 4096, ranks=1)[0]) == alone


def test_a_rank_that_reads_nothing_more_holds_up_nobody(
    built: Path, served: str, tmp_path: Path
) -> None:
    first, second = streams(built, f"{served}/pool", tmp_path / "node", 20_000)
    ahead = second.steps()
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(lambda: [next(ahead) for _ in range(2)])
        steps, started = first.steps(), time.monotonic()
        next(steps)
        other.result()
        ahead.close()
        assert len(list(islice(steps, 12))) == 12
        steps.close()
    assert time.monotonic() - started < PATIENCE_SECONDS / 2


def test_launchers_say_which_ranks_share_a_node(tmp_path: Path) -> None:
    environment = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert this_node(str(tmp_path), 5, 9, environment).ranks == range(8, 12)
    assert this_node(str(tmp_path), 5, 3, {}).ranks == range(3, 4)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="node_folder"):
        this_node(str(tmp_path / "file/below"), 5, 0, {})
