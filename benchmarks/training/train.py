"""Training steps: packs beside the plain transformers loop, memory by tracing, the gradient's mean.

The loop that a user would write has the same weights, samples, precision, attention kernels and
optimizer, and as many updates; its batches are grouped by length and padded. CPU seconds of one
thread. What needs an accelerator says what it would do where there is none. About ten minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.frame import Bar, at_least, at_most
from benchmarks.training.mixed_samples import (
    COUNTS,
    LAYOUT,
    PACK_TOKENS,
    grouped,
    mixed_samples,
    packed,
    padded_inputs,
    supervised,
)
from mixtures.tokens.layout_types import LayoutConfig, View
from train.config import load_config
from train.data.collate import RenderedSample, build_pack
from train.data.tower_plan import TowerRule
from train.model.config import SlowFastConfig
from train.model.inputs import pack_inputs
from train.model.loss import supervised_loss
from train.model.modeling import SlowFastForConditionalGeneration
from train.sizing.fitting import CONFIGS
from train.sizing.made_pack import PUBLISHED, Budget, Media, made_pack, made_sample, video_of
from train.sizing.memory import part_parameters, rank_memory
from train.sizing.published_sizes import published_config
from train.sizing.tracing import Tracker, kept_by_tower, trace_step

BATCHES = (1, 2, 4, 8)
UPDATES = 8
"""Steps of the optimizer in which either side learns all samples once."""
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 8192,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 704,
    "tie_word_embeddings": True,
}
VISION = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "position_grid": 16,
}
Losses = list[Callable[[], Tensor]]
"""Micro-batches of a run: each call is a forward pass, its loss a sum over learned tokens."""


def run(console: Console) -> list[Bar]:
    torch.set_num_threads(1)
    return [
        *beside_the_plain_loop(console),
        *saved_by_the_tower(),
        *a_rank_of_eight(),
        *mean_of_draws(),
        loss_head(),
        *on_an_accelerator(),
    ]


def small_model() -> SlowFastForConditionalGeneration:
    """Width 256, four layers, a vocabulary of 8,192; the tower frozen, as in both stages."""
    torch.manual_seed(0)
    config = SlowFastConfig(
        vision_config=VISION, text_config=TEXT, layout=asdict(LAYOUT), visual_token_ids=[1, 2, 3, 3]
    )
    model = SlowFastForConditionalGeneration(config).train()
    model.vision_tower.requires_grad_(False)
    return model


def ours(model: SlowFastForConditionalGeneration, samples: Sequence[RenderedSample]) -> Losses:
    return [partial(_packed_loss, model, pack_inputs(pack)) for pack in packed(samples)]


def _packed_loss(model: SlowFastForConditionalGeneration, inputs: object) -> Tensor:
    return model(**inputs).loss  # type: ignore[arg-type,no-any-return]


def plain(
    model: SlowFastForConditionalGeneration, samples: Sequence[RenderedSample], size: int
) -> Losses:
    """transformers' own loss: the sum over a padded batch, by `num_items_in_batch`."""
    batches = grouped(samples, size)
    return [partial(_padded_loss, model, padded_inputs(batch)) for batch in batches]


def _padded_loss(model: SlowFastForConditionalGeneration, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs, num_items_in_batch=1, use_cache=False).loss  # type: ignore[no-any-return]


def trained(model: SlowFastForConditionalGeneration, losses: Losses, tokens: int) -> float:
    """All micro-batches once, in UPDATES steps; the mean loss over learned tokens."""
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4, fused=True)
    summed = 0.0
    for part in np.array_split(np.arange(len(losses)), UPDATES):
        for number in part:
            loss = losses[number]()
            (loss * UPDATES / tokens).backward()
            summed += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
    return summed / tokens


def peak(losses: Losses, model: SlowFastForConditionalGeneration) -> int:
    """The most bytes beside weights and gradients in the first micro-batch: the longest one."""
    tracker = Tracker()
    tracker.track_external(model)
    with tracker:
        losses[0]().backward()
    model.zero_grad()
    return max(tracker.peaks.values())


def beside_the_plain_loop(console: Console) -> list[Bar]:
    samples = mixed_samples()
    tokens = supervised(samples)
    ways = {"packs": lambda model: ours(model, samples)}
    for size in BATCHES:
        ways[f"batches of {size}"] = lambda model, size=size: plain(model, samples, size)
    table = Table("way", "passes", "mean loss", "learned tokens / CPU second", "peak MiB")
    rates, peaks = {}, {}
    for name, make in ways.items():
        model = small_model()
        losses = make(model)
        peaks[name] = peak(losses, model) + states(model)
        start = time.process_time()
        loss = trained(model, losses, tokens)
        rates[name] = tokens / (time.process_time() - start)
        row = (f"{len(losses)}", f"{loss:.4f}", f"{rates[name]:.0f}", f"{peaks[name] / 2**20:.0f}")
        table.add_row(name, *row)
    console.print(
        f"{sum(COUNTS.values())} samples, {tokens:,} learned tokens, packs of {PACK_TOKENS:,}"
    )
    console.print(table)
    own = rates.pop("packs")
    longest = max(len(sample.text.ids) for sample in samples)
    holds = next((n for n in BATCHES if n * longest >= PACK_TOKENS), BATCHES[-1])
    what = f"peak memory / batches of {holds}, the smallest that holds a pack's tokens"
    return [
        at_least(
            "learned tokens per CPU second / fastest padded batch", own / max(rates.values()), 1.3
        ),
        at_most(what, peaks["packs"] / peaks[f"batches of {holds}"], 0.75),
    ]


