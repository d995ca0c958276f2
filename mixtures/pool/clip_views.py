"""How a recipe shows clips of a pool: where each stands on the grid, and what of it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixtures.pool.columns import IMAGE, Clips
from mixtures.tokens.frame_view import view_placement
from mixtures.tokens.layout_types import LayoutConfig, View
from shards.id_arrays import find


def clip_views(
    clips: Clips, clip_ids: Sequence[str], view: View, layout: LayoutConfig
) -> list[dict[str, Any]]:
    """Of each clip of one sample: sizes in pixels of what is `stored`, of the `picture` shown and
    of its `grid`; how much the picture is `stretched`, and how much of the grid is `empty`, per
    mille."""
    wanted = np.frombuffer(bytes.fromhex("".join(clip_ids)), "V16")
    at = find(clips.ids, wanted)
    images = int((clips.kind[at] == IMAGE).sum())
    found = []
    for place in at.tolist():
        stored = int(clips.width[place]), int(clips.height[place])
        kind = "image" if clips.kind[place] == IMAGE else "video"
        shown = view_placement(kind, stored, view, layout, images)
        found.append(
            {
                "stored": list(stored),
                "picture": list(shown.picture),
                "grid": [shown.width, shown.height],
                "stretched": shown.stretched(*stored),
                "empty": shown.empty,
                "told": shown.told(*stored),
            }
        )
    return found
