"""Media that pass by in an archive: decoded many of a kind together, each once, noted by source."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.stages import decode_media, pending
from pipeline.stages.failure_limit import FailureLimit
from pipeline.stages.media_rows import MediaRow
from pipeline.stages.open_media import drop
from shards.ids import clip_id
from shards.pool import Pool

CHUNK_BYTES = 256 << 20  # bytes of members that are decoded together


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A medium whose bytes lie in a scratch folder: a file, or a folder of pictures."""

    address: str
    media_digest: str
    path: Path
    nbytes: int


@dataclass(slots=True)
class _Chunk:
    """Media that are decoded together, and their bytes in the scratch folder."""

    rows: list[MediaRow] = field(default_factory=list)
    nbytes: int = 0


class MemberDecoder:
    """Decodes what is not in the pool yet, and drops the bytes that nobody needs any more.

    `codes` is what became of the media of each source, in order, as the failure limit notes it;
    `parts` and `media` count what was decoded here.
    """

    def __init__(
        self, pool: Pool, unit: decode_media.MediaUnit, limit: FailureLimit, *, alone: bool
    ):
        """`unit` says how, its rows are left out; `alone` decodes each in a process of its own."""
        self.pool = pool
        self.unit = unit
        self.limit = limit
        self.alone = alone
        self.codes: dict[str, list[str]] = defaultdict(list)
        self.parts = self.media = 0
        # what receipts say of clips before, read once per archive: of snapshots, since to list
        # every receipt for every archive would cost requests by their product
        self._known = pending.Known(pool, pool.ledger.copied(unit.stage))
        self._outcomes: dict[str, str] = {}
        self._pending: set[str] = set()
        self._users: dict[str, set[str]] = defaultdict(set)
        self._chunks: dict[str, _Chunk] = defaultdict(_Chunk)
        self._paths: dict[str, Path] = {}
        self._uses: Counter[Path] = Counter()

    def add(self, medium: Spooled, wants: Sequence[Mapping[str, Any]]) -> None:
        """Take a medium for these rows of what is wanted; decode it with others, if it is new."""
        # a member may be wanted as several clips: other spans, other kinds
        fresh = self._fresh(medium, wants)
        if not fresh:
            drop(medium.path)
        self._pending |= set(fresh)
        # references counted: the bytes may go when the last clip of them is decoded
        self._uses[medium.path] += len(fresh)
        self._paths[medium.address] = medium.path
        for kind in sorted({row.kind for row in fresh.values()}):
            chunk = self._chunks[kind]
            chunk.rows += [row for row in fresh.values() if row.kind == kind]
            chunk.nbytes += medium.nbytes
            # alone: one medium a unit, to find the one that kills its worker
            most = 1 if self.alone else pending.per_part(kind)
            if len(chunk.rows) >= most or chunk.nbytes >= CHUNK_BYTES:
                self._decode(kind)

    def finish(self) -> None:
        """Decode what still waits for others of its kind."""
        for kind in list(self._chunks):
            self._decode(kind)

    def _fresh(self, medium: Spooled, wants: Sequence[Mapping[str, Any]]) -> dict[str, MediaRow]:
        """Clip id -> its row of the media index, of those clips that are nowhere yet."""
        profile_id = self.pool.profile.profile_id
        clips = [
            clip_id(medium.media_digest, row["kind"], row["span"], profile_id, row["fps"])
            for row in wants
        ]
        unasked = [clip for clip in clips if clip not in self._outcomes]
        # the pool is asked once for all clips of a member
        self._outcomes |= self._known.outcomes(unasked)
        fresh: dict[str, MediaRow] = {}
        for row, clip in zip(wants, clips, strict=True):
            # each source is told once per clip, whether it was decoded here or before
            new = row["sources"] - self._users[clip]
            self._users[clip] |= new
            if clip in self._outcomes:
                self._note(new, self._outcomes[clip])
            elif clip not in self._pending:
                fresh[clip] = MediaRow(
                    clip_id=clip,
                    media_digest=medium.media_digest,
                    kind=row["kind"],
                    address=medium.address,
                    span=None if row["span"] is None else (row["span"][0], row["span"][1]),
                )
        return fresh

    def _decode(self, kind: str) -> None:
        chunk = self._chunks.pop(kind, _Chunk())
        if not chunk.rows:
            return
        self.media += len(chunk.rows)
        # in the order of clip ids: the part's bytes do not depend on the order in the archive
        rows = tuple(sorted(chunk.rows, key=lambda row: row.clip_id))
        decode = decode_media.decode_apart if self.alone else decode_media.decode
        outcomes = pending.outcomes(self.pool, decode(replace(self.unit, rows=rows)))
        self.parts += 1
        self._outcomes |= outcomes
        for clip, code in outcomes.items():
            self._note(self._users[clip], code)
        for row in chunk.rows:
            path = self._paths[row.address]
            self._uses[path] -= 1
            if not self._uses[path]:
                drop(path)

    def _note(self, source_names: set[str], code: str) -> None:
        """One medium of each source, decoded or refused."""
        for source in source_names:
            self.codes[source].append(code)
            self.limit.note(source, code)
