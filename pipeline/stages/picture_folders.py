"""Folders of pictures in an archive: they pass by one after the other, each side by side."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.archives.member import ArchiveProblem, Member, MemberProblem
from pipeline.media.decode import MAX_BYTES
from pipeline.names import is_junk, printable, renumbered
from pipeline.stages.decode_members import Spooled
from pipeline.stages.open_media import spooled

IN_MEMORY = 64 << 20  # bytes of a member that is kept in memory


@dataclass(frozen=True, slots=True)
class Ask:
    """A wanted name that a member answers to; `near` is the member's path if it is only near."""

    name: str
    near: str = ""


@dataclass(slots=True)
class PictureFolder:
    """A folder of pictures while they pass by; in an archive they lie side by side."""

    asks: list[Ask]
    parent: str
    address: str
    home: Path
    junk: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    nbytes: int = 0
    problems: list[ArchiveProblem] = field(default_factory=list)

    def add(self, member: Member, saved: Spooled | None) -> None:
        """Keep one picture, which may be saved already; what is wrong with any of them is wrong
        with the folder.
        """
        self.nbytes += member.nbytes
        file = member.name.rpartition("/")[2]
        if self.problems:
            return
        # one picture in memory at a time, and all of them bounded as one video is
        if member.nbytes > IN_MEMORY or self.nbytes > MAX_BYTES:
            detail = f"{self.address[:200]}: {self.nbytes} bytes and more"
            self.problems.append(MemberProblem("MEDIA_TOO_BIG", detail))
        elif file in self.digests:
            detail = f"{self.address[:200]}: two pictures {printable(file)}"
            self.problems.append(MemberProblem("ARCHIVE_MEMBER_REFUSED", detail))
        else:
            # a picture that is also wanted by its own name was saved already
            data = saved.path.read_bytes() if saved else self._read(member)
            (self.home / file).write_bytes(data)
            self.digests[file] = hashlib.sha256(data).hexdigest()

    def _read(self, member: Member) -> bytes:
        try:
            return member.read(IN_MEMORY)
        except MemberProblem as problem:
            self.problems.append(problem)
            return b""

    def problem(self) -> ArchiveProblem:
        """What the folder is refused for; the same of several whatever came first."""
        # least by (code, detail): the same refusal whatever order the archive has
        return min(self.problems, key=lambda problem: (problem.code, problem.detail))

    def known(self) -> dict[str, int | str]:
        """What shards.index.MEMBERS says of folders."""
        pair = renumbered(f"{self.parent}/{name}" for name in self.digests)
        numbered = " before ".join(map(printable, pair or ()))
        return {"junk": self.junk, "numbered": numbered}


class PictureFolders:
    """Opens a folder at its first picture, and closes it at the first file of another."""

    def __init__(
        self,
        archive: str,
        scratch: Path,
        wanted_names: Callable[[str], list[Ask]],
        on_close: Callable[[PictureFolder], None],
    ) -> None:
        """`archive` is its address, `scratch` holds the pictures; `wanted_names` gives the
        wanted names of a folder, `on_close` takes one that passed by.
        """
        self._archive = archive
        self._within = scratch
        self._wanted_names = wanted_names
        self._closed = on_close
        self._open: PictureFolder | None = None
        self._seen: set[str] = set()
        self._junk: Counter[str] = Counter()

    def meet(self, path: str) -> PictureFolder | None:
        """The wanted folder that a member lies in, open; None for junk, which is counted."""
        parent = path.rpartition("/")[0]
        if is_junk(path):
            self._junk[parent] += 1
            return None
        # archives list a folder's files together: one folder is open at a time
        if self._open is None or self._open.parent != parent:
            self.close()
            self._begin(parent)
        return self._open

    def fail(self, problem: ArchiveProblem) -> None:
        """The archive breaks here: more pictures of the open folder may lie behind."""
        if self._open:
            self._open.problems.append(problem)

    def close(self) -> None:
        """Hand on the open folder."""
        folder = self._open
        self._open = None
        if folder:
            folder.junk = self._junk[folder.parent]
            self._closed(folder)

    def _begin(self, parent: str) -> None:
        asks = self._wanted_names(parent)
        if not asks:
            return
        address = f"member:{self._archive}#{printable(parent)}"
        self._open = PictureFolder(asks, parent, address, spooled(self._within, address))
        # pictures of a folder that was closed before: it was decoded without them
        if parent in self._seen:
            detail = f"the pictures of {printable(parent)} lie in several places of {self._archive}"
            self.fail(MemberProblem("ARCHIVE_MEMBER_REFUSED", detail))
        else:
            self._open.home.mkdir()
        self._seen.add(parent)
