"""One archive (or a byte range of one), read once -> clips of what is wanted in it.

The receipt (`stream`) names a table of what became of each wanted name, to which admission joins
the records: nobody knows the digests of members before their bytes were read. An archive is never
reopened for a record: its members pass by once, as bytes in memory (larger ones on this node's own
disk), and are decoded where they are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.archives.member import ArchiveProblem, Member, MemberProblem
from pipeline.archives.members import kind_of, members
from pipeline.archives.split_files import Concatenated
from pipeline.fetch import local_files
from pipeline.media.decode import MAX_BYTES
from pipeline.names import printable
from pipeline.sources.media_lookup import folder_digest
from pipeline.sources.near_names import folded, readings, suffixes
from pipeline.stages.decode_media import MediaUnit
from pipeline.stages.decode_members import MemberDecoder, Spooled
from pipeline.stages.failure_limit import FailureLimit
from pipeline.stages.open_media import disk, drop, memory, scratch, spooled
from pipeline.stages.picture_folders import IN_MEMORY, Ask, PictureFolder, PictureFolders
from shards.index import MEMBERS, table_of
from shards.pool import Pool, Receipt
from shards.receipts import Work

STREAM_VERSION = "4"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveUnit:
    """One archive, or a byte range of it, and the tables of what is wanted of it.

    `parts` are pinned addresses; members lie in the folder `under` of the media's names. `bounds`
    are (source, its table in `wanted`, the share of its media that may fail:
    pipeline.stages.failure_limit), `stopped` those that were stopped before. With `alone`, every
    medium is decoded in a process of its own, to find the one that kills.
    """

    pool: str
    stage: str
    parts: tuple[str, ...]
    under: str
    wanted: tuple[str, ...]
    span: tuple[int, int] | None = None
    bounds: tuple[tuple[str, str, Fraction], ...] = ()
    stopped: tuple[str, ...] = ()
    alone: bool = False
    no_sandbox: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What a unit left behind: its receipt, or None where a source was stopped in it; what became
    of its media, by source and in order, as pipeline.stages.failure_limit notes it; how many parts
    it decoded.
    """

    receipt: Receipt | None
    parts: int = 0
    codes: dict[str, list[str]] = field(default_factory=dict)


def stream(unit: ArchiveUnit) -> Passed:
    """Read the archive once; decode what is wanted and not yet in the pool; name what was found.

    Of a source that is stopped nothing more is kept; with no source left, reading ends.
    """
    pool = Pool(unit.pool)
    # parts of a split archive are read as one file
    files = [local_files.local(address) for address in unit.parts]
    nbytes = sum(file.nbytes for file in files)
    parameters = parameters_of(unit, pool.profile.profile_id, nbytes)
    # an unknown digest costs nothing more: bytes are hashed as they pass
    known = _known_digest(unit, pool, files, parameters)
    work = Work("stream", STREAM_VERSION, parameters, [known])
    if known and (done := pool.done(work)):
        return Passed(receipt=done)
    passing = _Passing(unit, pool)
    digest = passing.run([file.path for file in files], known)
    codes = passing.decoder.codes
    parts = passing.decoder.parts
    if not digest:
        # a source failed in it: no receipt, so that it is read again once the source is mended
        return Passed(receipt=None, parts=parts, codes=codes)
    tables = {"index/members": table_of(MEMBERS, passing.members_found.rows())}
    receipt = pool.commit(replace(work, inputs=[digest]), tables, counts=passing.counts())
    return Passed(receipt=receipt, parts=parts, codes=codes)


def parameters_of(unit: ArchiveUnit, profile_id: str, nbytes: int) -> dict[str, Any]:
    """What names the receipt of a unit, besides the digest of its bytes."""
    return {
        "stage": unit.stage,
        "profile": profile_id,
        "under": unit.under,
        "wanted": list(unit.wanted),
        "span": None if unit.span is None else list(unit.span),
        "nbytes": nbytes,
    }


def _known_digest(
    unit: ArchiveUnit, pool: Pool, files: list[local_files.Local], parameters: dict[str, Any]
) -> str:
    """sha256 of the unit's bytes if they were fetched, or if their like was streamed before; or "".

    A local archive that is new is hashed while it is streamed: it is read once.
    """
    # a fetched file has its digest already; a range of one would have another
    if len(files) == 1 and files[0].digest and unit.span is None:
        return files[0].digest
    before = pool.ledger.copied("stream")["parameters"].to_pylist()
    if any(json.loads(each) == parameters for each in before):
        with Concatenated([file.path for file in files]) as file:
            return file.digest(unit.span)
    return ""


