"""Media in archives, whose digests nobody knows before their bytes were read.

    names     one source's records -> the media they name, wanted from its archives or addresses
    stream    one archive (or a byte range of one), read once -> clips of what is wanted in it

Each leaves a receipt; `stream` leaves a table of names, to which admission joins the records. An
archive is never reopened for a record: its members pass by once, as bytes in memory
(larger ones on this node's own disk), and are decoded where they are.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.archives.member import ArchiveProblem, Member, MemberProblem
from pipeline.archives.members import kind_of, members
from pipeline.archives.split_files import Concatenated
from pipeline.fetch import local_files
from pipeline.media import decode
from pipeline.sources.media_lookup import folder_digest
from pipeline.stages import decode_media, pending
from pipeline.stages.failure_limit import Fuse
from pipeline.stages.open_media import drop, memory, scratch, spooled
from shards.ids import clip_id, work_id
from shards.index import MEMBERS, table_of
from shards.pool import Pool, Receipt

STREAM_VERSION = "3"
IN_MEMORY = 64 << 20  # bytes of a member that is kept in memory
CHUNK_BYTES = 256 << 20  # bytes of members that are decoded together
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
    nbytes = sum(file.nbytes for file in files)
    parameters = {
        "stage": unit.stage,
        "profile": pool.profile.profile_id,
        "under": unit.under,
        "wanted": list(unit.wanted),
        "span": None if unit.span is None else list(unit.span),
        "nbytes": nbytes,
    }
    known = _known_digest(unit, pool, files, parameters)
    if known:
        done = pool.receipt(work_id("stream", STREAM_VERSION, parameters, [known]))
        if done:
            return Passed(receipt=done)
    passing = _Passing(unit, pool, files)
    digest = passing.run(known)
    if not digest:
        return Passed(receipt=None, parts=passing.parts, codes=passing.codes)
    tables = {"index/members": table_of(MEMBERS, passing.rows())}
    receipt = pool.commit(
        "stream", STREAM_VERSION, parameters, [digest], tables, counts=passing.counts
    )
    return Passed(receipt=receipt, parts=passing.parts, codes=passing.codes)


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
class _Chunk:
    """Members that are decoded together, in a scratch folder."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    nbytes: int = 0


