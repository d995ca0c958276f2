"""A stored sample as the model sees it: the manifest's view, layout and text, applied to JPEGs.

Training and inference both come through here, so what a model is asked about is chosen, scaled and
laid out exactly as what it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from types import MappingProxyType

from mixtures.tokens.frame_view import ClipView, view_clip
from mixtures.tokens.layout_types import LayoutConfig, TokenPlan, View
from mixtures.tokens.text import Rendered, TextCodec
from mixtures.tokens.token_plan import frames_used, plan_clip
from shards.sample import Clip, Turn
from train.data.collate import RenderedSample
from train.data.jpeg_patches import Frames

Opener = Callable[[int, ClipView, Sequence[int]], Frames]
"""(clip number, its view, which frames of the view) -> the frames as patches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a manifest shows samples to a model."""

    view: View
    layout: LayoutConfig
    codec: TextCodec


def render(
    key: str,
    turns: Sequence[Turn],
    clips: Sequence[Clip],
    open_frames: Opener,
    rules: Rules,
    *,
    answer: bool = False,
    unfinished: bool = False,
    scores: Mapping[int, Sequence[int]] = MappingProxyType({}),
) -> RenderedSample:
    """One conversation, ready to pack; only frames that the layout uses are opened.

    `answer=True` ends the text where the assistant's reply begins, `unfinished=True` where the last
    turn would end. `scores` holds, by clip number, how well each stored frame fits the question,
    for a view that selects by "query".
    """
    text = partial(rules.codec.render, turns, answer=answer, unfinished=unfinished)
    return _rendered(key, text, clips, open_frames, rules, scores)


def render_prompt(
    key: str,
    text: str,
    clips: Sequence[Clip],
    open_frames: Opener,
    rules: Rules,
    *,
    scores: Mapping[int, Sequence[int]] = MappingProxyType({}),
) -> RenderedSample:
    """The same for a text that is in the template already, its pads standing for the clips."""
    spelled = partial(rules.codec.render_prompt, text)
    return _rendered(key, spelled, clips, open_frames, rules, scores)


def _rendered(
    key: str,
    render_text: Callable[[Sequence[TokenPlan]], Rendered],
    clips: Sequence[Clip],
    open_frames: Opener,
    rules: Rules,
    scores: Mapping[int, Sequence[int]],
) -> RenderedSample:
    # an image's area depends on how many stand beside it
    images = sum(clip.kind == "image" for clip in clips)
    clip_views = [
        view_clip(clip, rules.view, rules.layout, images, scores.get(number, ()))
        for number, clip in enumerate(clips)
    ]
    # layouts are cached by what they depend on: most clips of a source share theirs
    layouts = [
        _laid_out(
            _without_times(clip_view, rules.layout), clip.kind, rules.layout, rules.codec, images
        )
        for clip_view, clip in zip(clip_views, clips, strict=True)
    ]
    used = [frames_used(plan) for plan in layouts]
    return RenderedSample(
        key=key,
        text=render_text(layouts),
        layouts=layouts,
        frames=[open_frames(i, clip_view, used[i]) for i, clip_view in enumerate(clip_views)],
        seconds=[
            seconds_of(clip_view, plan) for clip_view, plan in zip(clip_views, layouts, strict=True)
        ],
    )


def _without_times(clip_view: ClipView, layout: LayoutConfig) -> ClipView:
    """The view, but for what its layout does not depend on: clips of one size share that."""
    count = len(clip_view.frames)
    # stamps spell the times, so that these layouts depend on them
    if layout.timestamps in ("sentence", "per_frame_text"):
        return replace(clip_view, frames=tuple(range(count)), picture=(0, 0))
    # times, and which stored frames they were, decide nothing of a layout without stamps
    return replace(
        clip_view, frames=tuple(range(count)), pts=(0,) * count, time_base=(1, 1), picture=(0, 0)
    )


@lru_cache(maxsize=256)
def _laid_out(
    clip_view: ClipView, kind: str, layout: LayoutConfig, codec: TextCodec, images: int
) -> TokenPlan:
    return plan_clip(clip_view, kind, layout, codec.count, images)


def seconds_of(clip_view: ClipView, plan: TokenPlan) -> list[float]:
    """Presentation times of the frames that the token plan uses."""
    numerator, denominator = clip_view.time_base
    return [clip_view.pts[frame] * numerator / denominator for frame in frames_used(plan)]
