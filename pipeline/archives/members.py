"""The members of a published archive, in the order in which they lie, each read at most once.

tar, tar.gz (whole, or split into parts) and zip. Nothing is extracted, no name reaches the file
system, links and devices are never followed: a member is a name and a bounded stream of bytes, or
the reason why it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

from pipeline.archives.member import MAX_MEMBERS, ArchiveProblem, Member, typed
from pipeline.archives.part_names import KIND
from pipeline.archives.split_files import Concatenated
from pipeline.archives.tars import tar_members, tar_starts, unpacked_members
from pipeline.archives.zips import zip_members, zip_starts
from shards.errors import UserError

_VOLUME = re.compile(r"\.z\d\d$")


def kind_of(name: str) -> str:
    """ "tar", "tar.gz" or "zip" by the name of a file, or of one part of it; UserError if none."""
    lowered = name.lower()
    # volumes of a split zip end in .z01, .z02, ...: zip itself must join them
    if _VOLUME.search(lowered):
        raise UserError(
            f"{name}: a part of a multi-volume zip; join it with `zip -s 0 NAME.zip --out ONE.zip`"
        )
    match = KIND.search(lowered)
    if not match:
        raise UserError(f"{name}: not a .tar, .tar.gz or .zip, nor a part of one")
    return "tar.gz" if match["kind"] == "tgz" else match["kind"]


def members(
    file: Concatenated, kind: str, start: int = 0, stop: int | None = None
) -> Iterator[Member]:
    """Every member but folders; with `start` and `stop`, those of a byte range of a tar or zip.

    Raises ArchiveProblem where it cannot be read on; what came before is good.
    """
    with typed(file, ArchiveProblem):
        if kind == "zip":
            yield from zip_members(file, start, stop)
        elif kind == "tar":
            file.seek(start)
            # only the last range must end in an end mark
            last = stop is None or stop >= file.nbytes  # which must end with an end mark
            yield from tar_members(file, file.read, file.tell, None if last else stop)
        else:
            yield from unpacked_members(file)


def ranges(file: Concatenated, kind: str, nbytes: int) -> list[tuple[int, int]]:
    """Byte ranges [start, stop) of about `nbytes`, each beginning at a member; one for a tar.gz.

    Where the archive is damaged, the last range holds the damage.
    """
    cuts = [0]
    if kind == "tar.gz" or file.nbytes <= nbytes:
        return [(0, file.nbytes)]
    # damage is for the reader of the range to meet and to tell
    with suppress(ArchiveProblem), typed(file, ArchiveProblem):
        starts = zip_starts(file) if kind == "zip" else tar_starts(file)
        for number, start in enumerate(starts):
            if number == MAX_MEMBERS:  # which ends the archive, cut or not
                return [(0, file.nbytes)]
            # cuts where a member begins, once a range is large enough
            if start - cuts[-1] >= nbytes:
                cuts.append(start)
    return list(pairwise([*cuts, file.nbytes]))
