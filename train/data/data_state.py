"""What a checkpoint keeps of the data: one step, where it begins, and of which order it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from shards.errors import UserError

STATE_VERSION = 2
_WHERE = ("step", "window", "pack")


class DataState(TypedDict):
    """As JSON: every step of this order before `step` has been handed out.

    The first pack of `step` lies in `window`, whose own first pack is `pack`: so that going on
    counts no window before it.
    """

    v: int
    manifest_id: str
    step: int
    window: int
    pack: int
    global_batch: int


def check_same_order(saved: Mapping[str, object], own: Mapping[str, object]) -> None:
    """Raise UserError unless two states differ in nothing but where they stand."""
    # where it stands may differ, that is what a state is for; what it counts may not
    for name, value in own.items():
        if name not in _WHERE and saved.get(name) != value:
            raise UserError(
                f"data state: {name} was {saved.get(name)}, this run has {value}; "
                "resume with the same one, or start in another --out"
            )
