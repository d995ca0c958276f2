"""One archive (or a byte range of one), read once -> clips of what is wanted in it.

The receipt (`stream`) names a table of what became of each wanted name, to which admission joins
the records: nobody knows the digests of members before their bytes were read. An archive is never
reopened for a record: its members pass by once, as bytes in memory (larger ones on this node's own
disk), and are decoded where they are.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.archives.member import ArchiveProblem, Member, MemberProblem
from pipeline.archives.members import kind_of, members
from pipeline.archives.split_files import Concatenated
from pipeline.fetch import local_files
from pipeline.media.decode import MAX_BYTES
from pipeline.sources.media_lookup import folder_digest
from pipeline.stages.decode_media import MediaUnit
from pipeline.stages.decode_members import MemberDecoder, Spooled
from pipeline.stages.failure_limit import Fuse
from pipeline.stages.open_media import memory, scratch, spooled
from shards.index import MEMBERS, table_of
from shards.pool import Pool, Receipt
from shards.receipts import Work

STREAM_VERSION = "3"
IN_MEMORY = 64 << 20  # bytes of a member that is kept in memory
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveUnit:
    """One archive, or a byte range of it, and the tables of what is wanted of it.

    `parts` are pinned addresses; members lie in the folder `under` of the media's names. `bounds`
    are (source, its table in `wanted`, the share of its media that may fail:
    pipeline.stages.failure_limit), `stopped` those whose fuse blew before. With `alone`, every
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
    uncaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What a unit left behind: its receipt, or None where a fuse blew in it; what became of its
    media, by source and in order, as pipeline.stages.failure_limit notes it; how many parts it
    decoded.
    """

    receipt: Receipt | None
    parts: int = 0
    codes: dict[str, list[str]] = field(default_factory=dict)


def stream(unit: ArchiveUnit) -> Passed:
    """Read the archive once; decode what is wanted and not yet in the pool; name what was found.

    Of a source whose fuse blows nothing more is kept; with no source left, reading ends.
    """
    pool = Pool(unit.pool)
    files = [local_files.local(address) for address in unit.parts]
    parameters = {
        "stage": unit.stage,
        "profile": pool.profile.profile_id,
        "under": unit.under,
        "wanted": list(unit.wanted),
        "span": None if unit.span is None else list(unit.span),
        "nbytes": sum(file.nbytes for file in files),
    }
    known = _known_digest(unit, pool, files, parameters)
    work = Work("stream", STREAM_VERSION, parameters, [known])
    if known and (done := pool.done(work)):
        return Passed(receipt=done)
    passing = _Passing(unit, pool)
    digest = passing.run([file.path for file in files], known)
    codes, parts = passing.decoder.codes, passing.decoder.parts
    if not digest:
        return Passed(receipt=None, parts=parts, codes=codes)
    tables = {"index/members": table_of(MEMBERS, passing.found.rows())}
    receipt = pool.commit(replace(work, inputs=[digest]), tables, counts=passing.counts())
    return Passed(receipt=receipt, parts=parts, codes=codes)


def _known_digest(
    unit: ArchiveUnit, pool: Pool, files: list[local_files.Local], parameters: dict[str, Any]
) -> str:
    """sha256 of the unit's bytes if they were fetched, or if their like was streamed before; or "".

    A local archive that is new is hashed while it is streamed: it is read once.
    """
    if len(files) == 1 and files[0].digest and unit.span is None:
        return files[0].digest
    if any(receipt.parameters == parameters for receipt in pool.receipts("stream")):
        with Concatenated([file.path for file in files]) as file:
            return file.digest(unit.span)
    return ""


@dataclass(slots=True)
class _Folder:
    """A folder of pictures while they pass by; in an archive they lie side by side."""

    name: str
    parent: str
    address: str
    home: Path
    digests: dict[str, str] = field(default_factory=dict)
    nbytes: int = 0

    def add(self, member: Member) -> None:
        self.nbytes += member.nbytes
        if member.nbytes > IN_MEMORY or self.nbytes > MAX_BYTES:
            raise MemberProblem(
                "MEDIA_TOO_BIG", f"{self.address[:200]}: {self.nbytes} bytes and more"
            )
        data = member.read(IN_MEMORY)
        file = PurePosixPath(member.name).name
        (self.home / file).write_bytes(data)
        self.digests[file] = hashlib.sha256(data).hexdigest()


class _Wanted:
    """What records want of an archive, by name; a source whose fuse blew wants nothing more."""

    def __init__(self, unit: ArchiveUnit, pool: Pool, limit: Fuse) -> None:
        self.limit = limit
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for table in unit.wanted:
            sources = {source for source, of, _ in unit.bounds if of == table}
            for row in pool.read(f"index/wanted/{table}").to_pylist():
                self._rows[row["name"]].append(row | {"sources": sources})

    def anything(self) -> bool:
        """Whether a source is left that wants media of this archive."""
        return self.limit.lets_pass(self.limit.bounds.keys())

    def match(self, path: str, *, folders: bool) -> str:
        """The wanted name that this path ends with, "" if none; `folders` are those of pictures."""
        parts = path.split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if self.rows(name, folders=folders):
                return name
        return ""

    def rows(self, name: str, *, folders: bool) -> list[dict[str, Any]]:
        """What is wanted by this name, of sources whose fuse is whole."""
        return [
            row
            for row in self._rows.get(name, ())
            if (row["fps"] is not None) == folders and self.limit.lets_pass(row["sources"])
        ]


class _Found:
    """What became of each wanted name that was met: rows of MEMBERS."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, str]]] = defaultdict(list)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def place(self, name: str, medium: Spooled) -> None:
        place = {"media_digest": medium.media_digest, "address": medium.address}
        self._rows[name].append({"name": name} | place | {"code": "", "detail": ""})

    def refuse(self, name: str, detail: str, code: str = "ARCHIVE_MEMBER_REFUSED") -> None:
        place = {"media_digest": "", "address": ""}
        self._rows[name].append({"name": name} | place | {"code": code, "detail": detail})

    def rows(self) -> Iterable[dict[str, str]]:
        """In order of the names."""
        for name in sorted(self._rows):
            yield from sorted(self._rows[name], key=lambda row: (row["code"], row["address"]))


