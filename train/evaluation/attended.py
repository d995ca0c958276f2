"""How a model's attention spreads over the frames that it was shown, while it writes a reply.

Attention weights describe what a layer reads, and are no proof of what a reply hangs on (Jain and
Wallace, arXiv 1902.10186): they are shown beside scores, and nothing is decided by them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from mixtures.tokens.frame_view import ClipView
from mixtures.tokens.layout_types import LEARNED, POOLED
from shards.sample import Turn
from train.data.collate import Pack, RenderedSample, build_pack
from train.data.jpeg_patches import Frames, open_jpegs
from train.data.render import render
from train.evaluation.answerer import Answerer, VisualQuestion, placed
from train.model.inputs import packed_row
from train.model.modeling import SlowFastForConditionalGeneration


@dataclass(frozen=True, slots=True, kw_only=True)
class AttendedFrame:
    """The share of a reply's attention on the tokens of a frame in a pathway: mean over the reply's
    tokens, heads and layers. What is left of 1 lies on text and on learned separators."""

    pathway: str
    seconds: float
    share: float


@torch.inference_mode()
def attended(answerer: Answerer, question: VisualQuestion, reply: str) -> list[AttendedFrame]:
    """Where a model attends that says this reply, by pathway and time; empty without media."""
    sample = _with_reply(answerer, question, reply)
    pack = build_pack([sample], answerer.rules.layout)
    shares = attention_of_reply(answerer.model, pack).tolist()
    index = pack.patch_index
    by_frame: dict[tuple[str, float], float] = defaultdict(float)
    for position, feature, frame in zip(index.position, index.feature, index.frame, strict=True):
        # separators and the like are learned: they belong to no frame's picture
        if feature >= len(LEARNED):
            pathway = POOLED[index.kind[feature - len(LEARNED)]]
            by_frame[pathway, float(pack.times[frame])] += shares[position]
    return [
        AttendedFrame(pathway=pathway, seconds=seconds, share=share)
        for (pathway, seconds), share in sorted(by_frame.items())
    ]


def attention_of_reply(model: SlowFastForConditionalGeneration, pack: Pack) -> torch.Tensor:
    """The attention [T] on each row of one sample, by those rows that predict its reply."""
    row = packed_row(pack, model.device)
    assert row.supervised is not None  # a pack names its supervised rows
    # pixels pass tower and projector as ever; only the decoder's attention is another
    rows = model.embed(row.ids, row.visual)
    with _eager(model):
        out = model.language_model(
            inputs_embeds=rows[None],
            position_ids=row.positions[None],
            output_attentions=True,
            use_cache=False,
        )
    # [1, heads, T, T] of each layer, summed up one by one: their stack would not be small
    total = torch.zeros(len(row.ids), device=rows.device)
    for layer in out.attentions:
        # rows that predict the reply, over all heads
        total += layer[0, :, row.supervised].float().mean(dim=(0, 1))
    return total / len(out.attentions)


@contextmanager
def _eager(model: SlowFastForConditionalGeneration) -> Iterator[None]:
    """Inside, the decoder keeps its attention weights, which only plain attention computes."""
    before = model.decoder_attention
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _with_reply(answerer: Answerer, question: VisualQuestion, reply: str) -> RenderedSample:
    """The question and its reply, as they would be trained on."""
    turn, seen = placed(question)

    def opened(clip: int, view: ClipView, used: Sequence[int]) -> Frames:
        return open_jpegs(seen[clip].jpegs, view, used, seen[clip].clip)

    return render(
        "reply",
        [turn, Turn(role="assistant", text=reply)],
        [medium.clip for medium in seen],
        opened,
        answerer.rules,
        scores={i: answerer.scores(medium, question.text) for i, medium in enumerate(seen)},
    )
