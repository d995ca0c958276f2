"""Rendered samples -> a padded batch, as `forward` takes it without `blocks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchFeature

from mixtures.tokens.text import IM_END
from shards.errors import UserError
from train.data.collate import MemoryFrames, Pack, PatchIndex, RenderedSample, build_pack
from train.data.render import Rules
from train.model.calls.call_options import CallOptions


class SlowFastInputs(BatchFeature):
    """What a processor makes of a batch: tensors, and dictionaries of them."""

    def to(self, *args: Any, **kwargs: Any) -> SlowFastInputs:
        """All tensors on a device. None is cast: pixels are bytes, and times need their digits."""
        device = kwargs.get("device", args[0] if args else None)
        if device is not None and not isinstance(device, torch.dtype):
            self.data = _moved(self.data, device, kwargs.get("non_blocking", False))
        return self


def _moved(value: Any, target: Any, non_blocking: bool) -> Any:
    if isinstance(value, Tensor):
        return value.to(device=target, non_blocking=non_blocking)
    if isinstance(value, Mapping):
        return {name: _moved(one, target, non_blocking) for name, one in value.items()}
    return value


def padded_inputs(
    samples: Sequence[RenderedSample], options: CallOptions, rules: Rules, *, masks: bool = False
) -> SlowFastInputs:
    """One pack of all samples, its rows moved to where padding puts them.

    With `masks`, `assistant_masks` mark what an assistant says.
    """
    if options.cut:
        samples = [_cut(sample, options.max_length or 0) for sample in samples]
    # the same collation as training: a batch is a pack whose samples lie in rows of their own
    pack = build_pack(samples, rules.layout)
    places, mask = _padded(np.diff(pack.cu_seqlens), options)
    # the end token in places that hold nothing: the mask hides it
    ids = np.full(mask.size, rules.codec.token_id(IM_END), np.int64)
    ids[places] = pack.tokens
    inputs = {"input_ids": ids}
    if options.mask:
        inputs["attention_mask"] = mask.ravel().astype(np.int64)
    if masks:
        learned = np.zeros(mask.size, np.int64)
        learned[places] = np.concatenate([s.text.supervised for s in samples])
        inputs["assistant_masks"] = learned
    made = {name: value.reshape(mask.shape) for name, value in inputs.items()}
    arrays = made | _visual(pack, places)
    return SlowFastInputs(arrays if options.tensors == "np" else _tensors(arrays))


def _cut(sample: RenderedSample, length: int) -> RenderedSample:
    """The sample cut to so many tokens; ValueError where that would cut what it shows."""
    text = sample.text
    ends = [(row[0] + sample.layouts[row[1]][row[2]].n) for row in text.visual]
    # media may be cut as a whole only, and that changes what is asked
    shown = max(ends, default=0)
    if min(shown, len(text.ids)) > length:
        raise ValueError(
            f"{sample.key}: truncation to {length} tokens would cut its media, which end at token "
            f"{shown}; raise max_length"
        )
    kept = replace(text, ids=text.ids[:length], supervised=text.supervised[:length])
    return replace(sample, text=kept)


def _padded(
    lengths: NDArray[np.int64], options: CallOptions
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each token of a flat row goes in [B, T] flattened; and which places hold one."""
    longest = int(lengths.max(initial=0))
    if options.ragged and (lengths != longest).any():
        raise UserError(
            f"processor: padding=False for rows of {lengths.tolist()} tokens; leave it out"
        )
    if options.fill:
        longest = max(longest, options.max_length or 0)
    steps = np.arange(-(-longest // options.multiple) * options.multiple)
    # left: the last `length` places of a row are real; right: the first ones
    behind = len(steps) - lengths[:, None]
    mask = steps >= behind if options.side == "left" else steps < lengths[:, None]
    return np.flatnonzero(mask), mask


def _visual(pack: Pack, moved_to: NDArray[np.int64]) -> dict[str, Any]:
    """The visual inputs, their positions moved to the padded batch."""
    patch_index = {f.name: getattr(pack.patch_index, f.name) for f in fields(PatchIndex)}
    memory = {f.name: getattr(pack.memory, f.name) for f in fields(MemoryFrames)}
    for part in (patch_index, memory):
        # places are counted over the flattened batch, and each knows its sample
        at = part["position"]
        part["position"] = moved_to[at]
        part["sample"] = np.searchsorted(pack.cu_seqlens[1:], at, side="right")
    return {
        "patches": pack.patches,
        "grids": pack.grids,
        "seconds": pack.times,
        "slots": patch_index,
        "memory": memory,
    }


def _tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tensors(one) for name, one in value.items()}
    return torch.from_numpy(value)
