"""What the model is given, as typed values: a packed row, a padded batch, and what either shows.

`forward` takes named arguments, for DeepSpeed, Trainer and `generate` know no other way; inside the
model they travel as these. T tokens of a row, B rows of a batch, P patches of N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypedDict

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


class VisualArguments(NamedTuple):
    """What is shown, as `forward` takes it: tuples of a pack, or dictionaries of the processor."""

    patches: Tensor | None
    grids: Tensor | None
    slots: SlotTensors | Mapping[str, Tensor] | None
    seconds: Tensor | None
    memory: MemoryTensors | Mapping[str, Tensor] | None


VISUAL_INPUTS = VisualArguments._fields
"""The names of the same among the arguments of `forward`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRow:
    """Whole samples back to back: `ids`, `targets` and `positions` int64 [T] as a pack has them.

    `targets` are a pack's labels: what is predicted at each row. `blocks` keeps the samples apart.
    """

    ids: Tensor
    targets: Tensor
    positions: Tensor
    blocks: Blocks
    visual: VisualInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """Padded rows, as `generate` and transformers' trainers ask for their logits.

    `ids` int64 [B, T], or `embeddings` [B, T, D] in their place; `mask` and `positions` int64
    [B, T]; `cache` holds the tokens before these. `labels` int64 [B, T] are the ids again, -100
    where nothing is learned; they are shifted inside. `logits_to_keep`: so many last rows, or the
    rows with these numbers; 0 means all. `others` go to the language model as they came.
    """

    ids: Tensor | None
    mask: Tensor | None
    positions: Tensor | None
    cache: Cache | None
    embeddings: Tensor | None
    labels: Tensor | None
    shown: VisualArguments
    use_cache: bool | None
    logits_to_keep: int | Tensor
    others: dict[str, Any]


def padded_only(batch: PaddedBatch) -> dict[str, Any]:
    """What a packed row does not take, under the names of `forward`; None where it is not given."""
    keep = batch.logits_to_keep
    return batch.others | {
        "attention_mask": batch.mask,
        "past_key_values": batch.cache,
        "inputs_embeds": batch.embeddings,
        "labels": batch.labels,
        "use_cache": batch.use_cache or None,
        "logits_to_keep": keep if isinstance(keep, Tensor) or keep else None,
    }


class PackedArguments(TypedDict):
    """The arguments of `forward` for a packed row; ids, targets and positions are [1, T]."""

    input_ids: Tensor
    targets: Tensor
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
        targets=moved(pack.labels),
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
        "targets": row.targets[None],
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
    targets: Tensor | None,
    position_ids: Tensor | None,
    blocks: Blocks,
    visual: VisualInputs | None,
) -> PackedRow:
    """Arguments of `forward`, as `pack_inputs` makes them, as one value; TypeError without any."""
    if input_ids is None or targets is None or position_ids is None or visual is None:
        raise TypeError(
            "with `blocks`, forward needs input_ids, targets, position_ids and what is shown, as "
            "`pack_inputs` gives them (an empty pack has patches too: none of them)"
        )
    return PackedRow(
        ids=input_ids[0],
        targets=targets[0],
        positions=position_ids[0],
        blocks=blocks,
        visual=visual,
    )


def packed_visual(shown: VisualArguments) -> VisualInputs | None:
    """What a packed row shows, None for nothing; TypeError where it is not as packs have it."""
    if shown.patches is None:
        return None
    if not isinstance(shown.slots, SlotTensors) or isinstance(shown.memory, Mapping):
        raise TypeError("with `blocks`, forward needs slots and memory as `pack_inputs` gives them")
    return _visual(shown, shown.slots, shown.memory)


def padded_visual(ids: Tensor, shown: VisualArguments, pads: Sequence[int]) -> VisualInputs | None:
    """What ids [B, T] show, None where they have no placeholder and nothing is shown.

    Features stand where the placeholders (ids of `pads`) do, in order, sample by sample: ids may
    have been padded anew since the processor. ValueError names a sample that has more or fewer
    placeholders than features, or placeholders and nothing shown.
    """
    found = torch.isin(ids, ids.new_tensor(pads))
    if shown.patches is None:
        check_placeholders(found.sum(1), torch.zeros(len(ids), dtype=torch.int64))
        return None
    slots, memory = (_entries(shown, name) for name in ("slots", "memory"))
    sample = torch.cat([part["sample"].cpu() for part in (slots, memory)])
    check_placeholders(found.sum(1), torch.bincount(sample, minlength=len(ids)))
    # the i-th feature, counted along the batch, goes where the i-th placeholder stands
    order = torch.cat([part["position"].cpu() for part in (slots, memory)]).argsort()
    places = torch.empty_like(order)
    places[order] = found.flatten().nonzero().squeeze(1).cpu()
    of_slots, of_memory = places.split([len(slots["position"]), len(memory["position"])])
    moved = {
        name: (of_slots if name == "position" else slots[name]).to(ids.device)
        for name in SlotTensors._fields
    }
    kept = None if shown.memory is None else _memory(memory | {"position": of_memory})
    return _visual(shown, SlotTensors(**moved), kept)


def _visual(
    shown: VisualArguments, slots: SlotTensors, memory: MemoryTensors | None
) -> VisualInputs:
    if shown.patches is None or shown.grids is None or shown.seconds is None:
        raise TypeError("with `patches`, forward needs grids, slots and seconds")
    return VisualInputs(
        patches=shown.patches,
        grids=shown.grids,
        slots=slots,
        seconds=shown.seconds,
        memory=memory,
    )


_ENTRIES = {
    "slots": {*SlotTensors._fields, "sample"},
    "memory": {*MemoryTensors._fields, "sample"},
}
_NONE = torch.zeros(0, dtype=torch.int64)


def _entries(shown: VisualArguments, name: str) -> dict[str, Any]:
    """The processor's dictionary of this name; TypeError for another value or entry."""
    value = getattr(shown, name)
    if value is None and name == "memory":
        return {"position": _NONE, "sample": _NONE}
    if not isinstance(value, Mapping):
        raise TypeError(f"with `patches`, forward needs {name} as the processor makes them")
    unknown, missing = set(value) - _ENTRIES[name], _ENTRIES[name] - set(value) - {"calls"}
    if unknown or missing:
        raise TypeError(f"{name}: unknown {sorted(unknown)}, missing {sorted(missing)}")
    return dict(value)


def _memory(frames: Mapping[str, Any], calls: int = 1) -> MemoryTensors:
    return MemoryTensors(
        patches=frames["patches"],
        grids=frames["grids"],
        times=frames["times"],
        clip=frames["clip"],
        position=frames["position"],
        calls=int(frames.get("calls", calls)),
    )


def check_placeholders(given: Tensor, features: Tensor) -> None:
    """ValueError names the first sample whose placeholders and features differ in number.

    The processor and the packer cannot disagree; ids that were cut or edited afterwards can, and
    so can ids that come without what they show.
    """
    if len(features) != len(given):
        raise ValueError(
            f"{len(given)} rows of ids, features of {len(features)} samples; give forward the "
            "whole batch that the processor made"
        )
    for sample, (pads, made) in enumerate(zip(given.tolist(), features.tolist(), strict=True)):
        if pads != made:
            raise ValueError(
                f"sample {sample}: {pads} placeholders, {made} features; give ids and what they "
                "show together, as the processor makes them"
            )
