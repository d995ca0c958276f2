"""A sample of a build as a model sees it: its turns, and its frames on their grid with their times.

Kept samples are read through the manifest. Of refused ones a record's row is told; those that were
admitted are shown as well, as the recipe would have shown them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mixtures.manifest.files import MANIFEST, load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.tokens.frame_view import ClipView, view_clip
from mixtures.tokens.layout_types import SLOW, TokenPlan
from mixtures.tokens.placement import Placement
from mixtures.tokens.token_plan import frames_used, plan_clip, time_text
from shards.errors import MissingData, UserError
from shards.outcome import CODES, read_books
from shards.pool import Pool
from shards.reader import PoolReader
from shards.sample import Clip, Sample
from shards.store import Store

LEAST_DIGITS = 6
"""Hex digits of a key that it may be named by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFrame:
    """A frame that the vision tower sees: its JPEG, time, and whether it is of the slow block."""

    jpeg: bytes | memoryview
    time: str
    slow: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownClip:
    """A clip as it is shown: its grid in pixels, where the picture stands on it, its frames."""

    clip: Clip
    placement: Placement
    tokens: int
    frames: tuple[ShownFrame, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is told of one record: `refusal` is its row of REFUSED, None of a kept one.

    `sample` is None where there is none: its record was refused before it became one.
    """

    source: str
    key: str
    refusal: Mapping[str, str] | None
    sample: Sample | None
    clips: tuple[ShownClip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleQuery:
    """Which samples: by the beginning of a key, or of a source, kept or refused with a code."""

    key: str = ""
    source: str = ""
    refused: str = ""
    count: int = 1


class Gallery:
    """The samples of one build."""

    def __init__(self, out: str, pool_url: str) -> None:
        store = Store(out)
        if not store.exists(MANIFEST):
            raise UserError(f"{out}: no {MANIFEST} here; give the --out of a build")
        self.out = out
        self.manifest: Manifest = load_manifest(out)
        _, tables = read_books(store)
        self._refused: list[dict[str, Any]] = tables["refused.parquet"].to_pylist()
        self._pool = Pool(pool_url)

    @cached_property
    def _reader(self) -> PoolReader:
        """Opened when there is something to read: an index of the whole pool is made for it."""
        return PoolReader(self._pool, None, self.manifest)

    def find(self, query: SampleQuery) -> Iterator[Shown]:
        """The samples that are asked for, in the order of their keys; UserError for none."""
        self._check(query)
        found = [*self._kept(query), *self._rows(query)]
        if not found:
            raise UserError(f"{self.out}: {self._nothing(query)}")
        for source, key, row in found[: query.count]:
            yield self._shown(source, key, row)

    def _check(self, query: SampleQuery) -> None:
        names = self.manifest.names
        if query.source and query.source not in names:
            raise UserError(f"--source {query.source}: the build has {', '.join(names)}")
        if query.refused and query.refused not in CODES:
            raise UserError(
                f"--refused {query.refused}: no code; this build has "
                f"{', '.join(sorted({row['code'] for row in self._refused})) or 'none'}"
            )
        plain = query.key.lower().strip("0123456789abcdef") == ""
        if query.key and (not plain or len(query.key) < LEAST_DIGITS):
            raise UserError(
                f"--key {query.key}: a key is of hex digits, and the first {LEAST_DIGITS} suffice"
            )

    def _kept(self, query: SampleQuery) -> Iterator[tuple[str, str, None]]:
        """(source, key, None) of kept samples; nothing where refused ones are asked for."""
        if query.refused:
            return
        for name, rows in zip(self.manifest.names, self.manifest.tables, strict=True):
            if query.source in ("", name):
                keys = (row.tobytes().hex() for row in rows["key"])
                yield from ((name, key, None) for key in keys if key.startswith(query.key.lower()))

    def _rows(self, query: SampleQuery) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(source, key, row) of refusals; without a code only those that a key names."""
        for row in self._refused:
            of_source = query.source in ("", row["source"])
            if query.refused:
                fits = row["code"] == query.refused and row["key"].startswith(query.key.lower())
            else:
                fits = bool(query.key) and row["key"].startswith(query.key.lower())
            if fits and of_source:
                yield row["source"], row["key"], row

    def _nothing(self, query: SampleQuery) -> str:
        if query.refused:
            here = sorted(
                {row["code"] for row in self._refused if query.source in ("", row["source"])}
            )
            return f"nothing was refused so; there is {', '.join(here) or 'no refusal'}"
        if not query.key:
            return f"nothing of {query.source or 'it'} is kept; ask for --refused CODE"
        return f"no sample has a key that begins with {query.key}; `explain` prints keys"

    def _shown(self, source: str, key: str, row: Mapping[str, str] | None) -> Shown:
        if not key:
            return Shown(source=source, key="", refusal=row, sample=None, clips=())
        try:
            stored = self._reader.read(source, key)
        except MissingData:
            # refused while decoding: there are no frames to be shown
            if row is None:
                raise
            return Shown(source=source, key=key, refusal=row, sample=None, clips=())
        clips = stored.sample.clips
        images = sum(clip.kind == "image" for clip in clips)
        scored = stored.sample.frame_scores
        scores = [()] * len(clips) if scored is None else scored.values
        triples = zip(clips, stored.frames, scores, strict=True)
        shown = tuple(self._clip(clip, jpegs, images, own) for clip, jpegs, own in triples)
        return Shown(source=source, key=key, refusal=row, sample=stored.sample, clips=shown)

    def _clip(
        self,
        clip: Clip,
        jpegs: Sequence[bytes | memoryview],
        images: int,
        scores: Sequence[int],
    ) -> ShownClip:
        layout = self.manifest.layout
        view = view_clip(clip, self.manifest.view, layout, images, scores)
        plan = plan_clip(view, clip.kind, layout, self.manifest.codec.count, images)
        slow = {run.frame for run in plan if run.kind == SLOW}
        return ShownClip(
            clip=clip,
            placement=Placement(view.width, view.height, view.picture),
            tokens=tokens_of(plan, self.manifest.codec.count),
            frames=tuple(
                ShownFrame(
                    jpeg=jpegs[view.frames[frame]], time=_time(view, frame), slow=frame in slow
                )
                for frame in frames_used(plan)
            ),
        )


def tokens_of(plan: TokenPlan, count: Any) -> int:
    """The tokens that a clip becomes, its stamps of text included."""
    return sum(count(run.text) if run.text else run.n for run in plan)


def _time(view: ClipView, frame: int) -> str:
    return time_text(view.seconds[frame])