class _Wanted:
    """What records want of an archive, by name; a stopped source wants nothing more."""

    def __init__(self, unit: ArchiveUnit, pool: Pool, limit: FailureLimit) -> None:
        self.limit = limit
        self._rows: dict[tuple[str, bool], list[dict[str, Any]]] = defaultdict(list)
        for table in unit.wanted:
            # a table of wanted names belongs to the sources whose annotations it lists
            sources = {source for source, of, _ in unit.bounds if of == table}
            for row in pool.read(f"index/wanted/{table}").to_pylist():
                self._rows[row["name"], row["fps"] is not None].append(row | {"sources": sources})
        self._near: dict[tuple[str, bool], list[str]] = defaultdict(list)
        for name, folders in self._rows:
            self._near[folded(name), folders].append(name)
        self.folders = any(folders for _, folders in self._rows)

    def anything(self) -> bool:
        """Whether a source is left that wants media of this archive."""
        return self.limit.lets_pass(self.limit.bounds.keys())

    def match(self, path: str, *, folders: bool) -> list[Ask]:
        """Every wanted name that this path ends with, or nearly; `folders` are those of pictures.

        Each name is answered as if it alone were wanted: whoever else asks changes nothing.
        """
        if folders and not self.folders:
            return []
        # suffixes: records name members by the end of their paths
        keys = (key for reading in readings(path) for key in suffixes(folded(reading)))
        names = {name for key in keys for name in self._near.get((key, folders), ())}
        unmet = [name for name in sorted(names) if self.rows(name, folders=folders)]
        return [
            Ask(name, "" if f"/{path}".endswith(f"/{name}") else printable(path)) for name in unmet
        ]

    def folders_named(self, path: str) -> list[Ask]:
        """The wanted names of a folder of pictures."""
        return self.match(path, folders=True)

    def rows(self, name: str, *, folders: bool) -> list[dict[str, Any]]:
        """What is wanted by this name, of sources that are not stopped."""
        rows = self._rows.get((name, folders), ())
        return [row for row in rows if self.limit.lets_pass(row["sources"])]


