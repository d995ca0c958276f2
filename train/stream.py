"""Manifest -> micro-batches of this rank, step by step, whatever the number of workers.

Threads read, decode and pack two steps ahead; steps leave in order. The whole state is one number:
the next step that the consumer has not been given.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

from mixtures.layout import Look
from mixtures.manifest import Manifest
from mixtures.order import Drawn, Order
from shards.errors import UserError
from shards.reader import Reader, Stored
from train.packs import Pack, RenderedSample, build_pack, empty_pack, join
from train.render import Frames, Rules, open_jpegs, render

STATE_VERSION = 1
STEPS_AHEAD = 2


@dataclass(slots=True)
class ClipCache:
    """Decoded frames, least recently used first out, bounded in bytes; safe between threads."""

    limit: int
    held: int = 0
    _items: OrderedDict[tuple[Any, ...], Frames] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: tuple[Any, ...]) -> Frames | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: tuple[Any, ...], frames: Frames) -> None:
        with self._lock:
            if key in self._items or frames.nbytes > self.limit:
                return
            self._items[key] = frames
            self.held += frames.nbytes
            while self.held > self.limit:
                self.held -= self._items.popitem(last=False)[1].nbytes


class Stream:
    """Iterates over steps: each gives this rank's micro-batches, as many as every other rank's."""

    def __init__(
        self,
        manifest: Manifest,
        reader: Reader,
        rules: Rules,
        *,
        global_batch: int,
        micro_batch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 1,
        cache_bytes: int = 0,
    ) -> None:
        """`workers` threads prepare packs; 0 prepares them in the caller's own."""
        self.manifest_id = manifest.manifest_id
        self.order = Order(manifest, global_batch)
        self.reader, self.rules = reader, rules
        self.global_batch, self.micro_batch = global_batch, micro_batch
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.cache = ClipCache(cache_bytes)
        self.step = 0

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

    def __iter__(self) -> Iterator[list[Pack]]:
        """From the current step on; a finite order ends at the same step on every rank."""
        if self.workers == 0:
            while self._has(self.step):
                self.step += 1
                yield [self._micro_batch(packs) for packs in self._deal(self.step - 1)]
            return
        threads = ThreadPoolExecutor(self.workers, "packs")
        try:
            ahead = deque(self._begin(threads, self.step + i) for i in range(STEPS_AHEAD))
            while self._has(self.step):
                ahead.append(self._begin(threads, self.step + STEPS_AHEAD))
                ready = [future.result() for future in ahead.popleft()]
                self.step += 1
                yield ready
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def _has(self, step: int) -> bool:
        try:
            self.order.pack(step * self.global_batch)
        except IndexError:
            return False
        return True

    def _begin(self, threads: ThreadPoolExecutor, step: int) -> list[Future[Pack]]:
        return [threads.submit(self._micro_batch, packs) for packs in self._deal(step)]

    def _deal(self, step: int) -> list[Sequence[Sequence[Drawn]]]:
        """This rank's packs of a step, `micro_batch` at a time; empty where it has too few."""
        packs = self.order.batch(step, self.rank, self.world_size)
        size = self.micro_batch
        micro_steps = -(-self.global_batch // (self.world_size * size))
        return [packs[i * size : (i + 1) * size] for i in range(micro_steps)]

    def _micro_batch(self, packs: Sequence[Sequence[Drawn]]) -> Pack:
        if not any(packs):
            return empty_pack()
        return join([self._pack(pack) for pack in packs if pack])

    def _pack(self, drawn: Sequence[Drawn]) -> Pack:
        return build_pack([self._sample(one) for one in drawn], self.rules.layout)

    def _sample(self, drawn: Drawn) -> RenderedSample:
        stored = self.reader.read(drawn.source, drawn.key)
        sample = stored.sample
        return render(
            drawn.key, sample.turns, sample.clips, partial(self._frames, stored), self.rules
        )

    def _frames(self, stored: Stored, number: int, look: Look, used: Sequence[int]) -> Frames:
        clip = stored.sample.clips[number]
        key = (clip.clip_id, look.width, look.height, tuple(look.frames[i] for i in used))
        frames = self.cache.get(key)
        if frames is None:
            frames = open_jpegs(stored.frames[number], look, used, clip.clip_id)
            self.cache.put(key, frames)
        return frames
