"""What all steps of one job share, and how a step's units are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.jobs.progress import Step, Steps
from pipeline.jobs.workers import Died, Workers
from pipeline.stages.failure_limit import FailureLimit
from shards.errors import UserError
from shards.pool import Pool

Unit = TypeVar("Unit")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Where the work is put, who does it, what people see of it, and when a source is given up.

    `no_sandbox` allows machines on which the media sandbox does not hold (--no-sandbox). What was
    refused with a code of `retry` is tried again (--retry).
    """

    pool: Pool
    workers: Workers
    bars: Steps
    failure_limit: FailureLimit = field(default_factory=lambda: FailureLimit({}))
    no_sandbox: bool = False
    retry: frozenset[str] = frozenset()


def each(
    job: Job,
    function: Callable[[Unit], Result],
    units: Sequence[Unit],
    step: Step,
    memory: int = 0,
    *,
    on_gpu: bool = False,
) -> Iterator[Result]:
    """function(unit) as they finish, each with so many bytes, or a GPU; UserError for a unit that
    keeps killing its worker."""
    for result in job.workers.map(function, units, memory, on_gpu=on_gpu):
        # a unit that kills its worker three times is not a refusal here, but a fault of the machine
        if isinstance(result, Died):
            raise killed(result.unit)
        step.advance()
        yield result


def killed(unit: object) -> UserError:
    """What ends a job whose unit no worker survives."""
    return UserError(f"{unit}: its worker died three times; is memory short?")
