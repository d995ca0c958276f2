"""The bytes that a rank needs for a run: states by arithmetic, activations by a traced step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from train.config import PARTS, Config
from train.model.config import SlowFastConfig
from train.model.parts import part_of
from train.sizing.published_sizes import on_paper
from train.sizing.states import NONE, passing_bytes, state_bytes
from train.sizing.tracing import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Bytes of one rank: per kind of state those of each part, what passes, and the traced step."""

    states: Mapping[str, Mapping[str, float]]
    passing: Mapping[str, float]
    step: Step

    @property
    def total(self) -> float:
        """What is held where the step is fullest."""
        held = sum(size for parts in self.states.values() for size in parts.values())
        return held + sum(self.passing.values()) + self.step.peak


def rank_memory(
    config: Config,
    parameters: Mapping[str, int],
    ranks: int,
    step: Step,
    adapters: Mapping[str, int] = NONE,
) -> RankMemory:
    """The memory of each of `ranks`, of a model with so many parameters in each part, and in the
    adapter of each."""
    # part by part: what is trained, and so what it holds, differs among them
    own = {part: state_bytes(config, {part: parameters[part]}, ranks, adapters) for part in PARTS}
    kinds = next(iter(own.values()))
    return RankMemory(
        states={kind: {part: own[part][kind] for part in PARTS} for kind in kinds},
        passing=passing_bytes(config, parameters, adapters),
        step=step,
    )


def part_parameters(wanted: SlowFastConfig) -> dict[str, int]:
    """Parameters of each part, tied ones once."""
    counts = dict.fromkeys(PARTS, 0)
    # `named_parameters` names a tied head once, as the table of word vectors
    for name, parameter in on_paper(wanted).named_parameters():
        counts[part_of(name)] += parameter.numel()
    return counts