class _Passing:
    """One archive while its members pass by."""

    def __init__(self, unit: ArchiveUnit, pool: Pool) -> None:
        limit = Fuse({source: share for source, _, share in unit.bounds})
        limit.blown |= dict.fromkeys(unit.stopped, "")
        self.unit, self.pool, self.limit, self.place = unit, pool, limit, unit.parts[0]
        self.wanted, self.found = _Wanted(unit, pool, limit), _Found()
        self.open_folder: _Folder | None = None
        self.members = self.members_refused = self.bytes_read = 0

    def run(self, paths: Sequence[Path], known: str) -> str:
        """Stream to the end; the sha256 of the bytes of this unit, or "" where a fuse blew."""
        unit, kind = self.unit, kind_of(paths[0].name)
        with scratch(memory()) as self.scratch, scratch(tempfile.gettempdir()) as self.large:
            decoding = MediaUnit(
                pool=unit.pool,
                stage=unit.stage,
                rows=(),
                scratch=self.scratch,
                uncaged=unit.uncaged,
            )
            self.decoder = MemberDecoder(self.pool, decoding, self.limit, alone=unit.alone)
            with Concatenated(paths, hashed=not known) as file:
                self._pass(members(file, kind, *(unit.span or (0, None))))
                digest = "" if self.limit.blown else known or file.digest(unit.span)
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
                if not self.wanted.anything():
                    break
                self.members += 1
                self._meet(member)
        except ArchiveProblem as problem:
            self.found.refuse("", problem.detail, problem.code)
        self._close_folder()
        self.decoder.finish()

    def _meet(self, member: Member) -> None:
        """Keep the member if a record names it, or names the folder that it lies in."""
        path = str(PurePosixPath(self.unit.under) / member.name)
        parent = str(PurePosixPath(path).parent)
        if self.open_folder and self.open_folder.parent != parent:
            self._close_folder()
        folder = self.wanted.match(parent, folders=True)
        name = self.wanted.match(path, folders=False)
        if member.refusal:
            self.members_refused += 1
            for each in {name, folder} - {""}:
                detail = f"{member.name[:200]!r} in {self.place}: {member.refusal}"
                self.found.refuse(each, detail)
            return
        try:
            if name:
                self._keep(name, member)
            elif folder:
                self._add_picture(folder, parent, member)
        except MemberProblem as problem:
            self.found.refuse(name or folder, problem.detail, problem.code)

    def _keep(self, name: str, member: Member) -> None:
        address = f"member:{self.place}#{member.name}"
        if member.nbytes > MAX_BYTES:  # not even written to disk
            detail = f"{address[:200]}: {member.nbytes} bytes, at most {MAX_BYTES}"
            raise MemberProblem("MEDIA_TOO_BIG", detail)
        self._take(name, self._save(member, address), folders=False)

    def _take(self, name: str, medium: Spooled, *, folders: bool) -> None:
        self.found.place(name, medium)
        self.decoder.add(medium, self.wanted.rows(name, folders=folders))

    def _save(self, member: Member, address: str) -> Spooled:
        """The member in memory, or on this machine's disk if it is large."""
        path, digest = spooled(self.scratch, address), hashlib.sha256()
        target = path if member.nbytes <= IN_MEMORY else spooled(self.large, address)
        try:
            with target.open("wb") as file:
                while data := member.read(_PIECE):
                    digest.update(data)
                    file.write(data)
        except MemberProblem:
            target.unlink()
            raise
        if target != path:
            path.symlink_to(target)
        return Spooled(
            address=address, media_digest=digest.hexdigest(), path=path, nbytes=member.nbytes
        )

    def _add_picture(self, folder: str, parent: str, member: Member) -> None:
        if self.open_folder is None:
            if folder in self.found:
                self.found.refuse(folder, f"the pictures of {folder} lie in several places")
                return
            fps = self.wanted.rows(folder, folders=True)[0]["fps"]
            address = f"member:{self.place}#{PurePosixPath(member.name).parent}@{fps}"
            home = spooled(self.large, address)
            home.mkdir()
            spooled(self.scratch, address).symlink_to(home)
            self.open_folder = _Folder(folder, parent, address, home)
        self.open_folder.add(member)

    def _close_folder(self) -> None:
        folder, self.open_folder = self.open_folder, None
        if folder is not None:
            medium = Spooled(
                address=folder.address,
                media_digest=folder_digest(folder.digests.items()),
                path=spooled(self.scratch, folder.address),
                nbytes=folder.nbytes,
            )
            self._take(folder.name, medium, folders=True)