class _Passing:
    """One archive while its members pass by."""

    def __init__(self, unit: ArchiveUnit, pool: Pool, files: list[local_files.Local]) -> None:
        self.unit, self.pool, self.files = unit, pool, files
        self.profile_id = pool.profile.profile_id
        self.place = unit.parts[0]
        self.wanted: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for name in unit.wanted:
            sources = {source for source, table, _ in unit.bounds if table == name}
            for row in pool.read(f"index/wanted/{name}").to_pylist():
                self.wanted[row["name"]].append(row | {"sources": sources})
        self.known = pending.Known(pool, unit.stage)
        self.outcomes: dict[str, str] = {}
        self.pending: set[str] = set()
        self.users: dict[str, set[str]] = defaultdict(set)
        self.fuse = Fuse({source: share for source, _, share in unit.bounds})
        self.fuse.blown |= dict.fromkeys(unit.stopped, "")
        self.codes: dict[str, list[str]] = defaultdict(list)
        self.found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.counts = {"members": 0, "members_refused": 0, "media": 0, "bytes_read": 0}
        self.chunks: dict[str, _Chunk] = defaultdict(_Chunk)
        self.uses: Counter[Path] = Counter()
        self.parts = 0
        self.open_folder: _Folder | None = None

    def run(self, known: str) -> str:
        """Stream to the end; the sha256 of the bytes of this unit, or "" where a fuse blew."""
        paths = [file.path for file in self.files]
        kind = kind_of(paths[0].name)
        with scratch(memory()) as self.scratch, scratch(tempfile.gettempdir()) as self.large:
            with Concatenated(paths, hashed=not known) as file:
                self._pass(members(file, kind, *(self.unit.span or (0, None))))
                digest = "" if self.fuse.blown else known or file.digest(self.unit.span)
                self.counts["bytes_read"] = file.bytes_read
        return digest

    def _pass(self, passing: Iterator[Member]) -> None:
        try:
            for member in passing:
                if not self.fuse.lets_pass(self.fuse.bounds.keys()):
                    break
                self.counts["members"] += 1
                self._meet(member)
        except ArchiveProblem as problem:
            self._refuse("", problem.detail, problem.code)
        self._close_folder()
        for kind in list(self.chunks):
            self._decode(kind)

    def _meet(self, member: Member) -> None:
        """Keep the member if a record names it, or names the folder that it lies in."""
        name = str(PurePosixPath(self.unit.under) / member.name)
        parent = str(PurePosixPath(name).parent)
        if self.open_folder and self.open_folder.parent != parent:
            self._close_folder()
        folder = self._match(parent, folders=True)
        wanted = self._match(name, folders=False)
        if member.refusal:
            self.counts["members_refused"] += 1
            for each in {wanted, folder} - {""}:
                self._refuse(each, f"{member.name[:200]!r} in {self.place}: {member.refusal}")
            return
        try:
            if wanted:
                self._keep(wanted, member)
            elif folder:
                self._add_picture(folder, parent, member)
        except MemberProblem as problem:
            self._refuse(wanted or folder, problem.detail, problem.code)

    def _match(self, path: str, *, folders: bool) -> str:
        """The wanted name that this path ends with, "" if none; `folders` are those of pictures."""
        parts = path.split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if self._rows(name, folders=folders):
                return name
        return ""

    def _rows(self, name: str, *, folders: bool) -> list[dict[str, Any]]:
        """What is wanted by this name, of sources whose fuse is whole."""
        return [
            row
            for row in self.wanted.get(name, ())
            if (row["fps"] is not None) == folders and self.fuse.lets_pass(row["sources"])
        ]

    def _keep(self, name: str, member: Member) -> None:
        address = f"member:{self.place}#{member.name}"
        if member.nbytes > decode.MAX_BYTES:  # not even written to disk
            detail = f"{address[:200]}: {member.nbytes} bytes, at most {decode.MAX_BYTES}"
            raise MemberProblem("MEDIA_TOO_BIG", detail)
        path, digest = self._save(member, address)
        rows = self._rows(name, folders=False)
        self._take(name, rows, address, digest, path, member.nbytes)

    def _save(self, member: Member, address: str) -> tuple[Path, str]:
        """(where the bytes are now, their sha256)."""
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
        return path, digest.hexdigest()

    def _take(
        self,
        name: str,
        rows: list[dict[str, Any]],
        address: str,
        digest: str,
        path: Path,
        nbytes: int,
    ) -> None:
        """Note what the name stands for; decode it with others of its kind, if it is new."""
        place = {"name": name, "media_digest": digest, "address": address}
        self.found[name].append(place | {"code": "", "detail": ""})
        fresh = {}
        clips = [clip_id(digest, row["span"], self.profile_id) for row in rows]
        self.outcomes |= self.known.outcomes([one for one in clips if one not in self.outcomes])
        for row, clip in zip(rows, clips, strict=True):
            new = row["sources"] - self.users[clip]
            self.users[clip] |= new
            if clip in self.outcomes:
                self._note(new, self.outcomes[clip])
            elif clip not in self.pending:
                fresh[clip] = {
                    "clip_id": clip,
                    "media_digest": digest,
                    "kind": row["kind"],
                    "address": address,
                    "span": row["span"],
                }
        if not fresh:
            drop(path)
        self.pending |= set(fresh)
        self.uses[path] += len(fresh)
        for kind in {row["kind"] for row in fresh.values()}:
            chunk = self.chunks[kind]
            chunk.rows += [row for row in fresh.values() if row["kind"] == kind]
            chunk.nbytes += nbytes
            most = 1 if self.unit.alone else pending.per_part(kind)
            if len(chunk.rows) >= most or chunk.nbytes >= CHUNK_BYTES:
                self._decode(kind)

    def _decode(self, kind: str) -> None:
        chunk = self.chunks.pop(kind, _Chunk())
        if not chunk.rows:
            return
        self.counts["media"] += len(chunk.rows)
        unit = decode_media.MediaUnit(
            pool=self.unit.pool,
            stage=self.unit.stage,
            rows=tuple(sorted(chunk.rows, key=lambda row: str(row["clip_id"]))),
            scratch=self.scratch,
            uncaged=self.unit.uncaged,
        )
        receipt = (decode_media.decode_apart if self.unit.alone else decode_media.decode)(unit)
        found = pending.outcomes(self.pool, receipt)
        self.parts += 1
        self.outcomes |= found
        for clip, code in found.items():
            self._note(self.users[clip], code)
        for row in chunk.rows:
            path = spooled(self.scratch, row["address"])
            self.uses[path] -= 1
            if not self.uses[path]:
                drop(path)

    def _note(self, sources: set[str], code: str) -> None:
        """One medium of each source, decoded or refused."""
        for source in sources:
            self.codes[source].append(code)
            self.fuse.note(source, code)

    def _refuse(self, name: str, detail: str, code: str = "ARCHIVE_MEMBER_REFUSED") -> None:
        row = {"name": name, "media_digest": "", "address": ""}
        self.found[name].append(row | {"code": code, "detail": detail})

    def _add_picture(self, folder: str, parent: str, member: Member) -> None:
        if self.open_folder is None:
            if folder in self.found:
                self._refuse(folder, f"the pictures of {folder} lie in several places")
                return
            fps = self._rows(folder, folders=True)[0]["fps"]
            address = f"member:{self.place}#{PurePosixPath(member.name).parent}@{fps}"
            home = spooled(self.large, address)
            home.mkdir()
            spooled(self.scratch, address).symlink_to(home)
            self.open_folder = _Folder(folder, parent, address, home)
        self.open_folder.add(member)

    def _close_folder(self) -> None:
        folder, self.open_folder = self.open_folder, None
        if folder is not None:
            rows = self._rows(folder.name, folders=True)
            digest = folder_digest(folder.digests.items())
            path = spooled(self.scratch, folder.address)
            self._take(folder.name, rows, folder.address, digest, path, folder.nbytes)

    def rows(self) -> Iterable[dict[str, Any]]:
        """What became of each wanted name that was met, in order of the names."""
        for name in sorted(self.found):
            yield from sorted(self.found[name], key=lambda row: (row["code"], row["address"]))


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
        if member.nbytes > IN_MEMORY or self.nbytes > decode.MAX_BYTES:
            raise MemberProblem(
                "MEDIA_TOO_BIG", f"{self.address[:200]}: {self.nbytes} bytes and more"
            )
        data = member.read(IN_MEMORY)
        file = PurePosixPath(member.name).name
        (self.home / file).write_bytes(data)
        self.digests[file] = hashlib.sha256(data).hexdigest()
