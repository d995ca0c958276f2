"""What the ranks of a launch tell each other beside tensors: where one refuses, all refuse.

A process that was started alone is rank 0 of 1; nothing here needs a process group then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from shards.errors import UserError

T = TypeVar("T")
# torch's default for NCCL, for gloo too: whoever waits longer waits for a dead rank
TIMEOUT = timedelta(minutes=10)


@contextmanager
def joined(*, wanted: bool) -> Iterator[None]:
    """Inside, the ranks of this launch are one group, if that is `wanted`.

    A group that was there before stays. Left open, it may abort the process at its exit.
    """
    # a test or a launcher may have made the group: it is theirs to end
    is_ours = wanted and not dist.is_initialized()
    if wanted:
        join_group()
    try:
        yield
    finally:
        if is_ours:
            dist.destroy_process_group()


def join_group() -> torch.device:
    """Join the process group that torchrun describes, alone where it does not."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    # alone any free port will do; several ranks must name the same one, torchrun's default
    os.environ.setdefault("MASTER_PORT", "0" if os.environ["WORLD_SIZE"] == "1" else "29500")
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        # before the group: NCCL binds to the current device
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if has_gpu else "gloo", timeout=TIMEOUT)
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_gpu else torch.device("cpu")


def rank() -> int:
    """The number of this process in its launch."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def by_first(work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, on every rank; its UserError is every rank's."""
    # the error travels as a value: raised on rank 0 alone, it would leave the others waiting
    told = [_tried(work) if rank() == 0 else UserError("rank 0 told nothing")]
    if dist.is_initialized():
        dist.broadcast_object_list(told, src=0)
    return _value(told[0])


def by_each(work: Callable[[], T]) -> list[T]:
    """What `work` returns on each rank, in their order; the first UserError is every rank's."""
    mine = _tried(work)
    told = [mine] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(told, mine)
    # in the order of ranks, so that all raise the same one
    return [_value(one) for one in told]


def _tried(work: Callable[[], T]) -> T | UserError:
    """A result or an error, to be sent; a refused file is one that a person can mend."""
    try:
        return work()
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{error.filename}: {error.strerror}; check the path and rights")


def _value(told: T | UserError) -> T:
    """What a rank told; its error is raised."""
    if isinstance(told, UserError):
        raise told
    return told
