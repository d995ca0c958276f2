"""The media of one source by name: what lies in its folder, what its archives held, what its
addresses gave. A record's reference is looked up here and nowhere else.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypedDict
from urllib.parse import quote_from_bytes

from pipeline.fetch import links
from pipeline.fetch.url_guard import FetchProblem, check_address
from pipeline.names import in_order, is_junk, number_order, printable, renumbered
from pipeline.sources.media_folder import Folder, read_folder
from pipeline.sources.near_names import folded, near_index, told
from pipeline.sources.records import MediaRef
from pipeline.untrusted import Problem
from shards.ids import canonical_json, sha256_file, sha256_hex

Asked = tuple[str, bool]
"""A name that a record gives, and whether it means a folder of pictures."""


class MemberRow(TypedDict):
    """A row of shards.index.MEMBERS: what became of one wanted name."""

    name: str
    fps: int | None
    near: str
    media_digest: str
    address: str
    code: str
    detail: str
    junk: int | None
    numbered: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """Media that are there: sha256 of the bytes, and the address to open them.

    `near` is the file's name where it is not quite the one that was asked for; of a folder of
    pictures `junk` counts the files that are none, and `numbered` shows two names of it that their
    numbers put in other places than their bytes.
    """

    digest: str
    address: str
    near: str = ""
    junk: int = 0
    numbered: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """What archives and addresses held, by the names that were asked for.

    `near` are members whose names are only near; `broken` says why some may be missing: an archive
    that could not be read to its end.
    """

    exact: Mapping[Asked, Found | Problem] = field(default_factory=dict)
    near: Mapping[Asked, Mapping[str, Found | Problem]] = field(default_factory=dict)
    broken: Problem | None = None


@dataclass(frozen=True, kw_only=True)  # without slots: what is near is indexed at the first miss
class MediaTable:
    """All media of a source by name: its folder, `loose` files as (sha256, path), its archives'."""

    folder: Folder = field(default_factory=Folder)
    loose: Mapping[str, tuple[str, Path]] = field(default_factory=dict)
    members: Members = field(default_factory=Members)

    def find(self, ref: MediaRef) -> Found | Problem:
        """Where the bytes of `ref` are, embedded, in the folder, in an archive or on the web.

        A name that misses is joined to the one file whose name is near, if there is just one.
        """
        # exact names first, near ones only where none is exact
        if ref.data is not None:
            return Found(sha256_hex(ref.data), ref.address)
        if ref.url:
            return self._linked(ref.url)
        names = (ref.name, *ref.also)
        exact = (self._named(name, ref) for name in names)
        place = next((place for place in exact if place is not None), None)
        return place or self._missed(names, ref)

    def _missed(self, names: Sequence[str], ref: MediaRef) -> Found | Problem:
        near = {printable(other): place for name in names for other, place in self._near(name, ref)}
        # one near file is taken, several are refused: no guess between them
        if len(near) == 1:
            ((other, place),) = near.items()
            return place if isinstance(place, Problem) else replace(place, near=other)
        if near:
            listed = ", ".join(told(other, ref.name) for other in in_order(near))
            return Problem("MEDIA_MISSING", f"no file {ref.name}; near are {listed[:500]}")
        if any(self._is_irregular(name) for name in names):
            detail = f"{ref.name} is a pipe, a device, or a link that leads elsewhere"
            return Problem("MEDIA_NOT_A_FILE", detail)
        if ref.link_only:
            return Problem("MEDIA_LINK_ONLY", f"no file {ref.name}")
        return self.members.broken or Problem("MEDIA_MISSING", f"no file {ref.name}")

    def _named(self, name: str, ref: MediaRef) -> Found | Problem | None:
        """What has exactly this name."""
        if ref.sizes:
            file = self._place(name)
            # pieces name bytes of a file, whatever else has that name
            return _pieces(*file[1:], ref) if file else None
        lookup = name, ref.fps is not None
        if lookup in self.members.exact:
            return self.members.exact[lookup]
        if ref.fps is not None:
            return self._pictures(name, ref.fps)
        file = self._place(name)
        return _file(name, *file) if file else None

    def _place(self, name: str) -> tuple[str, Path, str] | None:
        """(sha256, path, place for links.opened) of a loose file, or of one of the folder."""
        if name in self.loose:
            digest, path = self.loose[name]
            return digest, path, str(path)
        if name in self.folder.files:
            path = self.folder.files[name]
            return self.folder.digest_of(path), path, links.spelled(path, self.folder.homes)
        return None

    def _near(self, name: str, ref: MediaRef) -> Iterator[tuple[str, Found | Problem]]:
        """What has a name that is near this one."""
        # folders and files of one name are different media
        pictures = ref.fps is not None and not ref.sizes
        if not ref.sizes:
            yield from self.members.near.get((name, pictures), {}).items()
        index = self._near_folders if pictures else self._near_files
        for other in index.get(folded(name), ()):
            place = self._named(other, ref)
            if place is not None:
                yield other, place

    @functools.cached_property
    def _near_files(self) -> Mapping[str, tuple[str, ...]]:
        return near_index([*self.folder.files, *self.loose])

    @functools.cached_property
    def _near_folders(self) -> Mapping[str, tuple[str, ...]]:
        return near_index(self._folders)

    @functools.cached_property
    def _folders(self) -> Mapping[str, list[str]]:
        """The names of what lies in each folder, but folders; irregular ones too."""
        names: dict[str, list[str]] = defaultdict(list)
        for name in [*self.folder.files, *self.folder.irregular]:
            names[name.rpartition("/")[0]].append(name)
        return names

    def _pictures(self, name: str, fps: int) -> Found | Problem | None:
        """A folder of pictures: its digest is that of their names and digests."""
        # irregular names count: a folder with a pipe in it is refused, not read without it
        everything = self._folders.get(name, [])
        inside = in_order(file for file in everything if not is_junk(file))
        if not inside:
            return None
        home = self._home(name, inside)
        if isinstance(home, Problem):
            return home
        digests = (self.folder.digest_of(self.folder.files[file]) for file in inside)
        pairs = zip((file.rpartition("/")[2] for file in inside), digests, strict=True)
        return Found(
            folder_digest(pairs),
            f"{_address('folder', home)}@{fps}",
            junk=len(everything) - len(inside),
            numbered=" before ".join(map(printable, renumbered(inside) or ())),
        )

    def _home(self, name: str, inside: Sequence[str]) -> str | Problem:
        """The place of a folder as HOME//REST; links among its pictures end in HOME, or where those
        of the hub's cache do.
        """
        folder = self.folder.folders[name]
        for home in self.folder.homes:
            ends = links.homes(folder, [str(home)])
            if folder.is_relative_to(home) and all(
                file in self.folder.files
                # every picture must end within the same home
                and any(self.folder.files[file].is_relative_to(end) for end in ends)
                for file in inside
            ):
                return links.spelled(folder, [home])
        irregular = next((file for file in inside if file in self.folder.irregular), inside[0])
        return Problem(
            "MEDIA_NOT_A_FILE", f"{printable(irregular)} is no file, or a link elsewhere"
        )

    def _linked(self, url: str) -> Found | Problem:
        try:
            check_address(url)
        except FetchProblem as problem:
            return Problem(problem.code, problem.detail)
        missing = Problem("MEDIA_MISSING", f"{url[:100]} was not fetched")
        return self.members.exact.get((url, False), missing)

    def _is_irregular(self, name: str) -> bool:
        """Whether the name, or a folder on its way, is something that is never opened."""
        # a name below an irregular folder is irregular too
        parts = (name, *PurePosixPath(name).parents) if self.folder.irregular else ()
        return any(str(part) in self.folder.irregular for part in parts)


