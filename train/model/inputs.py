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

from train.data.attention_blocks import Blocks
from train.data.collate import MemoryFrames, Pack
from train.data.tower_plan import TowerPlan, plan_all
from train.model.memory import MemoryTensors
from train.model.projectors import PatchIndexTensors


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualInputs:
    """Pixels of a row or a batch and where they stand, positions counted over the flattened rows.

    `patches` uint8 [P, 768] and `seconds` float32 [N] as packs hold them; `grids` int64 [N, 2],
    kept on the CPU; `memory` may be None for a model that has none. `tower`: in which calls.
    """

    patches: Tensor
    grids: Tensor
    patch_index: PatchIndexTensors
    seconds: Tensor
    memory: MemoryTensors | None
    tower: TowerPlan[Tensor]


class VisualArguments(NamedTuple):
    """What is shown, as `forward` takes it: tuples of a pack, or dictionaries of the processor."""

    patches: Tensor | None
    grids: Tensor | None
    slots: PatchIndexTensors | Mapping[str, Tensor] | None
    seconds: Tensor | None
    memory: MemoryTensors | Mapping[str, Tensor] | None
    tower: TowerPlan[Tensor] | None


VISUAL_INPUTS = VisualArguments._fields
"""The names of the same among the arguments of `forward`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRow:
    """Whole samples back to back: `ids`, `targets` and `positions` int64 [T] as a pack has them.

    `targets` are a pack's labels: what is predicted at each row. `blocks` keeps the samples apart;
    `supervised` int64 [S] are the rows with a target.
    """

    ids: Tensor
    targets: Tensor
    positions: Tensor
    blocks: Blocks[Tensor]
    supervised: Tensor | None
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
    # empty values count as not given: `generate` passes all of its arguments
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
    blocks: Blocks[Tensor]
    supervised: Tensor | None
    patches: Tensor
    grids: Tensor
    slots: PatchIndexTensors
    seconds: Tensor
    memory: MemoryTensors | None
    tower: TowerPlan[Tensor]


def packed_row(pack: Pack, device: torch.device | str = "cpu") -> PackedRow:
    """A pack as tensors; only `grids` stay on the CPU.

    On an accelerator they come through page-locked memory and are on their way when this returns.
    """
    device = torch.device(device)
    patch_index = {name: getattr(pack.patch_index, name) for name in PatchIndexTensors._fields}
    memory = {f.name: getattr(pack.memory, f.name) for f in fields(pack.memory)}
    return PackedRow(
        ids=moved(pack.tokens, device),
        targets=moved(pack.labels, device),
        positions=moved(pack.positions, device),
        blocks=moved(pack.blocks, device),
        supervised=moved(pack.supervised_rows, device),
        visual=VisualInputs(
            patches=moved(pack.patches, device),
            # grids are read by the host: on a device each look would wait for it
            grids=torch.from_numpy(pack.grids),
            patch_index=PatchIndexTensors(
                **{name: moved(array, device) for name, array in patch_index.items()}
            ),
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
            # page-locked memory and a stream: the copy runs while the host goes on
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
        "targets": row.targets[None],
        "position_ids": row.positions[None],
        "blocks": row.blocks,
        "supervised": row.supervised,
        "patches": row.visual.patches,
        "grids": row.visual.grids,
        "slots": row.visual.patch_index,
        "seconds": row.visual.seconds,
        "memory": row.visual.memory,
        "tower": row.visual.tower,
    }


def row_of(
    input_ids: Tensor | None,
    targets: Tensor | None,
    position_ids: Tensor | None,
    blocks: Blocks[Tensor],
    supervised: Tensor | None,
    visual: VisualInputs | None,
) -> PackedRow:
    """Arguments of `forward`, as `pack_inputs` makes them, as one value; TypeError without any."""
    if input_ids is None or targets is None or position_ids is None or visual is None:
        raise TypeError(
            "with `blocks`, forward needs input_ids, targets, position_ids and what is shown, as "
            "`pack_inputs` gives them (an empty pack has patches too: none of them)"
        )
    return PackedRow(
        # a packed row is [T] inside; forward takes [1, T], as transformers expects a batch axis
        ids=input_ids[0],
        targets=targets[0],
        positions=position_ids[0],
        blocks=blocks,
        supervised=supervised,
        visual=visual,
    )


def packed_visual(shown: VisualArguments) -> VisualInputs | None:
    """What a packed row shows, None for nothing; TypeError where it is not as packs have it."""
    if shown.patches is None:
        return None
    if not isinstance(shown.slots, PatchIndexTensors) or isinstance(shown.memory, Mapping):
        raise TypeError("with `blocks`, forward needs slots and memory as `pack_inputs` gives them")
    return _visual(shown, shown.slots, shown.memory, shown.patches.device)


@torch.compiler.disable  # positions and plans are made on the host, from values
def padded_visual(ids: Tensor, shown: VisualArguments, pads: Sequence[int]) -> VisualInputs | None:
    """What ids [B, T] show, None where they have no placeholder and nothing is shown.

    Features stand where the placeholders (ids of `pads`) do, in order, sample by sample: ids may
    have been padded anew since the processor. ValueError names a sample that has more or fewer
    placeholders than features, or placeholders and nothing shown.
    """
    # placeholders are found by id, wherever padding put them
    is_placeholder = torch.isin(ids, ids.new_tensor(pads))
    if shown.patches is None:
        check_placeholders(is_placeholder.sum(1), torch.zeros(len(ids), dtype=torch.int64))
        return None
    patch_index, memory = (_entries(shown, name) for name in ("slots", "memory"))
    sample = torch.cat([part["sample"].cpu() for part in (patch_index, memory)])
    # counted per sample, so that a batch of wrong pairs is told by its sample
    check_placeholders(is_placeholder.sum(1), torch.bincount(sample, minlength=len(ids)))
    # the i-th feature, counted along the batch, goes where the i-th placeholder stands
    # features of frames and of memories in the order of their placeholders
    order = torch.cat([part["position"].cpu() for part in (patch_index, memory)]).argsort()
    places = torch.empty_like(order)
    places[order] = is_placeholder.flatten().nonzero().squeeze(1).cpu()
    of_index, of_memory = places.split([len(patch_index["position"]), len(memory["position"])])
    put = {
        name: (of_index if name == "position" else patch_index[name]).to(ids.device)
        for name in PatchIndexTensors._fields
    }
    kept = None
    if shown.memory is not None:
        beyond = memory | {"position": of_memory}
        arrays = {name: beyond[name].cpu().numpy() for name in _OF_MEMORY}
        kept = _memory(arrays, ids.device)
    return _visual(shown, PatchIndexTensors(**put), kept, ids.device)


def _visual(
    shown: VisualArguments,
    patch_index: PatchIndexTensors,
    memory: MemoryTensors | None,
    device: torch.device,
) -> VisualInputs:
    """As one value, the tower's calls planned where no pack has done so."""
    if shown.patches is None or shown.grids is None or shown.seconds is None:
        raise TypeError("with `patches`, forward needs grids, slots and seconds")
    tower = shown.tower
    if tower is None:
        # the tower runs over shown frames first, then over those of the memory
        beyond = shown.grids[:0] if memory is None else memory.grids
        # a batch from the processor has no plan of its own
        plan = plan_all(shown.grids.cpu().numpy(), beyond.cpu().numpy())
        tower = moved(plan, device)
    return VisualInputs(
        patches=shown.patches.to(device),
        grids=shown.grids,
        patch_index=patch_index,
        seconds=shown.seconds.to(device),
        memory=memory,
        tower=tower,
    )


