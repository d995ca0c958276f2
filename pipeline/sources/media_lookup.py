"""The media of one source by name: what lies in its folder, what its archives held, what its
addresses gave. A record's reference is looked up here and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.fetch.url_guard import FetchProblem, check_address
from pipeline.sources.records import MediaRef
from pipeline.untrusted import Problem
from shards.errors import UserError
from shards.ids import canonical_json, sha256_file, sha256_hex


@dataclass(frozen=True, slots=True)
class Found:
    """Media that are there: sha256 of the bytes, and the address to open them."""

    digest: str
    address: str


@dataclass(frozen=True, slots=True)
class MediaTable:
    """`files` of the media folder by relative name; `members` of archives and answers of the web.

    `broken` says why something may be missing: an archive that could not be read to its end.
    """

    files: Mapping[str, tuple[str, Path]]
    irregular: frozenset[str] = frozenset()
    members: Mapping[str, Found | Problem] = field(default_factory=dict)
    broken: Problem | None = None

    def find(self, ref: MediaRef) -> Found | Problem:
        """Where the bytes of `ref` are, embedded, in the folder, in an archive or on the web."""
        if ref.data is not None:
            return Found(sha256_hex(ref.data), ref.address)
        if ref.url:
            return self._linked(ref.url)
        for name in (ref.name, *ref.also):
            place = self._named(name, ref)
            if place is not None:
                return place
        if any(self._is_irregular(name) for name in (ref.name, *ref.also)):
            return Problem("MEDIA_NOT_A_FILE", f"{ref.name} is a link, a pipe or a device")
        if ref.link_only:
            return Problem("MEDIA_LINK_ONLY", f"no file {ref.name}")
        return self.broken or Problem("MEDIA_MISSING", f"no file {ref.name}")

    def _named(self, name: str, ref: MediaRef) -> Found | Problem | None:
        if ref.sizes:
            return _pieces(self.files[name], ref) if name in self.files else None
        if name in self.members:
            return self.members[name]
        if ref.fps is not None:
            return self._folder(name, ref.fps)
        if name in self.files:
            digest, path = self.files[name]
            return Found(digest, f"file:{path}")
        return None

    def _folder(self, name: str, fps: int) -> Found | None:
        """A folder of pictures: its digest is that of their sorted names and digests."""
        inside = [file for file in self.files if str(PurePosixPath(file).parent) == name]
        if not inside:
            return None
        pairs = sorted((PurePosixPath(file).name, self.files[file][0]) for file in inside)
        return Found(folder_digest(pairs), f"folder:{self.files[inside[0]][1].parent}@{fps}")

    def _linked(self, url: str) -> Found | Problem:
        try:
            check_address(url)
        except FetchProblem as problem:
            return Problem(problem.code, problem.detail)
        return self.members.get(url) or Problem("MEDIA_MISSING", f"{url[:100]} was not fetched")

    def _is_irregular(self, name: str) -> bool:
        """Whether the name, or a folder on its way, is something that is never opened."""
        return any(str(part) in self.irregular for part in (name, *PurePosixPath(name).parents))


def folder_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """sha256 over the (name, digest) of the pictures of a folder, in order of their names."""
    return sha256_hex(canonical_json([list(pair) for pair in sorted(pairs)]))


def _pieces(file: tuple[str, Path], ref: MediaRef) -> Found | Problem:
    """Pieces of a file that follow each other: the digest is that of their bytes."""
    _, path = file
    if path.stat().st_size < ref.start + sum(ref.sizes):
        return Problem("MEDIA_TRUNCATED", f"{ref.name} ends before byte {ref.start}+")
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        opened.seek(ref.start)
        for size in ref.sizes:
            digest.update(opened.read(size))
    rate = "" if ref.fps is None else f"@{ref.fps}"
    sizes = ",".join(map(str, ref.sizes))
    return Found(digest.hexdigest(), f"range:{path}#{ref.start}:{sizes}{rate}")


def folder_table(root: Path | None, digest_of: Callable[[Path], str] = sha256_file) -> MediaTable:
    """Every regular file under `root`, hashed; links, pipes and devices are never opened.

    None stands for a source without a media folder (embedded images, or text only).
    """
    files: dict[str, tuple[str, Path]] = {}
    irregular: set[str] = set()
    if root is None:
        return MediaTable({})
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; set the source's key 'media' to its media folder")
    root = root.resolve()
    for path in _walk(root):
        name = path.relative_to(root).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            files[name] = (digest_of(path), path)
        elif not stat.S_ISDIR(mode):
            irregular.add(name)
    return MediaTable(files, frozenset(irregular))


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below `folder` in order of names, links not followed."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def joined(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Found | Problem], Problem | None]:
    """(members by name, why some may be missing) out of rows of shards.index.MEMBERS.

    A name that leads to different bytes, in one archive or in two, answers nothing.
    """
    found: dict[str, list[Found | Problem]] = defaultdict(list)
    broken = None
    for row in rows:
        problem = Problem(row["code"], row["detail"]) if row["code"] else None
        if row["name"]:
            found[row["name"]].append(problem or Found(row["media_digest"], row["address"]))
        else:
            broken = broken or problem
    return {name: _one(name, places) for name, places in found.items()}, broken


def _one(name: str, places: list[Found | Problem]) -> Found | Problem:
    problems = [place for place in places if isinstance(place, Problem)]
    if problems:
        return problems[0]
    digests = {place.digest for place in places if isinstance(place, Found)}
    if len(digests) > 1:
        return Problem("MEDIA_AMBIGUOUS", f"{name} stands for {len(digests)} different media")
    return min((place for place in places if isinstance(place, Found)), key=lambda p: p.address)
