"""How a recipe shows clips of a pool: where each stands on the grid, and what of it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixtures.pool.columns import IMAGE, Clips
from mixtures.tokens.frame_view import view_placement
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.placement import Size
from shards.id_arrays import find


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlacement:
    """How the frames of one clip are shown.

    Sizes in pixels of what is `stored`, of the `picture` shown and of its `grid`; how much the
    picture is `stretched`, and how much of the grid is `empty`, per mille; all of it for people.
    """

    stored: Size
    picture: Size
    grid: Size
    stretched: int
    empty: int
    told: str

    def to_json(self) -> dict[str, Any]:
        """The JSON value."""
        value = asdict(self)
        return {
            name: list(size) if isinstance(size, tuple) else size for name, size in value.items()
        }


def clip_views(
    clips: Clips, clip_ids: Sequence[str], view: View, layout: LayoutConfig
) -> list[ClipPlacement]:
    """How each clip of one sample is shown."""
    wanted = np.frombuffer(bytes.fromhex("".join(clip_ids)), "V16")
    at = find(clips.ids, wanted)
    # the images of one sample share its token budget, so their number decides their size
    images = int((clips.kind[at] == IMAGE).sum())
    placements = []
    for clip in at.tolist():
        stored = int(clips.width[clip]), int(clips.height[clip])
        kind = "image" if clips.kind[clip] == IMAGE else "video"
        shown = view_placement(kind, stored, view, layout, images)
        placements.append(
            ClipPlacement(
                stored=stored,
                picture=shown.picture,
                grid=(shown.width, shown.height),
                stretched=shown.stretched(*stored),
                empty=shown.empty,
                told=shown.told(*stored),
            )
        )
    return placements