class _Found:
    """What became of each wanted name that was met: rows of MEMBERS."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def place(self, ask: Ask, medium: Spooled, known: Mapping[str, Any]) -> None:
        """The bytes that answer; `known` is what is known of a folder of pictures, else empty."""
        place = {"media_digest": medium.media_digest, "address": medium.address}
        self._add(ask, {**place, "code": "", "detail": "", **known})

    def refuse(self, ask: Ask, problem: ArchiveProblem, fps: int | None = None) -> None:
        """Why nothing answers. An empty name speaks of all that lie further on."""
        place = {"media_digest": "", "address": "", "fps": fps}
        self._add(ask, {**place, "code": problem.code, "detail": problem.detail})

    def _add(self, ask: Ask, answer: dict[str, Any]) -> None:
        self._rows.append({"name": ask.name, "near": ask.near} | answer)

    def rows(self) -> Iterable[dict[str, Any]]:
        """In order of the names."""
        return sorted(self._rows, key=_row_order)


def _row_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    order = ("name", "near", "code", "address", "media_digest", "detail")
    return *(row[column] for column in order), row.get("fps") or 0


def _decoding(unit: ArchiveUnit, folder: Path) -> MediaUnit:
    """How members are decoded, whose bytes pass through a folder."""
    return MediaUnit(
        pool=unit.pool, stage=unit.stage, rows=(), scratch=folder, no_sandbox=unit.no_sandbox
    )


class _Passing:
    """One archive while its members pass by."""

    def __init__(self, unit: ArchiveUnit, pool: Pool) -> None:
        limit = FailureLimit({source: share for source, _, share in unit.bounds})
        # sources stopped by other archives are stopped here from the start
        limit.stopped |= dict.fromkeys(unit.stopped, "")
        self.unit = unit
        self.pool = pool
        self.limit = limit
        self.archive = unit.parts[0]
        self.wanted = _Wanted(unit, pool, limit)
        self.members_found = _Found()
        self.prefix = f"{PurePosixPath(unit.under)}/" if unit.under else ""
        self.taken: set[str] = set()
        self.members = self.members_refused = self.bytes_read = 0

    def run(self, paths: Sequence[Path], known: str) -> str:
        """Stream to the end; the sha256 of the bytes of this unit, or "" where a source was
        stopped."""
        unit = self.unit
        kind = kind_of(paths[0].name)
        # two scratch folders: members in memory, large ones and folders of pictures on disk
        with scratch(memory()) as self.scratch, scratch(disk()) as self.large:
            decoding = _decoding(unit, self.scratch)
            self.folders = PictureFolders(
                self.archive, self.large, self.wanted.folders_named, self._close
            )
            self.decoder = MemberDecoder(self.pool, decoding, self.limit, alone=unit.alone)
            with Concatenated(paths, hashed=not known) as file:
                # a range reads from its first member on, to the first member that begins behind it
                self._pass(members(file, kind, *(unit.span or (0, None))))
                digest = "" if self.limit.stopped else known or file.digest(unit.span)
                self.bytes_read = file.bytes_read
        return digest

    def counts(self) -> dict[str, int]:
        """What the receipt counts."""
        return {
            "members": self.members,
            "members_refused": self.members_refused,
            "media": self.decoder.media,
            "bytes_read": self.bytes_read,
        }

    def _pass(self, passing: Iterator[Member]) -> None:
        try:
            for member in passing:
                # nobody left to read for
                if not self.wanted.anything():
                    break
                self.members += 1
                self._meet(member)
        # what was found before the damage stays; names behind it are refused by the archive's code
        except ArchiveProblem as problem:
            self.members_found.refuse(Ask(""), problem)
            if not problem.ended:
                self.folders.fail(problem)
        self.folders.close()
        self.decoder.finish()

    def _meet(self, member: Member) -> None:
        """Keep the member if records name it, or name the folder that it lies in."""
        path = self.prefix + member.name
        asks = self.wanted.match(path, folders=False)
        folder = self.folders.meet(path) if self.wanted.folders else None
        try:
            if member.refusal:
                self.members_refused += 1
                detail = f"{printable(member.name)[:200]!r} in {self.archive}: {member.refusal}"
                raise MemberProblem("ARCHIVE_MEMBER_REFUSED", detail)
            medium = self._save(member) if asks else None
        except MemberProblem as problem:
            for ask in asks:
                self.members_found.refuse(ask, problem)
            if folder:
                folder.problems.append(problem)
            return
        if folder:
            folder.add(member, medium)
        if medium:
            self._take(asks, medium)

    def _close(self, folder: PictureFolder) -> None:
        """Write down what a folder of pictures is, which passed by as a whole."""
        if folder.problems:
            for ask in folder.asks:
                self.members_found.refuse(ask, folder.problem(), fps=1)
            return
        digest = folder_digest(folder.digests.items())
        rows = [row for a in folder.asks for row in self.wanted.rows(a.name, folders=True)]
        # one folder may be wanted at several rates: the same bytes, other clips
        rates = sorted({int(row["fps"]) for row in rows})
        for rate in rates:
            address = f"{folder.address}@{rate}"
            home = folder.home
            path = spooled(self.scratch, address)
            # the last rate takes the folder itself, the others a copy
            if rate != rates[-1]:
                home = shutil.copytree(home, spooled(self.large, address))
            path.symlink_to(home)
            medium = Spooled(address=address, media_digest=digest, path=path, nbytes=folder.nbytes)
            self.decoder.add(medium, [row for row in rows if row["fps"] == rate])
            for ask in folder.asks if rate == rates[0] else ():
                self.members_found.place(ask, medium, folder.known() | {"fps": rate})

    def _take(self, asks: Sequence[Ask], medium: Spooled) -> None:
        """Write down what answers to these names, and decode it as all of them want it."""
        for ask in asks:
            self.members_found.place(ask, medium, {})
        # a second member of this name: its digest is noted, its bytes are not decoded
        if medium.address in self.taken:
            drop(medium.path)
            return
        self.taken.add(medium.address)
        rows = [row for ask in asks for row in self.wanted.rows(ask.name, folders=False)]
        self.decoder.add(medium, rows)

    def _save(self, member: Member) -> Spooled:
        """The member in memory, or on this machine's disk if it is large.

        Of a second member of one name only the digest is taken: with other bytes than the first
        has, it makes the name answer nothing.
        """
        address = f"member:{self.archive}#{printable(member.name)}"
        if member.nbytes > MAX_BYTES:  # not even written to disk
            detail = f"{address[:200]}: {member.nbytes} bytes, at most {MAX_BYTES}"
            raise MemberProblem("MEDIA_TOO_BIG", detail)
        path = spooled(self.scratch, address)
        target = path if member.nbytes <= IN_MEMORY else spooled(self.large, address)
        # written beside the first one's bytes, and dropped again
        if address in self.taken:
            path = target = spooled(self.large, f"{address}#again")
        digest = _write(member, target)
        if target != path:
            path.symlink_to(target)
        return Spooled(address=address, media_digest=digest, path=path, nbytes=member.nbytes)


def _write(member: Member, target: Path) -> str:
    """Write the member's bytes, hashed as they pass; its sha256. What breaks off is removed."""
    digest = hashlib.sha256()
    try:
        with target.open("wb") as file:
            while data := member.read(_PIECE):
                digest.update(data)
                file.write(data)
    except MemberProblem:
        target.unlink()
        raise
    return digest.hexdigest()
