"""What lies in a source's media folder: regular files by name, and what is never opened."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.fetch import links
from pipeline.names import number_order
from shards.errors import UserError
from shards.ids import sha256_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """`files` by relative name: where their bytes really lie; `digest_of` is the sha256 of one,
    which is read when somebody asks for it. `irregular` are the names of links that are not
    followed, of pipes and of devices. Links among the files end in `homes`, the first of which is
    the media folder. `folders` by relative name are where they really lie.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    digest_of: Callable[[Path], str] = sha256_file
    irregular: frozenset[str] = frozenset()
    homes: tuple[Path, ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)


def read_folder(root: Path, digest_of: Callable[[Path], str], allowed: Iterable[str]) -> Folder:
    """Every regular file under `root`, listed; a root that is a link counts as where it leads.

    Links are followed where pipeline.fetch.links says so, with `allowed` for the recipe's own
    folders; behind a linked folder no further folder is entered by a link. UserError if `root` is
    no folder.
    """
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; set the source's key 'media' to its media folder")
    root = root.resolve()
    homes = links.homes(root, allowed)
    files = {}
    folders = {"": root}
    irregular = set()
    for name, path in _walk(root, "", homes, linked=False):
        if path is None:
            irregular.add(name)
        elif path.is_dir():
            folders[name] = path
        else:
            files[name] = path
    return Folder(
        files=files,
        # many records name one file
        digest_of=functools.cache(digest_of),
        irregular=frozenset(irregular),
        homes=homes,
        folders=folders,
    )


def _walk(
    folder: Path, prefix: str, homes: tuple[Path, ...], *, linked: bool
) -> Iterator[tuple[str, Path | None]]:
    """(name, real path) of all that lies below `folder`; None for what is never opened."""
    # in the order of names: digests and refusals are the same on every machine
    for entry in sorted(os.scandir(folder), key=lambda entry: number_order(entry.name)):
        name = prefix + entry.name
        path = Path(entry.path)
        is_link = entry.is_symlink()
        if is_link:
            path = links.target(path, homes) or path
        mode = path.lstat().st_mode
        # a folder is entered through at most one link, and never one that contains this one: no
        # circles
        enters = stat.S_ISDIR(mode) and not (is_link and (linked or folder.is_relative_to(path)))
        yield name, path if stat.S_ISREG(mode) or enters else None
        if enters:
            yield from _walk(path, f"{name}/", homes, linked=linked or is_link)
