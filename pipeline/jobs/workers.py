"""Who does the work of a job: an interface, so that jobs are put together without starting Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Unit = TypeVar("Unit")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Died(Generic[Unit]):
    """What a unit becomes whose worker died DEATHS times."""

    unit: Unit


class Workers(ABC):
    """Processes that run plain functions; `pipeline.jobs.ray_executor.connect` makes them.

    `package` is the folder that a Ray job shipped to every machine, None where this is no such job.
    """

    package: Path | None = None

    @abstractmethod
    def map(
        self,
        function: Callable[[Unit], Result],
        units: Iterable[Unit],
        memory: int = 0,
        *,
        on_gpu: bool = False,
    ) -> Iterator[Result | Died[Unit]]:
        """function(unit) for each unit, as they finish; no more at once than have room for so many
        bytes each, or than there are GPUs, if there are any and they want one."""

    @abstractmethod
    def each_node(self, function: Callable[[], Result]) -> dict[str, Result]:
        """What the function returns on every other machine, by host name."""
