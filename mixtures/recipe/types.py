"""What a recipe says, as frozen values: sources, held-out data, rules.

Each field with a `key` is a key of the file; `docs/recipe_reference.md` is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from mixtures.keys import (
    UNKNOWN,
    Integer,
    Name,
    NotAKey,
    Positive,
    PositiveOrZero,
    Text,
    YesNo,
    between,
    key,
    mistakes_within,
    one_of,
    one_or_more,
)
from mixtures.recipe.columns import Columns
from mixtures.recipe.filters import Filters
from mixtures.tokens.layout_types import LayoutConfig, View
from shards.profile import Profile

RATIOS = ("weight", "repeat", "budget")
"""What a source may give; all sources of a recipe give the same."""
UNITS = ("samples", "tokens")
"""What weights, budgets and the length of a recipe count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Published archives, or loose files: an address or a pattern, and the folder they lie in."""

    at: Annotated[
        Text,
        key("Address, path or pattern of the archives or files.", "hf://datasets/org/name/*.zip"),
    ]
    under: Annotated[Text, key("The folder that is put before the names inside.", "videos")] = ""


def _archive(value: object) -> object:
    # the short form, for archives that hold whole paths
    return {"at": value} if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where a dataset lies, as a person names it.

    `format`, `annotations`, `media` and `archives` may be left to the catalogue's entry `dataset`.
    """

    name: Annotated[Name, key("Its name in the recipe, in reports and in manifests.", "coco")]
    format: Annotated[
        Name, key("How its annotations are written: a format of docs/sources.md.", "llava_json")
    ] = ""
    annotations: Annotated[
        tuple[Text, ...],
        BeforeValidator(one_or_more),
        key(
            "Addresses, paths or patterns of the annotation files; one needs no list.",
            "[train.json]",
        ),
    ] = ()
    media: Annotated[Text, key("The folder of the media files.", "data/videos")] = ""
    archives: Annotated[
        tuple[Annotated[Archive, BeforeValidator(_archive)], ...],
        key(
            "Archives that the media lie in; an address alone stands for its `at`.",
            "[{at: data/*.zip, under: videos}]",
        ),
    ] = ()
    revision: Annotated[
        Text,
        key("Which of its revisions in the pool is meant; the first digits suffice.", "3f9c02"),
    ] = ""
    columns: Annotated[
        Columns,
        key("Of `table` and `webdataset`: what columns mean.", "{question: prompt, answer: reply}"),
    ] = ()
    ids_repeat: Annotated[
        YesNo, key("Records that differ under one id are numbered instead of refused.", "true")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Published):
    """One dataset of a recipe; exactly one of weight, repeat and budget is set."""

    dataset: Annotated[
        Text, key("The dataset it is, by the catalogue's id where it has one.", "llava-hound")
    ]
    licence: Annotated[Text, key("Under which licence its samples are used.", "CC-BY-4.0")]
    weight: Annotated[
        Positive | None, key("Its share of what the recipe's unit counts.", "0.6")
    ] = None
    repeat: Annotated[Positive | None, key("How often each sample is seen.", "1")] = None
    budget: Annotated[
        Integer | None,
        key("How much of it is drawn, in the recipe's unit.", "100000", least=1, most=10**12),
    ] = None
    max_repeats: Annotated[
        Integer | None,
        key("No sample is seen more often; a ratio that asks for more is an error.", "4",
            least=1, most=10**6),
    ] = None  # fmt: skip
    allow_short: Annotated[
        YesNo, key("What is there is taken where a ratio asks for more (docs/manifest.md).", "true")
    ] = False
    max_refused: Annotated[
        Fraction,
        between("0", "1"),
        key(
            "The share of its media, refused with one code, that stops it (docs/cluster.md).", "0.5"
        ),
    ] = Fraction(1, 5)
    filters: Annotated[
        Filters,
        key(
            "Conditions on columns of the sample index, the clip index, or of scores "
            "(docs/pool.md); a condition on a clip column must hold for every clip of a sample.",
            "{width: {min: 320}, codec: {one_of: [h264, vp9]}}",
        ),
    ] = ()

    unread_fields: Annotated[
        str,
        one_of("keep", "refuse"),
        key("Records with a field that nobody reads: kept and counted, or refused.", "refuse"),
    ] = "keep"

    @property
    def ratios(self) -> list[str]:
        """Which of weight, repeat and budget are given."""
        return [ratio for ratio in RATIOS if getattr(self, ratio) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Published):
    """Evaluation data that the training sources must not contain."""

    dataset: Annotated[
        Text, key("The dataset it is, by the catalogue's id (default: its name).", "eval-video-mme")
    ] = ""
    licence: Annotated[Text, key("Under which licence it is published.", "mixed")] = "unknown"

    def __post_init__(self) -> None:
        if not self.dataset:
            # frozen: the one place where a default depends on another field
            object.__setattr__(self, "dataset", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(HeldOut):
    """Held-out data of a leak index."""

    copy: Annotated[
        Text, key("A local copy that stands for the catalogue's addresses on the Hub.", "/data/mme")
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarks:
    """The file of `python -m pipeline leaks build`: evaluation data to keep out of training."""

    benchmarks: Annotated[
        tuple[Benchmark, ...],
        key("The benchmarks of the index.", "[{name: mme, dataset: eval-video-mme}]"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakRule:
    """A leak index to keep out of training. Samples whose media match a benchmark's are refused."""

    index: Annotated[Text, key("The folder of a leak index.", "leaks/index")]
    text: Annotated[
        str,
        one_of("flag", "refuse"),
        key("What becomes of samples that ask a benchmark's question.", "refuse"),
    ] = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """How a conversation becomes token ids."""

    tokenizer: Annotated[
        Text,
        key(
            "The tokenizer's file: a path, or an address as hf://ORG/NAME@COMMIT/tokenizer.json.",
            "tokenizers/qwen2.5/tokenizer.json",
        ),
    ]
    revision: Annotated[Text, key("Which tokenizer it is, for people.", "a09a35458c70")] = "local"
    template: Annotated[str, one_of("chatml"), key("How turns are written.", "chatml")] = "chatml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRule:
    """Budgets of one pack in tokens and patches; packs are made within `window` positions."""

    tokens: int
    patches: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRule:
    """Conversations about the same clips become one sample, within these bounds."""

    max_turns: Annotated[Integer, key("Turns of a joined sample.", "32", least=2, most=65_536)]
    max_tokens: Annotated[
        Integer, key("Its tokens, with those of its clips.", "16384", least=16, most=1 << 24)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRule:
    """From a position on, sources that are named have other weights."""

    start: Annotated[Integer, key("The first position of the stage.", "5000", least=0, most=10**12)]
    weights: Annotated[
        dict[Name, PositiveOrZero],
        key("New weights by source, 0: none; the others keep theirs.", "{coco: 0.5, hound: 0}"),
    ]


def _without_door(value: object) -> object:
    if isinstance(value, dict) and "door" in value:
        # the door's version is the pool's own; a recipe cannot ask for an older door
        raise mistakes_within({"door": (UNKNOWN, "no key")})
    return value


def _within_area(value: object) -> object:
    """A view of small pictures enlarges none beyond its own area, unless it says so itself."""
    if isinstance(value, dict) and isinstance(area := value.get("area"), int):
        # else `area: 65536` alone would be refused for a default that nobody wrote
        return {"min_area": min(View().min_area, area)} | value
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How samples are shown: frames, tokens, packs."""

    profile: Annotated[
        Profile,
        BeforeValidator(_without_door),
        key("What the pool keeps of every clip.", "{fps: 2, frame_cap: 512}"),
    ] = field(default_factory=Profile)
    frames: Annotated[
        View,
        BeforeValidator(_within_area),
        key("What the mixture shows of stored videos.", "{fps: 1, cap: 128}"),
    ] = field(default_factory=View)
    frame_scores: Annotated[
        Text | None,
        key(
            "The column of scores by which `frames: {selection: query}` selects (docs/pool.md).",
            "score_frames",
        ),
    ] = None
    layout: Annotated[
        LayoutConfig, key("How clips become tokens (docs/model.md).", "{slow_frames: 32}")
    ] = field(default_factory=LayoutConfig)
    text: Annotated[
        TextRule, key("How conversations become tokens.", "{tokenizer: tokenizer.json}")
    ]
    pack_tokens: Annotated[
        Integer, key("Tokens of a pack at most.", "32768", least=16, most=1 << 24)
    ] = 32_768
    pack_patches: Annotated[
        Integer, key("Patches of a pack at most.", "262144", least=16, most=1 << 30)
    ] = 262_144
    pack_window: Annotated[
        Integer, key("Positions among which packs are made.", "1024", least=1, most=65_536)
    ] = 1024

    @property
    def pack(self) -> PackRule:
        """The budgets of one pack."""
        return PackRule(tokens=self.pack_tokens, patches=self.pack_patches, window=self.pack_window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(Presentation):
    """Which samples are kept of what the sources hold."""

    held_out: Annotated[
        tuple[HeldOut, ...],
        key("Evaluation data that training must not contain, compared in the same build.",
            "[{name: mme, dataset: eval-video-mme}]"),
    ] = ()  # fmt: skip
    leaks: Annotated[
        LeakRule | None,
        key("A leak index that training must not contain (docs/leaks.md).", "{index: leaks/index}"),
    ] = None
    duplicates: Annotated[
        str,
        one_of("refuse", "keep"),
        key("Whether samples with the same media and the same turns are refused.", "keep"),
    ] = "refuse"
    near_text: Annotated[
        Fraction | None,
        between("0.8", "1"),
        key("Of samples over the same media with texts at least so alike, one is kept.", "0.9"),
    ] = None
    allow_licences: Annotated[
        tuple[Text, ...] | None,
        key("Samples under any other licence are refused (default: all are kept).", "[MIT, mixed]"),
    ] = None
    join_by_clip: Annotated[
        JoinRule | None,
        key("Conversations about the same clips become one sample.",
            "{max_turns: 32, max_tokens: 16384}"),
    ] = None  # fmt: skip
    canonical_clips: Annotated[
        YesNo, key("Near copies of a clip are shown as one of them.", "true")
    ] = False
    max_samples_per_clip: Annotated[
        Integer | None,
        key("Of the samples over one clip so many are kept.", "8", least=1, most=10**6),
    ] = None
    exclude: Annotated[
        Text | None,
        key("A file of what is taken down: media, addresses, records (docs/manifest.md).",
            "takedowns.jsonl"),
    ] = None  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Selection):
    """A mixture as intended: sources in a ratio, which samples are kept, and how they are shown."""

    path: Annotated[Path, NotAKey()] = Path()
    # folders besides its own that whoever runs it lets it name: mixtures.recipe.allowed_paths
    allowed_paths: Annotated[tuple[Path, ...], NotAKey()] = ()
    name: Annotated[Name, key("The name of the mixture.", "my_mixture")]
    seed: Annotated[
        Integer, key("Of every random choice of the order.", "7", least=0, most=(1 << 63) - 1)
    ]
    sources: Annotated[
        tuple[Source, ...],
        key("The datasets of the mixture.",
            "[{name: coco, dataset: d/coco, licence: mixed, annotations: coco.json, weight: 1}]"),
    ]  # fmt: skip
    unit: Annotated[
        str, one_of(*UNITS), key("What weights, budgets and `length` count.", "tokens")
    ] = "samples"
    length: Annotated[
        Integer | None,
        key("How much is drawn, in `unit` (default: as far as no source repeats).", "100000",
            least=1, most=10**12),
    ] = None  # fmt: skip
    stages: Annotated[
        tuple[StageRule, ...],
        key("Changes of weights on the way.", "[{start: 5000, weights: {coco: 0.5}}]"),
    ] = ()
    max_shard_bytes: Annotated[
        Integer | None,
        key(
            "Bytes of all shards at most (default: twice what their clips take in the pool).",
            "1000000000", least=1, most=1 << 60,
        ),
    ] = None  # fmt: skip

    @property
    def ratio(self) -> str:
        """What every source gives: weight, repeat or budget."""
        # checked elsewhere: all sources give the same
        first = self.sources[0].ratios if self.sources else []
        return first[0] if first else RATIOS[0]

    def weights(self) -> list[tuple[int, list[Fraction]]]:
        """(start, weight of each source) of the stages of a weight recipe, the first from 0."""
        current = [source.weight or Fraction(0) for source in self.sources]
        stages = [(0, current)]
        for stage in self.stages:
            # a stage changes the weights that it names; the others go on as they were
            pairs = zip(self.sources, current, strict=True)
            current = [stage.weights.get(source.name, weight) for source, weight in pairs]
            # a stage from 0 takes the place of the weights as written
            stages = [*(stages if stage.start else []), (stage.start, current)]
        return stages
