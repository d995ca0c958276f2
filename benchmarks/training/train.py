"""Training steps: packs beside the plain transformers loop, memory by tracing, the gradient's mean.

The loop that a user would write has the same weights, samples, precision, attention kernels and
optimizer, and as many updates; its batches are sorted by length and padded. CPU seconds of one
thread. What needs an accelerator says what it would do where there is none. Minutes of one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

from benchmarks.frame import Bar, at_least, at_most
from benchmarks.training.mixed_samples import (
    LAYOUT,
    PACK_TOKENS,
    VOCABULARY,
    grouped,
    learned,
    length,
    mixed_samples,
    one_by_one,
    packed,
    padded_inputs,
)
from mixtures.tokens.layout_types import LayoutConfig, View
from train.config import load_config
from train.data.collate import Pack, RenderedSample, build_pack
from train.data.tower_plan import TowerRule
from train.model.config import SlowFastConfig
from train.model.inputs import pack_inputs, packed_row
from train.model.loss import CHUNK_BYTES, supervised_losses
from train.model.modeling import SlowFastForConditionalGeneration
from train.sizing.fitting import CONFIGS
from train.sizing.made_pack import PUBLISHED, Budget, Media, made_pack, made_sample, video_of
from train.sizing.memory import part_parameters, rank_memory
from train.sizing.published_sizes import published_config
from train.sizing.tracing import Tracker, kept_by_tower, trace_step

PACKS = "packs"
BATCHES = (1, 2, 4, 8)
UPDATES = 8
"""Steps of the optimizer in which every way learns all samples once."""
SOME = 60
"""Samples by which the parts of our way are told apart."""
DRAWS = 24
TEXT = {
    "model_type": "qwen2",
    "vocab_size": VOCABULARY,
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
Model = SlowFastForConditionalGeneration


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a model learns samples: micro-batches, each called for its summed loss, the fullest one
    first."""

    name: str
    losses: Sequence[Callable[[], Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a way took: passes, mean loss, learned tokens a CPU second, the most bytes held."""

    passes: int
    loss: float
    rate: float
    peak: int


@dataclass(slots=True, kw_only=True)
class Training:
    """A model that learns all micro-batches of a way once, in UPDATES steps of AdamW."""

    model: Model
    way: Way
    optimizer: torch.optim.Optimizer
    peak: int
    summed: float = 0.0
    seconds: float = 0.0

    @classmethod
    def started(cls, way: Way, model: Model) -> Training:
        """Nothing learnt yet; what its fullest micro-batch holds."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        peak = held_by(way.losses[0], model)
        return cls(model=model, way=way, optimizer=optimizer, peak=peak)

    @property
    def name(self) -> str:
        return self.way.name

    def learn(self, update: int, tokens: int) -> None:
        """One step of the optimizer."""
        start = time.process_time()
        for number in np.array_split(np.arange(len(self.way.losses)), UPDATES)[update]:
            loss = self.way.losses[number]()
            (loss * UPDATES / tokens).backward()
            self.summed += loss.item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds += time.process_time() - start

    def learned(self, tokens: int) -> Learned:
        """What it took."""
        return Learned(
            passes=len(self.way.losses),
            loss=self.summed / tokens,
            rate=tokens / self.seconds,
            peak=self.peak,
        )


def run(console: Console) -> list[Bar]:
    torch.set_num_threads(1)
    return [
        *beside_the_plain_loop(console),
        *saved_by_the_tower(),
        *a_rank_of_eight(),
        *mean_of_draws(),
        loss_head(console),
        *on_an_accelerator(console),
    ]


def small_model() -> Model:
    """Width 256, four layers, a vocabulary of 8,192; the tower frozen, as in both stages."""
    torch.manual_seed(0)
    config = SlowFastConfig(
        vision_config=VISION, text_config=TEXT, layout=asdict(LAYOUT), visual_token_ids=[1, 2, 3, 3]
    )
    model = Model(config).train()
    model.vision_tower.requires_grad_(False)
    return model


def beside_the_plain_loop(console: Console) -> list[Bar]:
    """The same samples in packs and padded; some of them in packs without one thing or another."""
    samples = mixed_samples()
    some = samples[:SOME]
    padded_ways = [partial(padded, size, samples) for size in BATCHES]
    took = measured(console, samples, [in_packs(samples), *padded_ways])
    measured(
        console,
        some,
        [
            in_packs(some),
            partial(passes, "one sample a pass", on_learned_rows, one_by_one(some)),
            partial(passes, "logits of every row", on_every_row, packed(some)),
            partial(compiled, packed(some)),
        ],
    )
    return compared(took, max(map(length, samples)))


def measured(
    console: Console, samples: Sequence[RenderedSample], makers: Sequence[Callable[[Model], Way]]
) -> dict[str, Learned]:
    """What each way takes to learn the samples, each with a model of the same weights."""
    tokens, whole = learned(samples), sum(map(length, samples))
    console.print(
        f"{len(samples)} samples of {whole:,} tokens, {tokens:,} of them learned; packs of "
        f"{PACK_TOKENS:,}, {UPDATES} updates"
    )
    runs = [Training.started(make(model), model) for make in makers for model in [small_model()]]
    # in turns, an update each: whatever else the machine does falls on all ways alike
    for update in range(UPDATES):
        for way in runs:
            way.learn(update, tokens)
    took = {way.name: way.learned(tokens) for way in runs}
    for name, found in took.items():
        share = found.rate / next(iter(took.values())).rate
        console.print(
            f"{name:<20} {found.passes:>3} passes, loss {found.loss:.4f}, {found.rate:.0f} "
            f"learned tokens a CPU second ({share:.2f} of packs), peak {found.peak >> 20} MiB",
            highlight=False,
        )
    return took


def compared(took: dict[str, Learned], longest: int) -> list[Bar]:
    """Packs against padded batches, where the longest sample has so many tokens."""
    plain = {size: took[_batches(size)] for size in BATCHES}
    own = took[PACKS]
    holds = next((n for n in BATCHES if n * longest >= PACK_TOKENS), BATCHES[-1])
    fastest = max(way.rate for way in plain.values())
    what = f"peak memory / padded batches of {holds}, the smallest that hold a pack's tokens"
    return [
        at_least("learned tokens per CPU second / fastest padded batches", own.rate / fastest, 1.3),
        at_most(what, own.peak / plain[holds].peak, 0.75),
    ]


def in_packs(samples: Sequence[RenderedSample]) -> Callable[[Model], Way]:
    """Our way: full packs, and logits of learned rows alone."""
    return partial(passes, PACKS, on_learned_rows, packed(samples))


def passes(
    name: str, loss: Callable[[Model, Pack], Tensor], packs: Sequence[Pack], model: Model
) -> Way:
    """A pass for each pack."""
    fullest = sorted(packs, key=lambda pack: pack.supervised, reverse=True)
    return Way(name=name, losses=[partial(loss, model, pack) for pack in fullest])


def compiled(packs: Sequence[Pack], model: Model) -> Way:
    """The decoder's MLPs compiled; attention gathers other rows in every pack."""
    for layer in model.language_model.model.layers:
        layer.mlp.compile(dynamic=True)
    way = passes("compiled MLPs", on_learned_rows, packs, model)
    for loss in way.losses[:2]:
        loss().backward()  # compiles; that is paid once, not by every step
    model.zero_grad()
    return way


def padded(size: int, samples: Sequence[RenderedSample], model: Model) -> Way:
    """transformers' own loss: the sum over a padded batch, by `num_items_in_batch`."""
    batches = [padded_inputs(batch) for batch in grouped(samples, size)]
    return Way(name=_batches(size), losses=[partial(_padded_loss, model, each) for each in batches])


def _batches(size: int) -> str:
    return f"padded batches of {size}"


def on_learned_rows(model: Model, pack: Pack) -> Tensor:
    return model(**pack_inputs(pack)).loss  # type: ignore[no-any-return]


def on_every_row(model: Model, pack: Pack) -> Tensor:
    row = packed_row(pack)
    logits = model.get_output_embeddings()(model.hidden(row))
    return cross_entropy(logits.float(), row.targets, reduction="sum")


def _padded_loss(model: Model, inputs: dict[str, Any]) -> Tensor:
    return model(**inputs, num_items_in_batch=1, use_cache=False).loss  # type: ignore[no-any-return]


def held_by(loss: Callable[[], Tensor], model: Model) -> int:
    """The most bytes of a forward and a backward pass: weights, gradients and Adam's moments, which
    are the same for every way, and what the pass itself holds."""
    tracker = Tracker()
    tracker.track_external(model)
    with tracker:
        loss().backward()
    model.zero_grad()
    states = sum(p.nbytes * (4 if p.requires_grad else 1) for p in model.parameters())
    return max(tracker.peaks.values()) + states


def saved_by_the_tower() -> list[Bar]:
    """One video of 128 frames of 384x384 through the published tower in bf16."""
    budget = Budget(tokens=PUBLISHED.tokens // 3, patches=PUBLISHED.patches // 3)
    full, quarter = (
        made_pack(budget, LayoutConfig(), video_of(View()), TowerRule(keep=keep)) for keep in (1, 4)
    )
    once, again = (
        kept_by_tower(quarter, train=True, again=again)
        / kept_by_tower(full, train=True, again=again)
        for again in (False, True)
    )
    frozen = kept_by_tower(full, train=False, again=False)
    what = "saved for backward by the tower, a quarter of the frames / all"
    return [
        at_most(what, once, 0.30),
        at_most(f"{what}, both with checkpointing", again, 0.60),
        at_most("saved for backward by a frozen tower, bytes", frozen, 0),
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
    """The tower's gradient over draws of a quarter, beside that of all frames; a video of 32 frames
    that turns slowly from one picture into another."""
    model = small_model()
    model.vision_tower.requires_grad_(True)
    sample = made_sample("video", Media(kind="video", frames=32, side=4), LAYOUT, 64)
    rng = np.random.default_rng(1)
    ends = rng.integers(0, 256, (2, *sample.frames[0].shape[1:]))
    share = np.linspace(0, 1, 32)[:, None, None, None]
    sample = replace(sample, frames=[((1 - share) * ends[0] + share * ends[1]).astype(np.uint8)])
    whole = tower_gradient(model, sample, TowerRule())
    rule = TowerRule(keep=4, seed=1)
    drawn = [tower_gradient(model, replace(sample, position=n), rule) for n in range(DRAWS)]
    mean = torch.stack(drawn).mean(0)
    ratio = float(mean.norm() / whole.norm())
    what = f"mean gradient of {DRAWS} draws at keep 1/4"
    return [
        at_least(f"{what}: cosine", float(torch.cosine_similarity(mean, whole, 0)), 0.98),
        at_least(f"{what}: norm / that of all frames", ratio, 0.8),
        at_most(f"{what}: norm / that of all frames, at most", ratio, 1.25),
    ]


def tower_gradient(model: Model, sample: RenderedSample, rule: TowerRule) -> Tensor:
    """Of all parameters of the tower, one after the other."""
    model.zero_grad()
    model(**pack_inputs(build_pack([sample], LAYOUT, rule))).loss.backward()
    found = [p.grad.flatten() for p in model.vision_tower.parameters() if p.grad is not None]
    return torch.cat(found)


def loss_head(console: Console) -> Bar:
    """Width 64, a vocabulary of 151,936, 8,192 positions, all of them learned; traced."""
    chunks, one = (traced_head(size) / 2**30 for size in (CHUNK_BYTES, 1 << 62))
    console.print(f"loss head: {chunks:.2f} GiB in chunks, {one:.2f} GiB in one")
    return at_most("extra peak of the loss head, GiB", chunks, 1.0)


def traced_head(chunk_bytes: int) -> int:
    """The most bytes beside weight, rows and their gradients."""
    with FakeTensorMode():
        hidden = torch.empty(8192, 64, requires_grad=True)
        weight = torch.empty(151_936, 64, requires_grad=True)
        labels = torch.zeros(8192, dtype=torch.int64)
        tracker = Tracker()
        tracker.track_external(hidden, weight, labels)
        with tracker:
            before = tracker.beside_weights()
            rows = torch.arange(8192)
            supervised_losses(hidden, weight, labels, chunk_bytes, rows).sum().backward()
    return max(tracker.peaks.values()) - before


def on_an_accelerator(console: Console) -> list[Bar]:
    """What is measured where there is one; nothing is claimed without."""
    why = "no accelerator on this machine"
    if torch.cuda.is_available():
        why = "not measured by this command yet"
    console.print(
        "On an accelerator: 25 steps of 4 packs of 32,768 tokens (three videos of 128 frames of "
        "384x384) in bf16, the optimizer included, median of the last 20, for 1.5B with the tower "
        "frozen, 1.5B on a quarter of the frames, and 7B with bf16 states (one card holds no more: "
        "a timing configuration); then the plain loop at 1.5B."
    )
    rows = {
        "MFU of one H200, 1.5B, tower frozen": ">= 0.4",
        "MFU of one H200, 7B with bf16 states (a timing configuration)": ">= 0.4",
        "1.5B on an accelerator: learned tokens per second / plain loop": ">= 2",
    }
    return [Bar(what=what, value=None, bar=bar, holds=False, why=why) for what, bar in rows.items()]
