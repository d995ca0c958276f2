"""A published size as text: parameters, tokens, operations, memory. Nothing is allocated."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from mixtures.tokens.frame_view import view_clip
from mixtures.tokens.layout_types import POOLED, VIDEO_MULTIPLE, LayoutConfig, View
from mixtures.tokens.placement import Placement, grid_of, place
from mixtures.tokens.token_plan import plan_clip, plan_frames
from shards.sample import Clip
from train.sizing.flops import STATE_BYTES, Flops, Work, forward_flops, parameters
from train.sizing.published_sizes import on_paper, published_config

READINGS = {
    "A": (LayoutConfig(), 384 * 384),
    "B": (LayoutConfig(fast_mode="tokens"), 480 * 480),
}
"""Of the paper's "4x4" fast pooling: a stride of 4 patches, or 4 x 4 tokens per frame."""
VIDEOS = {"1:1": (1280, 1280), "16:9": (1280, 720), "4:3": (640, 480), "9:16": (720, 1280)}
IMAGES = {"384x384": (384, 384), "1280x720": (1280, 720), "1536x1536": (1536, 1536)}
FRAMES, QUESTION = 128, 256


def stamp_tokens(text: str) -> int:
    """Tokens of a stamp under Qwen2.5's tokenizer, which splits digits: one per character."""
    return len(text)


def video_placement(size: tuple[int, int], reading: str) -> Placement:
    """Where a video of this size in pixels is shown under the default view."""
    return place(*size, area=READINGS[reading][1], min_area=View().min_area, cell=VIDEO_MULTIPLE)


def video_tokens(size: tuple[int, int], reading: str) -> tuple[int, int]:
    """(content, all) tokens of 128 frames of this size in pixels, at one frame a second."""
    layout = READINGS[reading][0]
    shown = video_placement(size, reading)
    # all frames of a video are shown at one size
    grid = grid_of(shown.width, shown.height)
    plan = plan_frames([grid] * FRAMES, range(FRAMES), "video", layout, stamp_tokens)
    return sum(run.n for run in plan if run.kind in POOLED), sum(run.n for run in plan)


def image_tokens(size: tuple[int, int]) -> int:
    """Tokens of one image alone, newlines and its two ends included."""
    clip = Clip(
        clip_id="",
        kind="image",
        pts=(0,),
        time_base=(1, 1),
        duration=(0, 1),
        width=size[0],
        height=size[1],
        nbytes=(0,),
        rotation=0,
        is_vfr=False,
        source_fps=(0, 1),
        colour="",
    )
    clip_view = view_clip(clip, View(), LayoutConfig())
    return sum(run.n for run in plan_clip(clip_view, "image", LayoutConfig(), stamp_tokens))


def video_flops(size: str) -> Flops:
    """One square video of 128 frames and a question, under reading A."""
    # square frames: of the shapes above those with the most patches
    content, total = video_tokens(VIDEOS["1:1"], "A")
    work = Work(
        # 384 x 384 pixels are 24 x 24 patches of 16
        frames=[24 * 24] * FRAMES,
        samples=[total + QUESTION],
        pooled=content,
        supervised=QUESTION,
    )
    return forward_flops(published_config(size), work)


def tables(size: str) -> Iterator[Table]:
    """What `python -m train model --size SIZE` prints."""
    config = published_config(size)
    parts = parameters(on_paper(config))
    table = Table("part", "parameters", title=f"{size}: parameters")
    for name, count in (*parts.items(), ("all", sum(parts.values()))):
        table.add_row(name, f"{count:,}")
    yield table
    yield _tokens()
    yield _operations(size)
    yield _memory(parts)


def _tokens() -> Table:
    table = Table("shape", "content A", "all A", "content B", "all B", title="tokens")
    for name, size in VIDEOS.items():
        counts = [*video_tokens(size, "A"), *video_tokens(size, "B")]
        table.add_row(f"video {name}, {FRAMES} frames", *(f"{count:,}" for count in counts))
    for name, size in IMAGES.items():
        table.add_row(f"image {name}", "", f"{image_tokens(size):,}", "", f"{image_tokens(size):,}")
    return table


def _operations(size: str) -> Table:
    flops = video_flops(size)
    title = f"TFLOP: one 1:1 video of {FRAMES} frames and {QUESTION} tokens of text, reading A"
    table = Table("vision", "projector", "text", "head", "step, frozen", "step, tuned", title=title)
    values = (flops.vision, flops.projector, flops.text, flops.head, flops.step(), flops.step(1))
    table.add_row(*(f"{value / 1e12:.1f}" for value in values))
    return table


def _memory(parts: dict[str, int]) -> Table:
    frozen = sum(parts.values()) - parts["vision_tower"]
    table = Table("state", "all trained", "tower frozen", title="GiB of states, one process")
    for name, each in STATE_BYTES.items():
        # a frozen tower has weights, but no gradients, masters or moments
        kept = sum(parts.values()) if name == "weights" else frozen
        table.add_row(name, _gib(sum(parts.values()) * each), _gib(kept * each))
    total = sum(STATE_BYTES.values())
    held = frozen * total + parts["vision_tower"] * STATE_BYTES["weights"]
    table.add_row("all", _gib(sum(parts.values()) * total), _gib(held))
    return table


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f}"
