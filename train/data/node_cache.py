"""One cache of remote extents per node, on its disk, shared by its ranks; it knows the future.

The first of the node's ranks reads ahead for all of them: the order is arithmetic, so what every
rank will read is known. The others find files. Nobody trusts a file: every read checks its crc32.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.errors import DamagedData, UserError
from shards.extents import ByteRange, Extents
from shards.ids import short_hash
from shards.store import private_folder
from train.data.prefetch_plan import NEVER, PrefetchPlan

IN_FLIGHT = 32
RANGE_BYTES = 512 << 10
WASTE = 16
"""A request may fetch one byte nobody asked for per this many that somebody did."""
HORIZON_BYTES, HORIZON_USES = 4, 100_000
"""How far ahead uses are known: this many times the cache's limit, at most this many uses."""
POLL_SECONDS, PATIENCE_SECONDS = 0.002, 60.0

AWAITED, LEADING, GONE = range(3)
"""What the node's first rank is to the others."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """This node's disk: a folder that its ranks share, and how many bytes of extents it holds."""

    folder: Path
    limit: int
    ranks: range


def this_node(folder: str, limit: int, rank: int, environment: Mapping[str, str]) -> Node:
    """The node that `rank` runs on; launchers say in the environment which of its ranks it is."""
    # torchrun and DeepSpeed's launcher have their own names for it
    local = int(environment.get("LOCAL_RANK", 0))
    size = environment.get("LOCAL_WORLD_SIZE") or environment.get("LOCAL_SIZE") or local + 1
    own = Path(tempfile.gettempdir()) / f"slowfast-mix-{os.getuid()}"
    try:
        home = private_folder(Path(folder) if folder else own)
    except UserError as error:
        raise UserError(f"node_folder: {error}") from error
    return Node(folder=home, limit=limit, ranks=range(rank - local, rank - local + int(size)))


class Request(NamedTuple):
    """One ranged read of `file`, and the byte ranges of extents that it brings."""

    file: str
    start: int
    stop: int
    byte_ranges: list[ByteRange]


def coalesce(byte_ranges: Sequence[ByteRange]) -> list[Request]:
    """Requests that bring these: near ones share a request; in the order of first need."""
    first = {byte_range: number for number, byte_range in enumerate(byte_ranges)}
    requests: list[Request] = []
    # by file and offset, so that neighbours meet
    for byte_range in sorted(first):
        stop = byte_range.offset + byte_range.extent
        if requests:
            last = requests[-1]
            useful = sum(brought.extent for brought in last.byte_ranges) + byte_range.extent
            span = stop - last.start
            # near enough: few bytes that nobody asked for, and not too long a range
            if (
                last.file == byte_range.file
                and span <= RANGE_BYTES
                and span - useful <= useful // WASTE
            ):
                last.byte_ranges.append(byte_range)
                requests[-1] = last._replace(stop=max(stop, last.stop))
                continue
        requests.append(Request(byte_range.file, byte_range.offset, stop, [byte_range]))
    # first needed first, whatever the order of their offsets
    return sorted(
        requests, key=lambda request: min(first[byte_range] for byte_range in request.byte_ranges)
    )


class NodeCache:
    """A context: inside it the node's first rank fetches ahead for all that are inside theirs."""

    def __init__(
        self,
        node: Node,
        extents: Extents,
        rank: int,
        step: Callable[[], int],
        future: Iterator[Sequence[ByteRange]],
    ) -> None:
        """`step()` is the step this rank is at; `future` what the node reads from there on."""
        self.node = node
        self.extents = extents
        self.step = step
        self.future = future
        self.mine = rank - node.ranks.start
        self.folder = node.folder / "extents"
        private_folder(self.folder)
        self.shared = _numbers(node.folder / "progress", len(node.ranks) + 1)
        # one integer a rank, and the leader's state, in a file that all map into memory
        self.progress = self.shared[:-1]
        self.leading = self.shared[-1:]
        self.stop = Event()
        self.leader = Thread(target=self._lead, name="node-cache", daemon=True)

    def __enter__(self) -> NodeCache:
        start = self.step()
        # the first rank leads: it fetches, the others wait for files
        if self.mine == 0:
            self.progress[:] = start
            self.leader.start()
        elif self.leading == GONE:  # of an earlier run; this one's leader is about to come
            self.leading[:] = AWAITED
        self.progress[self.mine] = start
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        if self.mine == 0:
            self.leader.join()

    def leave(self) -> None:
        """This rank reads nothing more that matters: nobody waits for it, nor it for anybody."""
        self.progress[self.mine] = NEVER
        self.stop.set()

    def publish(self) -> None:
        """Tell the node at which step this rank is, whether it reads anything there or not."""
        self.progress[self.mine] = self.step()

    def read(self, byte_range: ByteRange) -> bytes:
        """The verified bytes of a range, as soon as they are here; else straight from the store."""
        path = self.folder / name_of(self.extents, byte_range)
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                data = path.read_bytes()
                self.extents.check(byte_range, data)
                return data
            except DamagedData:
                # written wrong, or of another store: read past the cache
                return self.extents.read(byte_range)
            except FileNotFoundError:
                # nobody fetches for this rank any more
                alone = self.stop.is_set() or self.leading == GONE
                if alone or time.monotonic() > patience:
                    return self.extents.read(byte_range)
            time.sleep(POLL_SECONDS)

    def _lead(self) -> None:
        try:
            with ThreadPoolExecutor(IN_FLIGHT, "fetch") as threads:
                try:
                    Leader(self, threads).run()
                finally:
                    threads.shutdown(cancel_futures=True)
        except Exception:  # a failing cache costs speed, not the run: ranks read directly
            _log.exception("the node's cache stopped")
        finally:
            self.leading[:] = GONE