_OF_MEMORY = tuple(field.name for field in fields(MemoryFrames))
_ENTRIES = {"slots": {*PatchIndexTensors._fields, "sample"}, "memory": {*_OF_MEMORY, "sample"}}
_NONE = torch.zeros(0, dtype=torch.int64)


def _entries(shown: VisualArguments, name: str) -> dict[str, Any]:
    """The processor's dictionary of this name; TypeError for another value or entry."""
    value = getattr(shown, name)
    # a processor of a model without memory gives none
    if value is None and name == "memory":
        return {"position": _NONE, "sample": _NONE}
    if not isinstance(value, Mapping):
        raise TypeError(f"with `patches`, forward needs {name} as the processor makes them")
    # an entry that nobody reads would be a mistake in silence
    unknown = set(value) - _ENTRIES[name]
    missing = _ENTRIES[name] - set(value)
    if unknown or missing:
        raise TypeError(f"{name}: unknown {sorted(unknown)}, missing {sorted(missing)}")
    return dict(value)


def _memory(frames: Mapping[str, NDArray[Any]], device: torch.device) -> MemoryTensors:
    # frames beyond the cap by clip, padded to the longest: the mask says which are real
    counts = np.bincount(frames["clip"])
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    tensors = {name: moved(array, device) for name, array in frames.items() if name != "grids"}
    return MemoryTensors(
        **tensors,
        grids=torch.from_numpy(frames["grids"]),
        counts=tuple(counts.tolist()),
        real=moved(real, device),
    )


def check_placeholders(placeholders: Tensor, features: Tensor) -> None:
    """ValueError names the first sample whose placeholders and features differ in number.

    The processor and the packer cannot disagree; ids that were cut or edited afterwards can, and
    so can ids that come without what they show.
    """
    if len(features) != len(placeholders):
        raise ValueError(
            f"{len(placeholders)} rows of ids, features of {len(features)} samples; give "
            "forward the whole batch that the processor made"
        )
    # the first sample that disagrees
    for sample, (pads, made) in enumerate(
        zip(placeholders.tolist(), features.tolist(), strict=True)
    ):
        if pads != made:
            raise ValueError(
                f"sample {sample}: {pads} placeholders, {made} features; give ids and what they "
                "show together, as the processor makes them"
            )
