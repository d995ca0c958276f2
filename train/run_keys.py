"""What a run keeps, looks at and shows: keys of a training config and words of a command line,
none of which changes what it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mixtures.keys import Integer, Text, key


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which checkpoints stay."""

    # two: the newest could be damaged, and the one before it is what a run goes back to
    last: Annotated[Integer, key("So many of the newest.", "3", least=1)] = 2
    every: Annotated[
        Integer | None, key("Besides, those whose step is a multiple of it.", "1000", least=1)
    ] = None
    best: Annotated[
        Integer | None, key("Besides, so many with the lowest held-out loss.", "1", least=1)
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Of one launch: the experiment trackers that are told of each step, and how many steps are
    traced."""

    trackers: tuple[str, ...] = ()
    profile: int = 0


NOTHING = Shown()
"""No tracker and no trace."""


NEWEST = Keep()
"""The newest two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutLoss:
    """The loss on samples that are not trained on, by source; no number of processes changes it."""

    manifest: Annotated[Text, key("Their manifest.json.", "runs/val/manifest.json")]
    data: Annotated[
        Text, key("Its pool or shards (default: the run's own).", "runs/val/shards")
    ] = ""
    every: Annotated[
        Integer, key("Steps between two looks; one more is behind the last.", "200", least=1)
    ] = 200
    samples: Annotated[
        Integer, key("So many samples, the first ones of its order.", "512", least=1)
    ] = 256