def states(model: SlowFastForConditionalGeneration) -> int:
    """Weights, gradients and Adam's moments in fp32: the same for both sides."""
    return sum(p.nbytes * (4 if p.requires_grad else 1) for p in model.parameters())


def saved_by_the_tower() -> list[Bar]:
    """One video of 128 frames of 384x384 through the published tower in bf16."""
    budget = Budget(tokens=PUBLISHED.tokens // 3, patches=PUBLISHED.patches // 3)
    full, quarter = (
        made_pack(budget, LayoutConfig(), video_of(View()), TowerRule(keep=keep)) for keep in (1, 4)
    )
    plain_share, again_share = (
        kept_by_tower(quarter, train=True, again=again)
        / kept_by_tower(full, train=True, again=again)
        for again in (False, True)
    )
    what = "saved for backward by the tower, a quarter of the frames / all"
    return [
        at_most(what, plain_share, 0.30),
        at_most(f"{what}, both with checkpointing", again_share, 0.60),
        at_most(
            "saved for backward by a frozen tower", kept_by_tower(full, train=False, again=False), 0
        ),
    ]


def a_rank_of_eight() -> list[Bar]:
    """Stage two as its configs have it, packs of three full videos."""
    bars = []
    for size, gigabytes in (("1b", 80), ("7b", 141)):
        config, wanted = load_config(CONFIGS / f"stage2_{size}.yaml"), published_config(size)
        rule = TowerRule(chunk=config.tower_chunk)
        pack = made_pack(PUBLISHED, wanted.layout_config(), video_of(View()), rule)
        step = trace_step(config, wanted, pack)
        held = rank_memory(config, part_parameters(wanted), 8, step).total
        bars.append(at_most(f"GB of a rank of 8, stage two at {size}", held / 1e9, gigabytes))
    return bars


def mean_of_draws() -> list[Bar]:
    """The tower's gradient over 24 draws of a quarter, beside that of all frames; a video of 32
    frames that turns slowly from one picture into another."""
    model = small_model()
    model.vision_tower.requires_grad_(True)
    sample = made_sample("video", Media(kind="video", frames=32, side=4), LAYOUT)
    rng = np.random.default_rng(1)
    ends = rng.integers(0, 256, (2, *sample.frames[0].shape[1:]))
    share = np.linspace(0, 1, 32)[:, None, None, None]
    sample = replace(sample, frames=[((1 - share) * ends[0] + share * ends[1]).astype(np.uint8)])
    whole = tower_gradient(model, sample, TowerRule())
    rule = TowerRule(keep=4, seed=1)
    drawn = [tower_gradient(model, replace(sample, position=i), rule) for i in range(24)]
    mean = torch.stack(drawn).mean(0)
    ratio = float(mean.norm() / whole.norm())
    what = "mean gradient of 24 draws at keep 1/4"
    return [
        at_least(f"{what}: cosine", float(torch.cosine_similarity(mean, whole, 0)), 0.98),
        at_least(f"{what}: norm / that of all frames", ratio, 0.8),
        at_most(f"{what}: norm / that of all frames, at most", ratio, 1.25),
    ]


def tower_gradient(
    model: SlowFastForConditionalGeneration, sample: RenderedSample, rule: TowerRule
) -> Tensor:
    model.zero_grad()
    model(**pack_inputs(build_pack([sample], LAYOUT, rule))).loss.backward()
    found = [p.grad.flatten() for p in model.vision_tower.parameters() if p.grad is not None]
    return torch.cat(found)


def loss_head() -> Bar:
    """Width 64, a vocabulary of 151,936, 8,192 positions, all of them learned; traced."""
    with FakeTensorMode():
        hidden = torch.empty(8192, 64, requires_grad=True)
        weight = torch.empty(151_936, 64, requires_grad=True)
        labels = torch.zeros(8192, dtype=torch.int64)
        tracker = Tracker()
        tracker.track_external(hidden, weight, labels)
        with tracker:
            before = tracker.beside_weights()
            supervised_loss(hidden, weight, labels, rows=torch.arange(8192)).backward()
    extra = max(tracker.peaks.values()) - before
    return at_most("extra peak of the loss head, GiB", extra / 2**30, 1.0)


def on_an_accelerator() -> list[Bar]:
    """What is measured where there is one; nothing is claimed without."""
    why = (
        "no accelerator on this machine; it would take 25 steps of 4 packs of 32,768 tokens in "
        "bf16, the optimizer included, and give the median of the last 20"
    )
    if torch.cuda.is_available():
        why = "not measured by this command yet"
    rows = {
        "MFU of one H200, 1.5B, tower frozen": ">= 0.4",
        "MFU of one H200, 7B with bf16 states (a timing configuration)": ">= 0.4",
        "1.5B on an accelerator: learned tokens per second / plain loop": ">= 2",
    }
    return [Bar(what=what, value=None, bar=bar, holds=False, why=why) for what, bar in rows.items()]
