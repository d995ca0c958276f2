"""Micro-batches of gradient accumulation: the packs of a step on their way to a device.

Where the device's memory is full, the error names the samples that filled it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from shards.errors import UserError
from train.data.collate import Pack
from train.model.inputs import PackedArguments, pack_inputs

_SHOWN = 3
"""Samples that an error names."""


def on_device(
    packs: Sequence[Pack], device: torch.device
) -> Iterator[tuple[Pack, PackedArguments]]:
    """Each pack, and the arguments of `forward`; the next one is copied while one is computed."""
    # without a device that computes by itself there is nothing to overlap
    if device.type != "cuda":
        yield from ((pack, pack_inputs(pack, device)) for pack in packs)
        return
    # a stream of its own for copies (double buffering): the next pack travels while this one is
    # computed
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    begun = _begin(packs[0], device, copying)
    for number, pack in enumerate(packs, 1):
        inputs, there = begun
        if number < len(packs):
            begun = _begin(packs[number], device, copying)
        # the device waits, not this thread
        computing.wait_event(there)
        for leaf in tree_leaves(list(inputs.values())):
            if isinstance(leaf, torch.Tensor) and leaf.is_cuda:
                leaf.record_stream(computing)  # not to be given away before it is done
        yield pack, inputs


def scored(model: nn.Module, pack: Pack, device: torch.device) -> float:
    """The summed loss of a pack, without gradients."""
    was_training = model.training
    model.eval()
    with torch.no_grad(), named_where_memory_ends(pack):
        loss: float = model(**pack_inputs(pack, device)).loss.item()
    model.train(was_training)
    return loss


def _begin(
    pack: Pack, device: torch.device, stream: torch.cuda.Stream
) -> tuple[PackedArguments, torch.cuda.Event]:
    with torch.cuda.stream(stream):
        return pack_inputs(pack, device), stream.record_event()


@contextmanager
def named_where_memory_ends(pack: Pack) -> Iterator[None]:
    """UserError in the place of torch's: which pack did not fit, and what makes it fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        # the first samples name the pack; all of them would fill the screen
        shown = ", ".join(pack.keys[:_SHOWN])
        more = len(pack.keys) - _SHOWN
        patches = len(pack.patches) + len(pack.memory.patches)
        raise UserError(
            f"out of memory in a pack of {len(pack.keys)} samples ({shown}"
            f"{f' and {more} more' if more > 0 else ''}): {len(pack.tokens)} tokens, "
            f"{patches} patches; set checkpoint: true under parts: tower and decoder, lower "
            f"micro_batch or tower_chunk, or see python -m train run ... --dry-run ({error})"
        ) from error
