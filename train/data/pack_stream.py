"""Manifest -> packs of this rank, step by step, whatever the number of workers.

Threads read, decode and pack two steps ahead; steps leave in order. The whole state is one number:
the next step that the consumer has not been given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.draws import Drawn
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.sampler import Order
from mixtures.tokens.frame_view import Look
from shards.errors import DamagedData, UserError
from shards.extents import Fetch, Place
from shards.reader import Stored, open_data
from train.data.collate import Pack, RenderedSample, build_pack
from train.data.jpeg_patches import ClipCache, Frames, Room, Rooms, open_jpegs
from train.data.node_cache import Node, NodeCache
from train.data.render import Rules, render
from train.data.replacements import StandIns

STATE_VERSION = 1
STEPS_AHEAD = 2
Rows = NDArray[np.uint8]


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
    ) -> None:
        """Packs from step `start` on, bytes from `data` (a pool, or shards).

        `global_batch` packs make a step, all ranks together; `micro_batch` of them are joined into
        each pack that is yielded. `workers` threads prepare them; 0 means the caller's own. Decoded
        clips are kept up to `cache_bytes`. `node` is this node's disk: its processes share one
        index there and, where `data` is remote, one cache.
        """
        self.manifest_id = manifest.manifest_id
        self.order = Order(manifest, global_batch)
        self.rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
        self.global_batch, self.micro_batch = global_batch, micro_batch
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.step = start
        folder = None if node is None else node.folder
        self.reader = open_data(data, folder, manifest)
        self._manifest, self._clips, self._rooms = manifest, ClipCache(cache_bytes), Rooms()
        self._stand_ins = StandIns(manifest)
        self._node = None if node is None or self.reader.extents.store.is_local else node

    @property
    def replaced(self) -> int:
        """Damaged samples that this process has replaced so far."""
        return self._stand_ins.replaced

    @property
    def micro_steps(self) -> int:
        """Packs that every rank is given per step."""
        return -(-self.global_batch // (self.world_size * self.micro_batch))

    def state(self) -> dict[str, Any]:
        """The data state of a run: everything before `step` has been handed out."""
        return {
            "v": STATE_VERSION,
            "manifest_id": self.manifest_id,
            "step": self.step,
            "global_batch": self.global_batch,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; UserError if it is of another manifest or batch size."""
        for name, own in self.state().items():
            if name != "step" and state.get(name) != own:
                raise UserError(
                    f"data state: {name} was {state.get(name)}, this run has {own}; "
                    "resume with the same one, or start in another --out"
                )
        self.step = state["step"]

    def __iter__(self) -> Iterator[Pack]:
        """Pack by pack; `micro_steps` of them are a step."""
        for packs in self.steps():
            yield from packs

    def steps(self) -> Iterator[list[Pack]]:
        """Step by step from the current one; a finite order ends on every rank at once."""
        with self._caching() as cache:
            if self.workers:
                yield from self._ahead(cache)
                return
            while self.order.has_step(self.step):
                packs = [
                    self._join(self._samples(cache, self._with_room(drawn)))
                    for drawn in self._deal(self.step)
                ]
                self._advance(cache)
                yield packs

    def _ahead(self, cache: NodeCache | None) -> Iterator[list[Pack]]:
        threads = ThreadPoolExecutor(self.workers, "packs")
        try:
            ahead = deque(self._begin(threads, cache, self.step + i) for i in range(STEPS_AHEAD))
            while self.order.has_step(self.step):
                ahead.append(self._begin(threads, cache, self.step + STEPS_AHEAD))
                ready = [future.result() for future in ahead.popleft()]
                self._advance(cache)
                yield ready
        finally:
            if cache is not None:
                cache.leave()
            threads.shutdown(wait=True, cancel_futures=True)

    def _advance(self, cache: NodeCache | None) -> None:
        self.step += 1
        if cache is not None:
            cache.publish()

    def _begin(
        self, threads: ThreadPoolExecutor, cache: NodeCache | None, step: int
    ) -> list[Future[Pack]]:
        begun = []
        for drawn in self._deal(step):
            samples = list(self._with_room(drawn))
            each = max(1, -(-len(samples) // self.workers))
            runs = [samples[start : start + each] for start in range(0, len(samples), each)]
            begun.append(self._joined([threads.submit(self._samples, cache, run) for run in runs]))
        return begun

    def _joined(self, runs: list[Future[list[RenderedSample]]]) -> Future[Pack]:
        """The pack of these samples, joined by the thread that ends the last: none waits for it."""
        pack: Future[Pack] = Future()
        if not runs:
            pack.set_result(self._join([]))
        unfinished = iter(range(len(runs))[::-1])

        def ended(_: Future[list[RenderedSample]]) -> None:
            if next(unfinished, 0):
                return
            try:
                pack.set_result(self._join([sample for run in runs for sample in run.result()]))
            except BaseException as error:  # also a panic of a library: whoever waits must know
                pack.set_exception(error)
            finally:
                runs.clear()  # they hold this function, which holds them and their arrays

        for run in list(runs):
            run.add_done_callback(ended)
        return pack

    def _join(self, samples: Sequence[RenderedSample]) -> Pack:
        return build_pack(samples, self.rules.layout)

    def _deal(self, step: int) -> list[list[Drawn]]:
        """This rank's samples of a step, `micro_batch` packs at a time; maybe none in the last."""
        packs = self.order.batch(step, self.rank, self.world_size)
        starts = range(0, self.micro_steps * self.micro_batch, self.micro_batch)
        return [
            [drawn for pack in packs[start : start + self.micro_batch] for drawn in pack]
            for start in starts
        ]

    def _with_room(self, drawn: Sequence[Drawn]) -> Iterator[tuple[Drawn, Rows]]:
        """Each sample of a pack, and its part of the array that will be the pack's patches."""
        rows, start = self._rooms.empty(sum(one.patches for one in drawn)), 0
        for one in drawn:
            yield one, rows[start : start + one.patches]
            start += one.patches

    def _samples(
        self, cache: NodeCache | None, drawn: Iterable[tuple[Drawn, Rows]]
    ) -> list[RenderedSample]:
        return [self._sample(cache, *one) for one in drawn]

    def _sample(self, cache: NodeCache | None, drawn: Drawn, rows: Rows) -> RenderedSample:
        self._stand_ins.count()
        try:
            return self._read(None if cache is None else cache.read, rows, drawn)
        except DamagedData as error:
            return self._stand_ins.replace(drawn, error, partial(self._read, None, rows))

    def _read(self, fetch: Fetch | None, rows: Rows, drawn: Drawn) -> RenderedSample:
        stored = self.reader.read(drawn.source, drawn.key, fetch)
        sample = stored.sample
        frames = partial(self._frames, stored, Room(rows))
        return render(drawn.key, sample.turns, sample.clips, frames, self.rules)

    def _frames(
        self, stored: Stored, room: Room, number: int, look: Look, used: Sequence[int]
    ) -> Frames:
        clip = stored.sample.clips[number]
        key = (clip.clip_id, look.width, look.height, tuple(look.frames[i] for i in used))
        out, kept = room.take(len(used), look), self._clips.get(key)
        if kept is None:
            frames = open_jpegs(stored.frames[number], look, used, clip.clip_id, out)
            self._clips.put(key, frames)
            return frames
        if out is None:
            return kept
        out[:] = kept
        return out

    def _caching(self) -> AbstractContextManager[NodeCache | None]:
        """Straight from the store, or through the cache that this node's ranks share."""
        if self._node is None:
            return nullcontext()
        extents = self.reader.extents
        return NodeCache(self._node, extents, self.rank, lambda: self.step, self._future())

    def _future(self) -> Iterator[list[Place]]:
        """What this node's ranks will read, step by step from the current one."""
        assert self._node is not None
        order = Order(self._manifest, self.global_batch)
        for step in takewhile(order.has_step, count(self.step)):
            ranks = [order.batch(step, rank, self.world_size) for rank in self._node.ranks]
            drawn = [one for packs in ranks for pack in packs for one in pack]
            yield [place for one in drawn for place in self.reader.places(one.source, one.key)]