def _file(name: str, digest: str, path: Path, path_name: str) -> Found:
    """One file; where its name tells a GIF and its path does not, as in the hub's cache, or is no
    text, it is opened as a copy.
    """
    # ffmpeg tells a GIF by its suffix; the hub's cache names files by their digest
    gif = ".gif" if name.lower().endswith(".gif") and path.suffix.lower() != ".gif" else ""
    if gif or printable(path_name) != path_name:
        return Found(digest, f"copy:{_quoted(path_name)}#{gif}")
    return Found(digest, f"file:{path_name}")


def _address(scheme: str, place: str) -> str:
    """scheme:PLACE, or scheme%:PLACE with what is no text in it quoted."""
    plain = printable(place) == place
    return f"{scheme}:{place}" if plain else f"{scheme}%:{_quoted(place)}"


def _quoted(place: str) -> str:
    return quote_from_bytes(os.fsencode(place))


def folder_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """sha256 over the (name, digest) of the pictures of a folder, in the order of their numbers."""
    # the name and the digest of each picture: a renamed picture is another video
    ordered = sorted(pairs, key=lambda pair: number_order(pair[0]))
    return sha256_hex(canonical_json([[printable(name), digest] for name, digest in ordered]))


def _pieces(path: Path, address: str, ref: MediaRef) -> Found | Problem:
    """Pieces of a file that follow each other: the digest is that of their bytes."""
    if path.stat().st_size < ref.start + sum(ref.sizes):
        return Problem("MEDIA_TRUNCATED", f"{ref.name} ends before byte {ref.start}+")
    # one digest over pieces that follow each other, as if they were a file
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        opened.seek(ref.start)
        for size in ref.sizes:
            digest.update(opened.read(size))
    rate = "" if ref.fps is None else f"@{ref.fps}"
    sizes = ",".join(map(str, ref.sizes))
    return Found(digest.hexdigest(), f"{_address('range', address)}#{ref.start}:{sizes}{rate}")


