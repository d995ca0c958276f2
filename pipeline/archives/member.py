"""One member of an archive, and which names and types of members are refused."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.archives.split_files import Concatenated
from pipeline.untrusted import path_problems

MAX_MEMBERS = 900_000
_NESTED = (".tar", ".gz", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".zst")


class ArchiveProblem(Exception):
    """Why an archive cannot be read on: a code of shards.outcome.CODES and what was seen."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


class MemberProblem(ArchiveProblem):
    """The same of one entry of a zip; those behind it can still be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member: its name and size in bytes, and how to read on in it; or why it is refused."""

    name: str
    nbytes: int = 0
    read: Callable[[int], bytes] = io.BytesIO().read
    refusal: str = ""


@contextmanager
def typed(file: Concatenated, problem: type[ArchiveProblem]) -> Iterator[None]:
    """What the decoders raise over broken bytes, as an ArchiveProblem; faults of the disk stay."""
    try:
        yield
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise problem("ARCHIVE_DAMAGED", f"{file.name}: {error}"[:200]) from error


# names -----------------------------------------------------------------------------


def plain_name(name: str) -> str:
    return str(PurePosixPath(name)) if name else name


def name_refusal(name: str, seen: set[str]) -> str:
    """Why a member of this name is refused; names of plain members are added to `seen`."""
    problem = next(path_problems(name), None)
    if problem is not None:
        return problem.detail
    plain = plain_name(name)
    if plain.lower().endswith(_NESTED):
        return "an archive within the archive"
    if plain in seen:
        return "a second member of this name"
    seen.add(plain)
    return ""
