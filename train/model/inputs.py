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

from train.data.attention_blocks import Blocks
from train.data.collate import MemoryFrames, Pack
from train.data.tower_plan import TowerPlan, plan_all
from train.model.memory import MemoryTensors
from train.model.projectors import SlotTensors


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualInputs:
    """Pixels of a row or a batch and where they stand, positions counted over the flattened rows.

    `patches` uint8 [P, 768] and `seconds` float32 [N] as packs hold them; `grids` int64 [N, 2],
    kept on the CPU; `memory` may be None for a model that has none. `tower`: in which calls.
    """

    patches: Tensor
    grids: Tensor
    slots: SlotTensors
    seconds: Tensor
    memory: MemoryTensors | None
    tower: TowerPlan[Tensor]


VISUAL_INPUTS = tuple(field.name for field in fields(VisualInputs))
"""The names of the same among the arguments of `forward`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRow:
    """Whole samples back to back: `ids`, `labels` and `positions` int64 [T] as a pack has them.

    `blocks` keeps the samples apart; `supervised` int64 [S] are the rows with a label.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    blocks: Blocks[Tensor]
    supervised: Tensor | None
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
    blocks: Blocks[Tensor]
    supervised: Tensor | None
    patches: Tensor
    grids: Tensor
    slots: SlotTensors
    seconds: Tensor
    memory: MemoryTensors | None
    tower: TowerPlan[Tensor]


def packed_row(pack: Pack, device: torch.device | str = "cpu") -> PackedRow:
    """A pack as tensors; only `grids` stay on the CPU.

    On an accelerator they come through page-locked memory and are on their way when this returns.
    """
    device = torch.device(device)
    slots = {name: getattr(pack.slots, name) for name in SlotTensors._fields}
    memory = {f.name: getattr(pack.memory, f.name) for f in fields(pack.memory)}
    return PackedRow(
        ids=moved(pack.tokens, device),
        labels=moved(pack.labels, device),
        positions=moved(pack.positions, device),
        blocks=moved(pack.blocks, device),
        supervised=moved(pack.supervised_rows, device),
        visual=VisualInputs(
            patches=moved(pack.patches, device),
            grids=torch.from_numpy(pack.grids),
            slots=SlotTensors(**{name: moved(array, device) for name, array in slots.items()}),
            seconds=moved(pack.times, device),
            memory=_memory(memory, device),
            tower=moved(pack.tower, device),
        ),
    )


def moved(value: Any, device: torch.device) -> Any:
    """Arrays, and named tuples and tuples of them, as tensors on a device; the rest as it is."""
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value)
        return (
            tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
        )
    if isinstance(value, tuple):
        parts = [moved(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def pack_inputs(pack: Pack, device: torch.device | str = "cpu") -> PackedArguments:
    """`packed_row` as the keyword arguments of the model's forward."""
    row = packed_row(pack, device)
    return {
        "input_ids": row.ids[None],
        "labels": row.labels[None],
        "position_ids": row.positions[None],
        "blocks": row.blocks,
        "supervised": row.supervised,
        "patches": row.visual.patches,
        "grids": row.visual.grids,
        "slots": row.visual.slots,
        "seconds": row.visual.seconds,
        "memory": row.visual.memory,
        "tower": row.visual.tower,
    }


def row_of(
    input_ids: Tensor | None,
    labels: Tensor | None,
    position_ids: Tensor | None,
    blocks: Blocks[Tensor],
    supervised: Tensor | None,
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
        supervised=supervised,
        visual=visual,
    )


def visual_inputs(
    patches: Tensor | None,
    grids: Tensor | None,
    slots: SlotTensors | Mapping[str, Tensor] | None,
    seconds: Tensor | None,
    memory: MemoryTensors | Mapping[str, Tensor] | None,
    tower: TowerPlan[Tensor] | None,
    device: torch.device,
) -> VisualInputs | None:
    """The arguments of `forward` as one value, None where nothing is shown.

    The dictionaries that the processor makes become tuples on `device`, and the tower's calls are
    planned where no pack has done so.
    """
    if patches is None:
        return None
    if grids is None or slots is None or seconds is None:
        raise TypeError("with `patches`, forward needs grids, slots and seconds")
    if not isinstance(slots, SlotTensors):
        slots = SlotTensors(**{name: tensor.to(device) for name, tensor in slots.items()})
    if isinstance(memory, Mapping):
        names = [f.name for f in fields(MemoryFrames)]
        memory = _memory({name: memory[name].cpu().numpy() for name in names}, device)
    if tower is None:
        beyond = grids[:0] if memory is None else memory.grids
        tower = moved(plan_all(grids.cpu().numpy(), beyond.cpu().numpy()), device)
    return VisualInputs(
        patches=patches.to(device),
        grids=grids,
        slots=slots,
        seconds=seconds.to(device),
        memory=memory,
        tower=tower,
    )


def _memory(frames: Mapping[str, NDArray[Any]], device: torch.device) -> MemoryTensors:
    counts = np.bincount(frames["clip"])
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    tensors = {name: moved(array, device) for name, array in frames.items() if name != "grids"}
    return MemoryTensors(
        **tensors,
        grids=torch.from_numpy(frames["grids"]),
        counts=tuple(counts.tolist()),
        real=moved(real, device),
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
