"""What the model is given, as typed values: a packed row, a padded batch, and what either shows.

`forward` takes named arguments, for DeepSpeed, Trainer and `generate` know no other way; inside the
model they travel as these. T tokens of a row, B rows of a batch, P patches of N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache

from train.data.collate import Pack
from train.model.attention import Blocks, plan_blocks
from train.model.memory import MemoryTensors
from train.model.projectors import SlotTensors


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualInputs:
    """Pixels of a row or a batch and where they stand, positions counted over the flattened rows.

    `patches` uint8 [P, 768] and `seconds` float32 [N] as packs hold them; `grids` int64 [N, 2],
    best kept on the CPU; `memory` may be None for a model that has none.
    """

    patches: Tensor
    grids: Tensor
    slots: SlotTensors
    seconds: Tensor
    memory: MemoryTensors | None


VISUAL_INPUTS = tuple(field.name for field in fields(VisualInputs))
"""The names of the same among the arguments of `forward`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRow:
    """Whole samples back to back: `ids`, `labels` and `positions` int64 [T] as a pack has them.

    `blocks` keeps the samples apart.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    blocks: Blocks
    visual: VisualInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """Left-padded rows, as `generate` asks for their logits.

    `ids` int64 [B, T], or `embeddings` [B, T, D] in their place; `mask` and `positions` int64
    [B, T]; `cache` holds the tokens before these. `visual` is looked at where there are ids.
    `logits_to_keep`: so many last rows, or the rows with these numbers; 0 means all. `others` go to
    the language model as they came.
    """

    ids: Tensor | None
    mask: Tensor | None
    positions: Tensor | None
    cache: Cache | None
    embeddings: Tensor | None
    visual: VisualInputs | None
    use_cache: bool | None
    logits_to_keep: int | Tensor
    others: Mapping[str, Any]


class PackedArguments(TypedDict):
    """The arguments of `forward` for a packed row; ids, labels and positions are [1, T]."""

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    blocks: Blocks
    patches: Tensor
    grids: Tensor
    slots: SlotTensors
    seconds: Tensor
    memory: MemoryTensors | None


def packed_row(pack: Pack, device: torch.device | str = "cpu", calls: int = 1) -> PackedRow:
    """A pack as tensors; grids and the memory's frames stay on the CPU.

    The tower runs at least `calls` times on the memory's frames: see `MemoryTensors`.
    """

    def moved(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    slots = pack.slots
    memory = pack.memory
    return PackedRow(
        ids=moved(pack.tokens),
        labels=moved(pack.labels),
        positions=moved(pack.positions),
        blocks=plan_blocks(pack.cu_seqlens, device),
        visual=VisualInputs(
            patches=moved(pack.patches),
            grids=torch.from_numpy(pack.grids),
            slots=SlotTensors(*(moved(getattr(slots, name)) for name in SlotTensors._fields)),
            seconds=moved(pack.times),
            memory=_memory(
                {f.name: torch.from_numpy(getattr(memory, f.name)) for f in fields(memory)}, calls
            ),
        ),
    )


def pack_inputs(pack: Pack, device: torch.device | str = "cpu", calls: int = 1) -> PackedArguments:
    """`packed_row` as the keyword arguments of the model's forward."""
    row = packed_row(pack, device, calls)
    return {
        "input_ids": row.ids[None],
        "labels": row.labels[None],
        "position_ids": row.positions[None],
        "blocks": row.blocks,
        "patches": row.visual.patches,
        "grids": row.visual.grids,
        "slots": row.visual.slots,
        "seconds": row.visual.seconds,
        "memory": row.visual.memory,
    }


def row_of(
    input_ids: Tensor | None,
    labels: Tensor | None,
    position_ids: Tensor | None,
    blocks: Blocks,
    visual: VisualInputs | None,
) -> PackedRow:
    """Arguments of `forward`, as `pack_inputs` makes them, as one value; TypeError without any."""
    if input_ids is None or labels is None or position_ids is None or visual is None:
        raise TypeError(
            "with `blocks`, forward needs input_ids, labels, position_ids and what is shown, as "
            "`pack_inputs` gives them (an empty pack has patches too: none of them)"
        )
    return PackedRow(
        ids=input_ids[0],
        labels=labels[0],
        positions=position_ids[0],
        blocks=blocks,
        visual=visual,
    )


def visual_inputs(
    patches: Tensor | None,
    grids: Tensor | None,
    slots: SlotTensors | Mapping[str, Tensor] | None,
    seconds: Tensor | None,
    memory: MemoryTensors | Mapping[str, Tensor] | None,
    device: torch.device,
) -> VisualInputs | None:
    """The arguments of `forward` as one value, None where nothing is shown.

    The dictionaries that the processor makes become tuples; slots are moved to `device`.
    """
    if patches is None:
        return None
    if grids is None or slots is None or seconds is None:
        raise TypeError("with `patches`, forward needs grids, slots and seconds")
    if not isinstance(slots, SlotTensors):
        slots = SlotTensors(**{name: tensor.to(device) for name, tensor in slots.items()})
    if isinstance(memory, Mapping):
        memory = _memory(memory)
    return VisualInputs(patches=patches, grids=grids, slots=slots, seconds=seconds, memory=memory)


def _memory(frames: Mapping[str, Tensor], calls: int = 1) -> MemoryTensors:
    return MemoryTensors(
        patches=frames["patches"],
        grids=frames["grids"],
        times=frames["times"],
        clip=frames["clip"],
        position=frames["position"],
        calls=calls,
    )


def check_placeholders(ids: Tensor, pads: Sequence[int], visual: VisualInputs) -> None:
    """ValueError names the sample of ids [B, T] whose placeholders and features disagree.

    `pads` are the ids of placeholders. The processor and the packer cannot disagree; ids that were
    cut or edited afterwards can.
    """
    batch, length = ids.shape
    at = visual.slots.position.cpu()
    if visual.memory is not None:
        at = torch.cat([at, visual.memory.position.cpu()])
    wanted = torch.bincount((at // max(length, 1)).clamp(max=batch - 1), minlength=batch)
    found = torch.isin(ids.cpu(), torch.tensor(pads)).sum(1)
    for sample, (given, features) in enumerate(zip(found, wanted, strict=True)):
        if given != features:
            raise ValueError(f"sample {sample}: {given} placeholders, {features} features")
