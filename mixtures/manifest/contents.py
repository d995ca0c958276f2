"""What `manifest.json` says, as frozen values whose fields are its keys (docs/manifest.md).

A field that has a default is left out of the JSON where it has it, so that a manifest says nothing
of choices that its recipe did not make. Integers and strings only: equal contents have equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from mixtures.recipe.types import JoinRule, PackRule
from mixtures.tokens.layout_types import LayoutConfig, View
from shards.errors import DamagedData
from shards.ids import canonical_json, sha256_hex
from shards.pool import Provenance
from shards.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """The program that wrote a manifest; no part of its id."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A filter's condition on one column: bounds, both inside, or the values that pass."""

    min: int | None = None
    max: int | None = None
    one_of: tuple[bool | int | str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakChoice:
    """The leak index that a recipe names, and what becomes of a text that asks its questions."""

    index: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusionList:
    """How many entries the take-down list had, and the sha256 of them."""

    entries: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameScoresChoice:
    """The column of scores by which frames are selected: its name in the recipe, the digest of its
    scorer, and the sha256 of the scores of all kept samples."""

    column: str
    scorer: str
    values: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What of a recipe decides which samples are drawn; no path, no label of bytes."""

    name: str
    ratio: str
    unit: str
    length: int | None
    max_repeats: dict[str, int]
    allow_short: tuple[str, ...]
    filters: dict[str, dict[str, Condition]]
    held_out: tuple[str, ...]
    allow_licences: tuple[str, ...] | None
    max_shard_bytes: int | None
    # from here on defaults: a key that is added later changes no id of a recipe without it
    duplicates: str = "refuse"
    near_text: str | None = None
    canonical_clips: bool = False
    max_samples_per_clip: int | None = None
    leaks: LeakChoice | None = None
    exclude: ExclusionList | None = None
    scores: dict[str, str] | None = None
    frame_scores: FrameScoresChoice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """An algorithm by its name, which stands for everything it does."""

    algo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShares:
    """From position `start` on, the integer share of each source in their sum."""

    start: int
    # weights over their common denominator: no float has to be rounded alike everywhere
    shares: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRule(Algorithm):
    """Which source stands at a position: the table's sha256, and the stages it was made from."""

    table: str
    stages: tuple[StageShares, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRule(Algorithm):
    """How the packs of a step are shuffled and sharded over ranks."""

    rounds: int
    deal: str
    patches_per_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingRule(PackRule):
    """How the samples of a window are packed, under which budgets."""

    algo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutRule(LayoutConfig):
    """How clips become tokens, and the version of that rule."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule:
    """How conversations become tokens: version, tokenizer and template."""

    version: str
    tokenizer_sha256: str
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoiningRule(JoinRule):
    """How conversations over the same clips are joined, within which bounds."""

    algo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalRule(Algorithm):
    """How copies of a clip are found, how many clips have another shown, and the table's sha256."""

    clips: int
    table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSet:
    """The samples that are kept of a source: how many, their tokens, the sha256 of their table.

    Where conversations are joined: how many those are, and the tables of MEMBER and of ranks.
    """

    samples: int
    tokens: int
    table: str
    conversations: int | None = None
    members: str | None = None
    joined_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Sums over drawn samples, each as often as it is drawn."""

    samples: int
    tokens: int
    patches: int
    frames: int
    clips: int
    millis: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals(Amounts):
    """The sums of all sources, and the whole seconds of their video."""

    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContents:
    """One source: what it is, what was asked of it, what is kept, and what the length draws."""

    name: str
    dataset: str
    licence: str
    revision: str
    asked: dict[str, str]
    kept: KeptSet
    content_id: str
    admitted: int
    not_chosen: dict[str, int]
    drawn: Amounts

    @property
    def provenance(self) -> Provenance:
        """What of the pool is meant by the source."""
        return Provenance(revision=self.revision, dataset=self.dataset, licence=self.licence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that `manifest.json` says. Digests name the tables that lie beside it."""

    manifest_version: int
    manifest_id: str
    tool: Tool
    recipe: Choices
    seed: int
    length: int
    schedule: ScheduleRule
    permutation: Algorithm
    batch: BatchRule
    pack: PackingRule
    frames: View
    layout: LayoutRule
    text: TextRule
    profile: Profile
    sources: tuple[SourceContents, ...]
    packs: int
    packs_per_window: str
    totals: Totals
    # of the keys at the first positions: tells whether code of another day still draws alike
    order_digest: str
    join: JoiningRule | None = None
    canonical: CanonicalRule | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON value."""
        value: dict[str, Any] = _plain(self)
        return value

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Contents:
        """The contents in these bytes; DamagedData names a key that is missing, odd or unknown."""
        try:
            # strict in one pass: a manifest that parses has all its keys, of their types, and no
            # others
            contents: Contents = _reader().validate_json(data)
        except ValidationError as error:
            # one is enough: nobody mends a manifest by hand
            first = error.errors(include_url=False)[0]
            loc = ".".join(map(str, first["loc"]))
            raise DamagedData(
                f"{where}: not a manifest ({loc}: {first['msg']}); plan again"
            ) from error
        return contents

    def named(self) -> Contents:
        """The same contents under the id that they have."""
        return replace(self, manifest_id=manifest_id_of(self.to_json()))


@cache
def _reader() -> TypeAdapter[Any]:
    """Reads JSON as Contents: a number is no text, and what is no field is a mistake."""
    # extra="forbid": a key that this version does not know may change what is drawn
    return TypeAdapter(with_config(ConfigDict(extra="forbid", strict=True))(Contents))


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as JSON values; defaults are left out."""
    if is_dataclass(value):
        # the options of views and layouts have defaults for people, and are always written
        whole = isinstance(value, (View, LayoutConfig, Profile))
        values = [(field, getattr(value, field.name)) for field in fields(value)]
        return {
            field.name: _plain(own)
            for field, own in values
            if whole or field.default is MISSING or own != field.default
        }
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, tuple) else value


def manifest_id_of(value: Mapping[str, Any]) -> str:
    """The manifest_id of a manifest's JSON value."""
    # the tool's version must not change an id: the same mixture has one id for ever
    named = {name: v for name, v in value.items() if name not in ("manifest_id", "tool")}
    return sha256_hex(canonical_json(named))
