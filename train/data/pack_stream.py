"""The data loader: manifest -> packs of this rank, step by step, whatever the number of workers.

Steps leave in order, prepared by threads or by the caller. The whole state is one number: the next
step that the consumer has not been given. A checkpoint keeps beside it in which window that begins.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count, takewhile

from mixtures.manifest.manifest import Manifest
from mixtures.manifest.sampler import BatchSampler
from shards.extents import ByteRange, Fetch
from shards.reader import open_data
from train.data.collate import Pack
from train.data.data_state import STATE_VERSION, DataState, check_same_order
from train.data.node_cache import Node, NodeCache
from train.data.prefetch import Prefetcher
from train.data.rank_sampler import RankSampler
from train.data.render import Rules
from train.data.replacements import ReplacementSamples
from train.data.sample_loader import SampleLoader
from train.data.tower_plan import WHOLE_TOWER, TowerRule


class Stream:
    """Yields this rank's packs: every rank takes equally many a step, some of them empty."""

    def __init__(
        self,
        manifest: Manifest,
        data: str,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        workers: int = 1,
        *,
        global_batch: int = 1,
        micro_batch: int = 1,
        cache_bytes: int = 0,
        node: Node | None = None,
        tower: TowerRule = WHOLE_TOWER,
    ) -> None:
        """Packs from step `start` on, bytes from `data` (a pool, or shards).

        `global_batch` packs make a step, all ranks together; `micro_batch` of them are joined into
        each pack that is yielded. `workers` threads prepare them; 0 means the caller's own. Decoded
        clips are kept up to `cache_bytes`. `node` is this node's disk: its processes share one
        index there and, where `data` is remote, one cache. `tower` says how it will run over packs.
        """
        self.manifest_id = manifest.manifest_id
        self.workers = workers
        self.step = start
        self.sampler = RankSampler(
            order=BatchSampler(manifest, global_batch),
            rank=rank,
            world_size=world_size,
            global_batch=global_batch,
            micro_batch=micro_batch,
        )
        # the reader first: it checks that the data are those of the manifest
        self.reader = open_data(data, None if node is None else node.folder, manifest)
        rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
        self.loader = SampleLoader(
            self.reader, rules, ReplacementSamples(manifest), cache_bytes, tower
        )
        self._manifest = manifest
        # a local store needs no cache: its files are the cache
        self._node = None if node is None or self.reader.extents.store.is_local else node

    @property
    def replaced(self) -> int:
        """Damaged samples that this process has replaced so far."""
        return self.loader.replacement_samples.replaced

    @property
    def micro_steps(self) -> int:
        """Packs that every rank is given per step."""
        return self.sampler.micro_steps

    def state(self) -> DataState:
        """The data state of a run: everything before `step` has been handed out."""
        window, pack = self.sampler.place_of(self.step)
        return {
            "v": STATE_VERSION,
            "manifest_id": self.manifest_id,
            "step": self.step,
            "window": window,
            "pack": pack,
            "global_batch": self.sampler.global_batch,
        }

    def load(self, state: DataState) -> None:
        """Go on where `state` was taken; UserError if it is of another manifest or batch size."""
        # position is the state: no reader, no thread, no random generator has any
        check_same_order(state, self.state())
        self.sampler.go_on(state["step"], state["window"], state["pack"])
        self.step = state["step"]

    def __iter__(self) -> Iterator[Pack]:
        """Pack by pack; `micro_steps` of them are a step."""
        for packs in self.steps():
            yield from packs

    def steps(self) -> Generator[list[Pack], None, None]:
        """Step by step from the current one; a finite order ends on every rank at once."""
        with self._caching() as cache:
            fetch = None if cache is None else cache.read
            if not self.workers:
                yield from self._handed_out(cache, partial(self._packs, fetch))
                return
            with Prefetcher(self.sampler, self.loader, fetch, self.workers) as ahead:
                yield from self._handed_out(cache, ahead.packs)

    def _handed_out(
        self, cache: NodeCache | None, packs_of: Callable[[int], list[Pack]]
    ) -> Iterator[list[Pack]]:
        try:
            # no collective decides the end: every rank counts the same steps
            while self.sampler.has_step(self.step):
                packs = packs_of(self.step)
                # counted before it is yielded: whoever takes a checkpoint meanwhile has the next
                # step
                self.step += 1
                if cache is not None:
                    cache.publish()
                yield packs
        finally:
            if cache is not None:
                cache.leave()  # first of all: threads that are still to end may wait for it

    def _packs(self, fetch: Fetch | None, step: int) -> list[Pack]:
        """The packs of a step, prepared by the caller's own thread."""
        loader = self.loader
        calls = self.sampler.tower_calls(step, loader.tower.chunk)
        return [
            loader.packed(loader.load(loader.with_rows(drawn), fetch), wanted)
            for drawn, wanted in zip(self.sampler.micro_batches(step), calls, strict=True)
        ]

    def _caching(self) -> AbstractContextManager[NodeCache | None]:
        """Straight from the store, or through the cache that this node's ranks share."""
        if self._node is None:
            return nullcontext()
        return NodeCache(
            self._node,
            self.reader.extents,
            self.sampler.rank,
            step=lambda: self.step,
            future=self._future(self._node, self.step, self.sampler.place_of(self.step)),
        )

    def _future(self, node: Node, start: int, place: tuple[int, int]) -> Iterator[list[ByteRange]]:
        """What this node's ranks will read, step by step from `start`, which has this place."""
        order = BatchSampler(self._manifest, self.sampler.global_batch)
        # a sampler of its own: the leader's place in the order is ahead of the consumer's
        order.go_on(start, *place)
        for step in takewhile(order.has_step, count(start)):
            ranks = [order.batch(step, rank, self.sampler.world_size) for rank in node.ranks]
            drawn = [reference for packs in ranks for pack in packs for reference in pack]
            yield [
                byte_range
                for reference in drawn
                for byte_range in self.reader.byte_ranges(reference.source, reference.key)
            ]
