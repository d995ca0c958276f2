"""What a training run is: one tree of frozen dataclasses, defaults in code, YAML overrides.

Layout, frames, tokenizer and packs are the manifest's; a config may state the layout it was
written for, and `check_layout` refuses to train over another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as fields_of
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from mixtures.keys import (
    CountOrShare,
    Integer,
    Positive,
    Rate,
    RateOrZero,
    Rule,
    Share,
    Text,
    YesNo,
    key,
    one_of,
)
from mixtures.recipe import fields
from mixtures.recipe.strict_yaml import load_yaml
from mixtures.tokens.layout_types import LayoutConfig
from shards.errors import UserError
from train.adapter import Adapter
from train.moved_keys import moved
from train.run_keys import NEWEST, HeldOutLoss, Keep

ENGINES = ("torch", "deepspeed")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSize:
    """The vision tower. One that is drawn anew has these sizes; of one that comes from weights a
    key here is an assertion. The last four keys make it the encoder of SigLIP 2
    (train.model.vision.SIGLIP2); without them it is Oryx-ViT's."""

    hidden_size: Annotated[
        Integer | None, key("Width of the tower (drawn anew: 96).", "1152", least=1)
    ] = None
    num_hidden_layers: Annotated[Integer | None, key("Blocks (drawn anew: 4).", "27", least=1)] = (
        None
    )
    num_attention_heads: Annotated[
        Integer | None, key("Heads of a block (drawn anew: 4).", "16", least=1)
    ] = None
    intermediate_size: Annotated[
        Integer | None, key("Width of a block's MLP (drawn anew: 384).", "4304", least=1)
    ] = None
    position_grid: Annotated[
        Integer | None,
        key("Side of the square table of positions (drawn anew: 16).", "24", least=1),
    ] = None
    patch_size: Annotated[
        Integer | None, key("Pixels of a side of a patch: the manifest's.", "16", least=1)
    ] = None
    antialias: Annotated[
        YesNo | None, key("Whether positions are averaged where the table is shrunk.", "true")
    ] = None
    activation: Annotated[
        str | None, one_of("gelu", "gelu_tanh"), key("Of the MLPs.", "gelu_tanh")
    ] = None
    final_norm: Annotated[YesNo | None, key("Whether a norm follows the last block.", "true")] = (
        None
    )
    patch_order: Annotated[
        str | None,
        # letters as einops has them: Oryx-ViT's order is a convolution's, SigLIP 2's that of pixels
        one_of("cphpw", "phpwc"),
        key("How the pixels of a patch are laid out: channels first or last.", "phpwc"),
    ] = None