class Leader:
    """Fetches ahead for all ranks of the node until its cache is left."""

    def __init__(self, cache: NodeCache, threads: ThreadPoolExecutor) -> None:
        self.cache, self.threads = cache, threads
        self.next_step = cache.step()
        held = {path.name: path.stat().st_size for path in cache.folder.iterdir()}
        self.prefetch_plan = PrefetchPlan(cache.node.limit, held)
        self.byte_ranges: dict[str, ByteRange] = {}
        self.waiting: deque[Request] = deque()
        self.running: set[Future[None]] = set()
        self.allowed = 4

    def run(self) -> None:
        """Plan, fetch and drop until the cache is left."""
        while not self.cache.stop.is_set():
            # told anew in every round: a leader of a killed run may have left GONE
            self.cache.leading[:] = LEADING
            self.prefetch_plan.pass_to(int(self.cache.progress.min()))
            learned = self._learn()
            self._take()
            self._submit()
            if not learned:
                self.cache.stop.wait(POLL_SECONDS)

    def _learn(self) -> bool:
        """One more step, unless enough is known or the order has ended."""
        plan = self.prefetch_plan
        # a bounded look ahead: uses enough to choose what to drop by Belady's rule
        far = len(plan) >= HORIZON_USES or plan.bytes_known >= HORIZON_BYTES * plan.limit
        if far and self.next_step > plan.now + 1:
            return False
        coming = next(self.cache.future, None)
        if coming is None:
            return False
        named = {name_of(self.cache.extents, byte_range): byte_range for byte_range in coming}
        self.byte_ranges |= named
        # names of ranges are kept as long as a use is known
        if len(self.byte_ranges) > 2 * HORIZON_USES:
            self.byte_ranges = {
                n: byte_range for n, byte_range in self.byte_ranges.items() if plan.expects(n)
            }
        plan.learn(
            self.next_step, [(name, byte_range.extent) for name, byte_range in named.items()]
        )
        self.next_step += 1
        return True

    # requests wait until a place in flight is free
    def _take(self) -> None:
        if len(self.waiting) >= IN_FLIGHT:
            return
        fetched, dropped = self.prefetch_plan.take(IN_FLIGHT * RANGE_BYTES // 4)
        for name in dropped:
            (self.cache.folder / name).unlink(missing_ok=True)
        self.waiting += coalesce([self.byte_ranges[name] for name in fetched])

    def _submit(self) -> None:
        """More requests at once as they succeed, so that the first ones have the link alone."""
        # failures surface here: what a worker raised ends the leader
        done = {future for future in self.running if future.done()}
        for future in done:
            future.result()
        self.running -= done
        # more as they succeed, as in TCP's slow start: no burst at the first step
        self.allowed = min(IN_FLIGHT, self.allowed + len(done))
        while self.waiting and len(self.running) < self.allowed:
            self.running.add(self.threads.submit(self._fetch, self.waiting.popleft()))

    def _fetch(self, request: Request) -> None:
        """Bring one range; what cannot be had becomes an empty file, so that its reader asks."""
        try:
            size = request.stop - request.start
            data = self.cache.extents.raw(request.file, request.start, size)
        except UserError as error:
            _log.warning("%s", error)
            data = b""
        for byte_range in request.byte_ranges:
            start = byte_range.offset - request.start
            piece = memoryview(data)[start : start + byte_range.extent]
            # checked before it is published: a reader that finds a file need not wait
            try:
                self.cache.extents.check(byte_range, piece)
            except DamagedData:
                piece = memoryview(b"")
            _commit(self.cache.folder / name_of(self.cache.extents, byte_range), piece)


def name_of(extents: Extents, byte_range: ByteRange) -> str:
    """The name of a byte range's file in the cache."""
    return short_hash([extents.store.url, *byte_range])


def _commit(path: Path, data: memoryview) -> None:
    # written beside, then renamed: a reader finds whole files only
    temporary = path.parent.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    temporary.write_bytes(data)
    temporary.replace(path)


def _numbers(path: Path, count: int) -> NDArray[np.int64]:
    """So many integers in memory that processes share."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(descriptor, 8 * count)
    finally:
        os.close(descriptor)
    return np.memmap(path, np.int64, "r+", shape=(count,))
