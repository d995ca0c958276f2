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


_BROKEN = (
    EOFError,
    OSError,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,
    UnicodeDecodeError,  # of a zip whose names claim to be UTF-8
)


class ArchiveProblem(Exception):
    """Why an archive cannot be read on: a code of shards.outcome.CODES and what was seen.

    `ended` if that is behind the archive's end: what came before is whole.
    """

    def __init__(self, code: str, detail: str, *, ended: bool = False) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.ended = ended


class MemberProblem(ArchiveProblem):
    """The same of one entry of a zip; those behind it can still be read."""


class BehindEndError(EOFError):
    """Bytes behind the end of an archive that are no archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member: its name and size in bytes, and how to read on in it; or why it is refused."""

    name: str
    nbytes: int = 0
    read: Callable[[int], bytes] = io.BytesIO().read
    refusal: str = ""


@contextmanager
def typed(file: Concatenated, problem_type: type[ArchiveProblem]) -> Iterator[None]:
    """What the decoders raise over broken bytes, as an ArchiveProblem; faults of the disk stay."""
    # zipfile and zlib raise whatever broken bytes lead them to
    try:
        yield
    except _BROKEN as error:
        # an error with an errno is the machine's, not the archive's
        if isinstance(error, OSError) and error.errno is not None:
            raise
        ended = isinstance(error, BehindEndError)
        raise problem_type("ARCHIVE_DAMAGED", f"{file.name}: {error}"[:200], ended=ended) from error


# names -----------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """The name without a leading ./ and doubled slashes."""
    return str(PurePosixPath(name)) if name else name


def name_refusal(name: str) -> str:
    """Why a member of this name is refused, or ""."""
    # names that are not UTF-8 are judged as text with replacement characters
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    problem = next(path_problems(text), None)
    if problem is not None:
        return problem.detail
    return "an archive within the archive" if name.lower().endswith(_NESTED) else ""
