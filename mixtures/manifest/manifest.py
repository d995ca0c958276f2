"""The manifest: a recipe resolved over a pool, named by content, enough to draw every sample.

`mixtures.manifest.files` reads and writes it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.epochs import Epochs
from mixtures.manifest.npy_tables import NONE_SHOWN, tokenizer_name
from mixtures.order.schedule import Schedule
from mixtures.recipe.types import PackRule
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import TextCodec


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest and its tables; `value` is the JSON, whose keys docs/manifest.md lists.

    `tables` holds per source its kept samples, rows of ROW sorted by key; `source_at` the source at
    every position inside `length`; `packs_per_window` the packs there; `members` per source the
    conversations of its joined samples, rows of MEMBER sorted by key, and `joined_by` what each of
    its samples is ranked by in place of its key (empty: the recipe does not join); `copies` the
    clips that are shown in place of others, rows of SHOWN sorted by clip.
    """

    value: dict[str, Any]
    tables: list[NDArray[np.void]]
    source_at: NDArray[np.unsignedinteger]
    packs_per_window: NDArray[np.uint32]
    tokenizer: bytes
    members: list[NDArray[np.void]] = field(default_factory=list)
    joined_by: list[NDArray[np.void]] = field(default_factory=list)
    copies: NDArray[np.void] = field(default_factory=lambda: NONE_SHOWN)

    @property
    def manifest_id(self) -> str:
        """The sha256 that names the manifest by content."""
        return str(self.value["manifest_id"])

    @property
    def seed(self) -> int:
        """What keys every order, with the ids of what is ordered."""
        return int(self.value["seed"])

    @property
    def length(self) -> int:
        """Samples in an epoch of the mixture, and what `pack` writes."""
        return int(self.value["length"])

    @property
    def is_finite(self) -> bool:
        """Whether the order ends at `length` (repeat and budget recipes)."""
        return bool(self.value["recipe"]["ratio"] != "weight")

    @property
    def max_shard_bytes(self) -> int | None:
        """Bytes of all shards at most, where the recipe bounds them."""
        bound: int | None = self.value["recipe"]["max_shard_bytes"]
        return bound

    @cached_property
    def names(self) -> list[str]:
        """The names of the sources, in the recipe's order."""
        return [source["name"] for source in self.value["sources"]]

    @cached_property
    def revisions(self) -> dict[str, str]:
        """Of each source the revision that was planned over, and that readers of the pool see."""
        return {source["name"]: source["revision"] for source in self.value["sources"]}

    @cached_property
    def schedule(self) -> Schedule:
        """Which source stands at each position; beyond `length` the last stage repeats."""
        loop = self.value["schedule"]["stages"][-1]["start"]
        return Schedule(self.source_at, len(self.tables), loop)

    @cached_property
    def epochs(self) -> Epochs:
        """Which row of a source stands at each of its turns."""
        ids = self.joined_by or [table["key"] for table in self.tables]
        return Epochs(self.seed, self.names, ids)

    @property
    def pack(self) -> PackRule:
        """The budgets and the window of packs."""
        rule = self.value["pack"]
        return PackRule(tokens=rule["tokens"], patches=rule["patches"], window=rule["window"])

    @property
    def view(self) -> View:
        """What is shown of stored videos."""
        return View(**self.value["frames"])

    @property
    def layout(self) -> LayoutConfig:
        """The token rule of clips."""
        values = {name: v for name, v in self.value["layout"].items() if name != "version"}
        return LayoutConfig(**values)

    @cached_property
    def codec(self) -> TextCodec:
        """The tokenizer and template that every length was counted with."""
        rule = self.value["text"]
        name = tokenizer_name(rule["tokenizer_sha256"])
        return TextCodec(self.tokenizer, rule["template"], name)

    def members_of(self, source: str, key: str) -> list[str]:
        """The keys of the conversations that a sample is made of; its own, if it is not joined."""
        if not self.members:
            return [key]
        table, wanted = self.members[self.names.index(source)], bytes.fromhex(key)
        first = bisect_left(table, wanted, key=_key_of)
        stop = bisect_right(table, wanted, first, key=_key_of)
        return [row["member"].tobytes().hex() for row in table[first:stop]] or [key]

    def shown(self, clip_ids: Sequence[str]) -> Sequence[str]:
        """The clips that stand for these of one sample; its own, where two would become one."""
        found = (
            [self._stands_for(clip_id) for clip_id in clip_ids] if len(self.copies) else clip_ids
        )
        return found if len(set(found)) == len(found) else clip_ids

    def _stands_for(self, clip_id: str) -> str:
        wanted = bytes.fromhex(clip_id)
        at = bisect_left(self.copies, wanted, key=_clip_of)
        if at == len(self.copies) or _clip_of(self.copies[at]) != wanted:
            return clip_id
        return str(self.copies[at]["shown"].tobytes().hex())


def _clip_of(row: np.void) -> bytes:
    clip: bytes = row["clip"].tobytes()
    return clip


def _key_of(row: np.void) -> bytes:
    key: bytes = row["key"].tobytes()
    return key
