"""What the loop needs of an engine, and what all engines share.

All take gradients of (summed loss / one global denominator): `backward` over the micro-batches of a
step, a look at their `norm`, then `update` or `discard` once. What one saves to a folder, any other
goes on from, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from train.data.collate import Pack
from train.model.pretrained import SlowFastPreTrainedModel


class Engine(Protocol):
    """What the loop needs of an engine; every method is called by all ranks alike."""

    rank: int
    world_size: int
    model: SlowFastPreTrainedModel

    def totals(self, *values: float) -> list[float]:
        """The sum of each value over ranks, in double precision, the same on every rank."""
        ...

    def backward(self, packs: Sequence[Pack], denominator: int) -> list[Tensor]:
        """Add the gradients of all micro-batches of a step; the losses of each pack's supervised
        rows, fp32 on the CPU."""
        ...

    def score(self, pack: Pack) -> float:
        """The summed loss of a pack on this rank, without gradients."""
        ...

    def norm(self) -> float:
        """The norm of the gradients of all ranks, before clipping; not finite if one of them is
        not."""
        ...

    def update(self, share: float) -> None:
        """Clip, step once with this share of every part's rate, clear."""
        ...

    def discard(self) -> None:
        """Clear the gradients of a step that is not taken."""
        ...

    def save(self, folder: Path) -> dict[str, str]:
        """Write weights and moments of what is trained into `folder`, as train.engine.state_files
        lays them out; the sha256 of what this rank wrote. UserError if one is not finite."""
        ...

    def load(self, folder: Path, updates: int) -> None:
        """Go on from what was saved after `updates` updates; UserError if it is another model's."""
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...

    def close(self) -> None:
        """Give back what the engine holds beside the model."""
        ...


def distinct_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor on the CPU; of tied weights the first name only."""
    # tied weights are one tensor: saving both names would store it twice
    named = model.named_parameters(remove_duplicate=True)
    return {name: weight.detach().cpu().contiguous() for name, weight in named}


def whole_shape(parameter: Tensor) -> torch.Size:
    """The shape of the whole parameter, of which ZeRO-3 keeps a share."""
    # ZeRO-3 leaves an empty parameter and notes the shape
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


@contextmanager
def gathered(parameter: nn.Parameter) -> Iterator[Tensor]:
    """The whole parameter, to be read; under ZeRO-3 every rank calls alike."""
    if not hasattr(parameter, "ds_id"):
        yield parameter.detach()
        return
    # only under ZeRO-3 is DeepSpeed there to be imported
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([parameter]):
        yield parameter.detach()
