"""Run plain functions over Ray: a local cluster started here, or one that is running.

The only `import ray` outside train/on_ray.py. Ray never retries on its own (a task has side effects
and its own books): a unit whose worker died is tried again here, and given up after three deaths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from shards.errors import UserError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

DEATHS = 3
_STORE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Died(Generic[Unit]):
    """What a unit becomes whose worker died DEATHS times."""

    unit: Unit


class Workers:
    """The processes that do the work; made by `connect`."""

    def __init__(self) -> None:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.count = max(1, int(resources.get("CPU", 1)))

    def map(
        self, function: Callable[[Unit], Result], units: Sequence[Unit]
    ) -> Iterator[Result | Died[Unit]]:
        """function(unit) for each unit, as they finish; at most two per worker are in flight."""
        remote = ray.remote(max_retries=0, num_cpus=1)(function)
        waiting = [(unit, 0) for unit in reversed(units)]
        running: dict[Any, tuple[Unit, int]] = {}
        while waiting or running:
            while waiting and len(running) < 2 * self.count:
                unit, deaths = waiting.pop()
                running[remote.remote(unit)] = (unit, deaths)
            done, _ = ray.wait(list(running), num_returns=1)
            unit, deaths = running.pop(done[0])
            try:
                yield ray.get(done[0])
            except WorkerCrashedError:
                if deaths + 1 == DEATHS:
                    yield Died(unit=unit)
                else:
                    waiting.append((unit, deaths + 1))
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, UserError) else error) from None


@contextmanager
def connect(address: str | None) -> Iterator[Workers]:
    """Workers at `address` (or RAY_ADDRESS, which `ray job submit` sets), else started here."""
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_task_oom_retries", "2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}; check --address") from error
    try:
        yield Workers()
    finally:
        ray.shutdown()