DRAWN_VISION = VisionSize(
    hidden_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=384,
    position_grid=16,
    patch_size=16,
    antialias=False,
    activation="gelu",
    final_norm=False,
    patch_order="cphpw",
)
"""A tower that is drawn anew, where the config does not say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Positions beyond those that a decoder was trained on, as transformers scales them."""

    kind: Annotated[
        # position interpolation (arXiv 2306.15595) and YaRN (arXiv 2309.00071); what transformers
        # calls dynamic scales beyond `max_position_embeddings` alone, where no sample may lie
        str, one_of("linear", "yarn"), key("transformers' `rope_type`.", "yarn")
    ]
    factor: Annotated[Rate, key("How many times as many positions.", "4")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSize:
    """The decoder. One that is drawn anew is a Qwen2 of these sizes with the manifest's tokens; of
    one that comes from weights a key here is an assertion, but for the number of positions and
    their scaling, which change it."""

    hidden_size: Annotated[
        Integer | None, key("Width of the decoder (drawn anew: 128).", "1536", least=1)
    ] = None
    num_hidden_layers: Annotated[Integer | None, key("Blocks (drawn anew: 4).", "28", least=1)] = (
        None
    )
    num_attention_heads: Annotated[
        Integer | None, key("Heads of a block (drawn anew: 4).", "12", least=1)
    ] = None
    num_key_value_heads: Annotated[
        Integer | None,
        key("Heads of keys and values that they share (drawn anew: 2).", "2", least=1),
    ] = None
    intermediate_size: Annotated[
        Integer | None, key("Width of a block's MLP (drawn anew: 256).", "8960", least=1)
    ] = None
    tie_word_embeddings: Annotated[
        YesNo | None,
        key("Whether the last layer is the table of word vectors (drawn anew: true).", "false"),
    ] = None
    max_position_embeddings: Annotated[
        Integer | None,
        key("Positions of a sequence at most (drawn anew: 32768).", "32768", least=1),
    ] = None
    rope_scaling: Annotated[
        RopeScaling | None, key("How positions are scaled.", "{kind: yarn, factor: 4}")
    ] = None


DRAWN_TEXT = TextSize(
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=256,
    tie_word_embeddings=True,
    max_position_embeddings=32_768,
)
"""A decoder that is drawn anew, where the config does not say otherwise."""


def said(size: VisionSize | TextSize) -> dict[str, Any]:
    """The keys that are written, with their values."""
    return {name: value for name, value in asdict(size).items() if value is not None}


@dataclass(frozen=True, slots=True)
class RandomInit:
    """Weights that are drawn anew; the same seed draws the same."""

    seed: int

    def __str__(self) -> str:
        # as YAML spells it: checkpoints keep this text, and export reads it back
        return f"{{random: {self.seed}}}"


def _init(value: Any) -> str | RandomInit:
    # a place is judged when it is opened; here only that it is one
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    seed = value.get("random") if isinstance(value, dict) and len(value) == 1 else None
    # `type` and not isinstance: to Python, True is an integer
    if type(seed) is not int or seed < 0:
        raise ValueError(value)
    return RandomInit(seed)


YesNoAuto = Annotated[bool | str, one_of(True, False, "auto")]
Init = Annotated[str | RandomInit, Rule("a folder, hf://ORG/NAME@COMMIT, or {random: SEED}", _init)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the model. A part that is not trained has no gradient, no optimizer state and no
    bytes in checkpoints. Norms, biases, learned vectors, position tables and queries never decay.
    """

    init: Annotated[Init, key("Where its weights come from.", "models/Qwen2.5-1.5B-Instruct")] = (
        RandomInit(0)
    )
    train: Annotated[YesNo, key("Whether it is trained.", "false")] = True
    lr: Annotated[Rate, key("Its highest learning rate.", "2e-5")] = 1e-3
    weight_decay: Annotated[RateOrZero, key("Decay of its weight matrices.", "0")] = 0.01
    checkpoint: Annotated[
        YesNo, key("Whether its activations are computed again in the backward pass.", "true")
    ] = False
    adapter: Annotated[
        Adapter | None, key("What is trained in place of its own weights.", "{rank: 16}")
    ] = None

    @property
    def trains_own(self) -> bool:
        """Whether its own weights change."""
        return self.train and self.adapter is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The three parts of the model."""

    tower: Annotated[Part, key("The vision tower.", "{train: false}")] = Part()
    projector: Annotated[
        Part, key("What makes patches into tokens, the memory included.", "{lr: 1e-4}")
    ] = Part()
    decoder: Annotated[Part, key("The language model.", "{lr: 1e-5}")] = Part()


def all_from(parts: Parts, init: str | RandomInit) -> Parts:
    """The same parts, all of which start from one place."""
    return Parts(**{name: replace(getattr(parts, name), init=init) for name in PARTS})


def from_places(parts: Parts, places: Mapping[str, str]) -> Parts:
    """The same parts, each of those named starting from its place."""
    return replace(parts, **{n: replace(getattr(parts, n), init=p) for n, p in places.items()})


PARTS = tuple(field.name for field in fields_of(Parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """AdamW, for all parts alike."""

    betas: Annotated[
        tuple[Rate, Rate],
        key("Decay of the means of gradients and of their squares.", "[0.9, 0.999]"),
    ] = (0.9, 0.98)
    clip: Annotated[Rate, key("The norm that gradients are cut to.", "1")] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How every part's rate goes over the steps: a linear warm-up to `lr`, then `kind`."""

    kind: Annotated[
        str,
        # wsd: warm-up, stable, decay (MiniCPM, arXiv 2404.06395)
        one_of("constant", "cosine", "linear", "wsd"),
        key("What follows the warm-up; `wsd`: constant, and a linear decay at the end.", "cosine"),
    ] = "cosine"
    warmup: Annotated[
        CountOrShare, key("Steps until `lr` is reached, or their share of all steps.", "0.03")
    ] = 40
    decay: Annotated[
        CountOrShare, key("Of `wsd`: the last steps, in which the rate falls.", "0.1")
    ] = Fraction(1, 10)
    floor: Annotated[RateOrZero, key("The last rate, as a share of `lr`.", "0.1")] = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When the run is complete: one of these keys."""

    steps: Annotated[
        Integer | None, key("After so many steps of the optimizer.", "800", least=1)
    ] = None
    tokens: Annotated[
        Integer | None, key("After the step that reaches so many tokens.", "1000000000", least=1)
    ] = None
    epochs: Annotated[
        Positive | None, key("After so many passes over the manifest's order.", "1")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stochastic:
    """Stochastic back-propagation through the tower: of a video's frames, a drawn share is kept for
    the backward pass; single images always are."""

    # Stochastic Backpropagation (Cheng et al., CVPR 2022): the forward pass sees every frame
    keep: Annotated[Share, key("The share of frames that is kept; 1: all.", "1/4")] = Fraction(1)
    mode: Annotated[
        str,
        one_of("uniform_jitter"),
        key("How frames are drawn: one of each run of 1/keep frames.", "uniform_jitter"),
    ] = "uniform_jitter"
    seed: Annotated[Integer, key("Of the draws.", "1", least=0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What becomes of a step whose loss or gradient is not finite, or far above its like."""

    spike: Annotated[
        Rate,
        key("Deviations above the last 200 losses from which a step is one: 6 where it has tens of "
            "packs, more where it has few.", "6"),
    ] = 50.0  # fmt: skip
    policy: Annotated[
        str,
        one_of("stop", "skip"),
        key("`stop`: the run ends there; `skip`: the step is not taken, the run goes on.", "skip"),
    ] = "stop"
    at_most: Annotated[
        Integer, key("Of `skip`: so many steps are skipped, the next one stops.", "3", least=1)
    ] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One run."""

    vision: Annotated[VisionSize, key("Size of the vision tower.", "{hidden_size: 1152}")] = (
        VisionSize()
    )
    text: Annotated[TextSize, key("Size of the decoder.", "{hidden_size: 1536}")] = TextSize()
    parts: Annotated[
        Parts, key("Where each part comes from, and how it is trained.", "{tower: {train: false}}")
    ] = Parts()
    optimizer: Annotated[Optimizer, key("The optimizer.", "{clip: 1}")] = Optimizer()
    schedule: Annotated[Schedule, key("How rates go over the steps.", "{warmup: 0.03}")] = (
        Schedule()
    )
    stop: Annotated[Stop, key("When the run is complete.", "{steps: 800}")] = Stop(steps=100)
    guard: Annotated[Guard, key("What becomes of bad steps.", "{policy: skip}")] = Guard()
    stochastic: Annotated[
        Stochastic, key("Stochastic back-propagation through the tower.", "{keep: 1/4}")
    ] = Stochastic()
    layout: Annotated[
        LayoutConfig | None,
        key("The layout that the config was written for; the manifest must have it.",
            "{slow_frames: 32}"),
    ] = None  # fmt: skip
    projector: Annotated[
        Text, key("Its name in train.model.projectors; it fits the manifest's arrangement.", "isf")
    ] = "gsf"
    pool_before_projection: Annotated[
        YesNo | None,
        key(
            "Whether patches are pooled before the MLP or after it (default: as the projector's "
            "authors do).",
            "false",
        ),
    ] = None
    packed_attention: Annotated[
        str,
        one_of("auto", "sdpa_blocks", "flex", "varlen"),
        key("How samples of a pack are kept apart (docs/model.md); `auto`: `varlen` in half "
            "precision on CUDA, else `sdpa_blocks`.", "flex"),
    ] = "auto"  # fmt: skip
    precision: Annotated[
        str,
        one_of("bf16", "fp32"),
        key("Of weights and activations; `bf16` keeps master weights and moments in fp32.", "bf16"),
    ] = "fp32"
    optimizer_state: Annotated[
        str,
        one_of("fp32", "bf16"),
        key("Of master weights and moments; `bf16`: one process only, for timings.", "bf16"),
    ] = "fp32"
    deterministic: Annotated[
        YesNoAuto,
        key("Whether the same run gives the same bits; `auto`: where no GPU is used.", "true"),
    ] = "auto"
    tower_chunk: Annotated[
        Integer,
        key("Patches of one call of the tower: no frame is split, so up to a frame more.",
            "65536", least=1),
    ] = 16_384  # fmt: skip
    global_batch: Annotated[Integer, key("Packs of a step, over all processes.", "64", least=1)] = 4
    micro_batch: Annotated[Integer, key("Packs of one forward pass.", "2", least=1)] = 1
    save_every: Annotated[Integer, key("Steps between two checkpoints.", "200", least=1)] = 100
    keep: Annotated[Keep, key("Which checkpoints stay.", "{last: 2, every: 1000}")] = NEWEST
    held_out: Annotated[
        HeldOutLoss | None, key("The held-out loss.", "{manifest: runs/val/manifest.json}")
    ] = None
    engine: Annotated[
        str,
        one_of(*ENGINES),
        key("`torch`: one process; `deepspeed`: any number of them.", "deepspeed"),
    ] = "torch"
    zero_stage: Annotated[
        Integer, one_of(1, 2, 3), key("What deepspeed spreads over processes (ZeRO).", "3")
    ] = 2
    offload: Annotated[
        str,
        one_of("none", "optimizer", "weights"),
        key("What deepspeed keeps in CPU memory: `optimizer` states, with `weights` (ZeRO-3) those "
            "too.", "optimizer"),
    ] = "none"  # fmt: skip
    workers: Annotated[Integer, key("Threads that prepare packs ahead; 0: none.", "4", least=0)] = 1
    cache_mib: Annotated[Integer, key("Decoded clips in memory, in MiB.", "4096", least=0)] = 512
    feature_cache: Annotated[
        Text,
        key("A folder for the features of a frozen tower, which runs may share (default: none).",
            "/scratch/features"),
    ] = ""  # fmt: skip
    node_folder: Annotated[
        Text,
        key("A folder on a disk of this node, for the index that its ranks share and for remote "
            "data (default: in the system's temporary folder).", "/scratch/run"),
    ] = ""  # fmt: skip
    node_mib: Annotated[Integer, key("Remote data in that folder, in MiB.", "65536", least=1)] = (
        16_384
    )


def load_config(path: Path) -> Config:
    """The config in `path`; UserError has a line for every mistake: file, key and remedy."""
    value = load_yaml(path)
    return config_of({} if value is None else value, str(path))


def config_of(tree: Any, where: str) -> Config:
    """The config that a tree of plain values says, as one that stands in the file `where`."""
    wrong = [*moved(tree), *fields.mistakes(Config, tree)]
    # what keys say together is judged only where each can be read: no mistake is told twice
    if not wrong:
        config = fields.parse(Config, tree, where)
        wrong = [*_conflicts(config), *(_idle_line(*found) for found in without_effect(tree))]
    if wrong:
        raise UserError(*(f"{where}: {line}" for line in wrong))
    return config


def _conflicts(config: Config) -> Iterator[str]:
    """A line for each thing that keys may not say together."""
    # one end: two would leave open which comes first
    ends = [name for name, value in asdict(config.stop).items() if value is not None]
    if len(ends) != 1:
        yield f"stop: says {' and '.join(ends) or 'nothing'}; write one of steps, tokens, epochs"
    if not any(part.train for part in _parts(config).values()):
        yield "parts: no part is trained; write `train: true` for one"
    # for timings only: without fp32 masters small updates are lost in rounding
    if config.optimizer_state == "bf16" and (config.engine, config.precision) != ("torch", "bf16"):
        yield "optimizer_state: bf16 is for `engine: torch` and `precision: bf16`; write fp32"
    if config.offload != "none" and config.engine != "deepspeed":
        yield "offload: only deepspeed moves states to the CPU; write `engine: deepspeed`"
    if config.offload == "weights" and config.zero_stage != 3:
        yield "offload: weights lie on the CPU under `zero_stage: 3` only; write optimizer"
    if config.stochastic.keep != 1 and not config.parts.tower.train:
        yield "stochastic: the tower is not trained; remove the key"
    if config.feature_cache and config.parts.tower.train:
        yield "feature_cache: the tower is trained, its features change; remove the key"
    if config.feature_cache and (config.engine, config.zero_stage) == ("deepspeed", 3):
        yield "feature_cache: under `zero_stage: 3` all ranks run the tower as one; remove the key"
    # one of N frames: other shares would need draws of unequal runs
    if config.stochastic.keep.numerator != 1:
        yield f"stochastic: keep: {config.stochastic.keep} is not 1/N; write 1/4, or another 1/N"
    kept = config.keep.every
    saved = config.save_every
    if kept is not None and kept % saved:
        yield f"keep: every: {kept} is no multiple of `save_every: {saved}`; write one"
    if config.keep.best is not None:
        every = config.held_out.every if config.held_out else 0
        if not every or config.save_every % every:
            yield (
                "keep: best: every checkpoint needs its held-out loss; write `held_out` with an "
                f"`every` that divides `save_every: {config.save_every}`"
            )
    if config.parts.projector.checkpoint:
        yield "parts: projector: checkpoint: it keeps next to nothing; remove the key"
    for name, part in _parts(config).items():
        if part.adapter is not None and (wrong := part.adapter.wrong_targets()):
            yield f"parts: {name}: adapter: targets: {wrong}"


def without_effect(tree: Any) -> Iterator[tuple[Sequence[str], str]]:
    """The place of each key that is written and, beside what else is written, does nothing; and
    why."""
    schedule = tree.get("schedule", {})
    kind = schedule.get("kind", Schedule().kind)
    if "decay" in schedule and kind != "wsd":
        yield ("schedule", "decay"), f"nothing decays so under `kind: {kind}`"
    if "floor" in schedule and kind == "constant":
        yield ("schedule", "floor"), "nothing falls under `kind: constant`"
    for name, part in tree.get("parts", {}).items():
        # no gradient passes a frozen tower, so it recomputes nothing; one passes a frozen decoder
        frozen = ("lr", "weight_decay", "adapter", *(["checkpoint"] if name == "tower" else []))
        for key_ in frozen if part.get("train") is False else ():
            if key_ in part:
                yield ("parts", name, key_), "does nothing under `train: false`"


def _idle_line(key_path: Sequence[str], why: str) -> str:
    return ": ".join([*key_path, f"{why}; remove it"])


def _parts(config: Config) -> dict[str, Part]:
    return {name: getattr(config.parts, name) for name in PARTS}


def check_layout(config: Config, layout: LayoutConfig, where: str) -> None:
    """Raise UserError where the config was written for another layout than the manifest's."""
    if config.layout is None:
        return
    # layouts are compared as written out, with their defaults
    stated = asdict(config.layout)
    actual = asdict(layout)
    for name, expected in stated.items():
        if expected != actual[name]:
            raise UserError(
                f"layout: {name}: the config says {expected}, the manifest {where} says "
                f"{actual[name]}; change the config, or plan another manifest"
            )