def folder_table(
    root: Path | None,
    digest_of: Callable[[Path], str] = sha256_file,
    allowed: Iterable[str] = (),
) -> MediaTable:
    """Every file under `root`, as pipeline.sources.media_folder reads it.

    None stands for a source without a media folder (embedded images, or text only).
    """
    if root is None:
        return MediaTable()
    return MediaTable(folder=read_folder(root, digest_of, allowed))


def joined(members: Iterable[MemberRow]) -> Members:
    """What archives and addresses held, out of rows of shards.index.MEMBERS.

    A name that leads to different bytes, in one archive or in two, answers nothing.
    """
    exact: dict[Asked, list[Found | Problem]] = defaultdict(list)
    near: dict[Asked, dict[str, list[Found | Problem]]] = defaultdict(lambda: defaultdict(list))
    broken: list[Problem] = []
    for row in members:
        medium = _met(row)
        # (name, is a folder of pictures): both may be wanted
        name = row["name"], row["fps"] is not None
        if not row["name"]:
            broken += [medium] if isinstance(medium, Problem) else []
        elif row["near"]:
            near[name][row["near"]].append(medium)
        else:
            exact[name].append(medium)
    return Members(
        exact={name: _one(name[0], places) for name, places in exact.items()},
        near={
            name: {other: _one(other, places) for other, places in others.items()}
            for name, others in near.items()
        },
        broken=min(broken, key=_first) if broken else None,
    )


def _met(row: MemberRow) -> Found | Problem:
    if row["code"]:
        return Problem(row["code"], row["detail"])
    return Found(
        row["media_digest"],
        row["address"],
        junk=row["junk"] or 0,
        numbered=row["numbered"] or "",
    )


def _first(problem: Problem) -> tuple[str, str]:
    return problem.code, problem.detail


def _one(name: str, candidates: list[Found | Problem]) -> Found | Problem:
    # a problem with any of them is a problem with the name
    problems = [place for place in candidates if isinstance(place, Problem)]
    if problems:
        return min(problems, key=_first)
    places = [place for place in candidates if isinstance(place, Found)]
    # the same bytes in several archives are one answer
    if len({place.digest for place in places}) > 1:
        return Problem("MEDIA_AMBIGUOUS", f"{name} stands for different media")
    return min(places, key=lambda place: place.address)
