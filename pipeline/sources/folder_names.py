"""The names of what lies below a folder, and the folders from which published names lead there.

Only names are looked at: nothing is opened or hashed. Case, Unicode form and kind of slash do not
count, for a build joins names that differ so.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.names import in_order, is_junk
from pipeline.sources.near_names import folded
from pipeline.sources.records import MediaRef
from shards.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderNames:
    """Paths of `files` below `root`; all paths, folders too, by their folded last part and by their
    folded last two: in a folder for each clip all frames are called alike."""

    root: Path
    files: tuple[str, ...] = field(repr=False)
    by_tail: Mapping[str, list[str]] = field(repr=False)

    def homes(self, ref: MediaRef) -> set[str]:
        """The folders from which a name of the medium leads to something."""
        homes = set()
        for name in (ref.name, *ref.also):
            tail = f"/{folded(name)}"
            last = "/".join(tail[1:].split("/")[-2:])
            for path in self.by_tail.get(last, ()):
                if f"/{folded(path)}".endswith(tail):
                    parts = PurePosixPath(path).parts
                    homes.add("/".join(parts[: len(parts) - tail.count("/")]))
        return homes


def folder_names(root: Path, most: int) -> FolderNames:
    """Look through the folder, hidden folders left out; UserError beyond `most` files."""
    by_tail: dict[str, list[str]] = defaultdict(list)
    files: list[str] = []
    for folder, inner, names in os.walk(root):
        inner[:] = in_order(name for name in inner if not name.startswith("."))
        below = os.path.relpath(folder, root)
        before = "" if below == "." else f"{below}/"
        kept = in_order(name for name in names if not is_junk(name) and not name.startswith("."))
        parent = f"{folded(PurePosixPath(below).name)}/" if before else ""
        for name in (*inner, *kept):
            last = folded(name)
            by_tail[last].append(before + name)
            if parent:
                by_tail[parent + last].append(before + name)
        files += [before + name for name in kept]
        if len(files) > most:
            raise UserError(f"{root}: more than {most} files; name a smaller folder")
    return FolderNames(root=root, files=tuple(files), by_tail=by_tail)
