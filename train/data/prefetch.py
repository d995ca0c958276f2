"""Threads that sample, read, decode and pack ahead of whoever takes the packs."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from shards.extents import Fetch
from train.data.collate import Pack, RenderedSample
from train.data.rank_sampler import RankSampler
from train.data.sample_loader import SampleLoader

STEPS_AHEAD = 2


class Prefetcher:
    """A context: inside it threads prepare a rank's packs, `STEPS_AHEAD` of the step asked for."""

    def __init__(
        self, sampler: RankSampler, loader: SampleLoader, fetch: Fetch | None, workers: int
    ) -> None:
        """`workers` threads, which read through `fetch` as `SampleLoader.load` does."""
        self.sampler = sampler
        self.loader = loader
        self.fetch = fetch
        self.workers = workers
        self.threads = ThreadPoolExecutor(workers, "packs")
        # one thread samples every step, in order: buffers of packs are not safe between several
        self.sampling = ThreadPoolExecutor(1, "sampling")
        self.begun: deque[Future[list[Future[Pack]]]] = deque()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        # first of all: what is sampled still puts work to the threads
        self.sampling.shutdown(wait=True, cancel_futures=True)
        self.threads.shutdown(wait=True, cancel_futures=True)

    def packs(self, step: int) -> list[Pack]:
        """The packs of a step, waited for; steps are asked for in order, none is left out."""
        # as many steps as are missing between what was begun and STEPS_AHEAD
        for ahead in range(step + len(self.begun), step + STEPS_AHEAD + 1):
            self.begun.append(self.sampling.submit(self._begin, ahead))
        # two waits: for the sampling of the step, then for its packs
        return [future.result() for future in self.begun.popleft().result()]

    def _begin(self, step: int) -> list[Future[Pack]]:
        """Every micro-batch of a step is cut into one run of samples per thread."""
        begun = []
        calls = self.sampler.tower_calls(step, self.loader.tower.chunk)
        for drawn, wanted_calls in zip(self.sampler.micro_batches(step), calls, strict=True):
            wanted = self.loader.with_rows(drawn)
            # ceiling division: one run of samples per thread
            run_length = max(1, -(-len(wanted) // self.workers))
            runs = [
                wanted[start : start + run_length] for start in range(0, len(wanted), run_length)
            ]
            loading = [self.threads.submit(self.loader.load, run, self.fetch) for run in runs]
            begun.append(self._joined(loading, wanted_calls))
        return begun

    def _joined(self, futures: list[Future[list[RenderedSample]]], calls: int) -> Future[Pack]:
        """The pack of these samples, joined by the thread that ends the last: none waits for it."""
        pack: Future[Pack] = Future()
        if not futures:
            pack.set_result(self.loader.packed([], calls))
        # counts down: the callback that draws 0 is the last
        unfinished = iter(range(len(futures))[::-1])

        def ended(_: Future[list[RenderedSample]]) -> None:
            """One run has ended; the last of them joins the pack."""
            if next(unfinished, 0):
                return
            try:
                samples = [sample for run in futures for sample in run.result()]
                pack.set_result(self.loader.packed(samples, calls))
            except BaseException as error:  # also a panic of a library: whoever waits must know
                pack.set_exception(error)
            finally:
                futures.clear()  # they hold this function, which holds them and their arrays

        for run in list(futures):
            run.add_done_callback(ended)
        return pack
