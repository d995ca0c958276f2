"""The manifest: a recipe resolved over a pool, named by content, enough to draw every sample.

`mixtures.manifest.files` reads and writes it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.contents import Contents
from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.npy_tables import NONE_SHOWN, tokenizer_name
from mixtures.recipe.types import PackRule
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.text import TextCodec
from shards.errors import MissingData, UserError
from shards.ids import sha256_hex
from shards.key_index import FrameScores
from shards.pool import Provenance


@dataclass(frozen=True, kw_only=True)
class Manifest(DrawOrder):
    """A draw order and what its manifest says of it: `contents` is `manifest.json`.

    `members` holds per source the conversations of its joined samples, rows of MEMBER sorted by key
    (empty: the recipe does not join); `copies` the clips that are shown in place of others, rows of
    SHOWN sorted by clip.
    """

    contents: Contents
    tokenizer: bytes
    members: list[NDArray[np.void]] = field(default_factory=list)
    copies: NDArray[np.void] = field(default_factory=lambda: NONE_SHOWN)

    @classmethod
    def of(cls, contents: Contents, **tables: Any) -> Manifest:
        """The manifest with these contents and tables."""
        rule = contents.pack
        return cls(
            contents=contents,
            seed=contents.seed,
            names=[source.name for source in contents.sources],
            loop=contents.schedule.stages[-1].start,
            is_finite=contents.recipe.ratio != "weight",
            pack=PackRule(tokens=rule.tokens, patches=rule.patches, window=rule.window),
            **tables,
        )

    @property
    def manifest_id(self) -> str:
        """The sha256 that names the manifest by content."""
        return self.contents.manifest_id

    @cached_property
    def revisions(self) -> dict[str, str]:
        """The revision of each source that the manifest draws from."""
        return {source.name: source.revision for source in self.contents.sources}

    @cached_property
    def provenance(self) -> dict[str, Provenance]:
        """What each source that the manifest draws from was admitted as."""
        return {source.name: source.provenance for source in self.contents.sources}

    @property
    def max_shard_bytes(self) -> int | None:
        """Bytes of all shards at most, where the recipe bounds them."""
        return self.contents.recipe.max_shard_bytes

    @property
    def view(self) -> View:
        """What is shown of stored videos."""
        return self.contents.frames

    @property
    def layout(self) -> LayoutConfig:
        """The token rule of clips."""
        names = [each.name for each in fields(LayoutConfig)]
        return LayoutConfig(**{name: getattr(self.contents.layout, name) for name in names})

    @cached_property
    def codec(self) -> TextCodec:
        """The tokenizer and template that every length was counted with."""
        rule = self.contents.text
        name = tokenizer_name(rule.tokenizer_sha256)
        return TextCodec(self.tokenizer, rule.template, name)

    def members_of(self, source: str, key: str) -> list[str]:
        """The keys of the conversations that a sample is made of; its own, if it is not joined."""
        if not self.members:
            return [key]
        table = self.members[self.names.index(source)]
        wanted = bytes.fromhex(key)
        # rows of a sample stand together, in the order of its conversations
        first = bisect_left(table, wanted, key=_key_of)
        stop = bisect_right(table, wanted, first, key=_key_of)
        return [row["member"].tobytes().hex() for row in table[first:stop]] or [key]

    def shown(self, clip_ids: Sequence[str]) -> Sequence[str]:
        """The clips that stand for these of one sample; its own, where two would become one."""
        found = (
            [self._stands_for(clip_id) for clip_id in clip_ids] if len(self.copies) else clip_ids
        )
        return found if len(set(found)) == len(found) else clip_ids

    @property
    def scored_by(self) -> str:
        """The digest of the scorer by whose scores frames are selected; "" where they are not."""
        choice = self.contents.recipe.frame_scores
        return "" if choice is None else choice.scorer

    def check_scores(self, frame_scores: FrameScores, where: str) -> None:
        """Raise UserError unless these are the scores that the manifest was planned by."""
        choice = self.contents.recipe.frame_scores
        if choice is not None and values_digest(frame_scores, self.tables, where) != choice.values:
            raise UserError(
                f"{where}: scores {choice.column}@{choice.scorer[:8]} are others than those that "
                "the manifest was planned by; restore them, or plan again"
            )

    def _stands_for(self, clip_id: str) -> str:
        wanted = bytes.fromhex(clip_id)
        # binary search: the table is sorted by clip
        at = bisect_left(self.copies, wanted, key=_clip_of)
        if at == len(self.copies) or _clip_of(self.copies[at]) != wanted:
            return clip_id
        return str(self.copies[at]["shown"].tobytes().hex())


def values_digest(
    frame_scores: FrameScores, kept_rows: Sequence[NDArray[np.void]], where: str
) -> str:
    """sha256 over the scores of all kept samples, by source; UserError where some have none."""
    try:
        digests = [
            frame_scores.digest(np.ascontiguousarray(rows["key"]), rows["clips"].astype(np.int64))
            for rows in kept_rows
        ]
    except MissingData as error:
        raise UserError(f"{where}: {error}; run `python -m pipeline score` again") from error
    return sha256_hex("".join(digests).encode())


def _clip_of(row: np.void) -> bytes:
    clip: bytes = row["clip"].tobytes()
    return clip


def _key_of(row: np.void) -> bytes:
    key: bytes = row["key"].tobytes()
    return key
