"""Questions as the model reads them, before a pixel is opened: which share what, which go together.

questions ─► prompts ─► runs over the same media ─► batches within bounds
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np

from mixtures.tokens.frame_view import ClipView
from train.data.collate import RenderedSample
from train.data.jpeg_patches import PATCH, PATCH_VALUES, Frames
from train.data.user_media import Seen

BATCH_TOKENS = 32_768  # of one pass, and so for patches: an evaluation needs what a pack needs
BATCH_PATCHES = 65_536
_NO_PIXELS = np.zeros(PATCH_VALUES, np.uint8)


class Shown(NamedTuple):
    """Frames of a medium that are to be opened: of its view, those that the layout uses."""

    seen: Seen
    view: ClipView
    used: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question: its number, its tokens, what it shows, and replies to choose from as tokens.

    `sample` has frames of the right shape and no pixels.
    """

    number: int
    sample: RenderedSample
    shown: tuple[Shown, ...] = ()
    replies: tuple[tuple[int, ...], ...] = ()

    @property
    def ids(self) -> list[int]:
        """Its tokens."""
        ids: list[int] = self.sample.text.ids.tolist()
        return ids

    @property
    def patches(self) -> int:
        """Patches of all frames that it shows: what the tower will run over."""
        return sum(prod(frames.shape[:3]) for frames in self.sample.frames)

    @property
    def looks_at(self) -> tuple[object, ...]:
        """What two prompts have in common that show the same frames of the same media."""
        return tuple((one.seen.clip.clip_id, one.view, one.used) for one in self.shown)


def without_pixels(view: ClipView, used: Sequence[int]) -> Frames:
    """Frames of a view's shape that take no memory."""
    shape = (len(used), view.height // PATCH, view.width // PATCH, PATCH_VALUES)
    # strides of 0: one patch stands for all of them
    return np.broadcast_to(_NO_PIXELS, shape)


def shared_tokens(prompts: Sequence[Prompt]) -> int:
    """How many tokens all prompts begin with, at least one left over; 0 where media lie behind."""
    shortest = min(len(prompt.sample.text.ids) for prompt in prompts)
    ids = np.stack([prompt.sample.text.ids[: shortest - 1] for prompt in prompts])
    differ = np.flatnonzero((ids != ids[0]).any(axis=0))
    shared = int(differ[0]) if len(differ) else shortest - 1
    # a run of visual tokens must not be cut: each begins and ends with tokens of its own
    visual = max(int(prompt.sample.text.visual[:, 0].max(initial=-1)) for prompt in prompts)
    return shared if shared > visual else 0


def beginning(sample: RenderedSample, tokens: int) -> RenderedSample:
    """Its first so many tokens, with all that it shows."""
    text = sample.text
    cut = replace(text, ids=text.ids[:tokens], supervised=text.supervised[:tokens])
    return replace(sample, text=cut)


def batches(prompts: Iterable[Prompt], most: int, before: int = 0) -> Iterator[list[Prompt]]:
    """Prompts in order, as many together as fit the bounds on questions, tokens and patches.

    `before` tokens, and all media, stand before each. Tokens are those of padded rows: the longest
    times the number of rows; a prompt with replies to choose from needs a row for each.
    """
    batch: list[Prompt] = []
    longest = patches = rows = 0
    for prompt in prompts:
        reply = max(map(len, prompt.replies), default=0)
        length = before + len(prompt.sample.text.ids) + reply
        # behind a prefix the media were computed with it
        more = 0 if before else prompt.patches
        wanted = rows + max(len(prompt.replies), 1)
        # padding counts: every row is as long as the longest
        full = len(batch) == most or patches + more > BATCH_PATCHES
        if batch and (full or max(longest, length) * wanted > BATCH_TOKENS):
            yield batch
            batch = []
            longest = patches = rows = 0
        batch.append(prompt)
        longest = max(longest, length)
        patches = patches + more
        rows = rows + max(len(prompt.replies), 1)
    if batch:
        yield batch
