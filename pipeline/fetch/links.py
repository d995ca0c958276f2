"""Which links under a folder of media are followed, and where they lead.

A link may lead to bytes that nobody meant to share: it is followed where its
target lies in the folder that a recipe names, in one of the recipe's own folders, or, under
`snapshots/X`, in the `blobs` beside `snapshots`, where the hub's cache keeps what it links to.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def homes(root: Path, allowed: Iterable[str]) -> tuple[Path, ...]:
    """The real folders in which links under the real folder `root` may end."""
    found = [root, *(Path(each).resolve() for each in allowed)]
    snapshots = next((each for each in root.parents if each.name == "snapshots"), None)
    return tuple(found if snapshots is None else [*found, snapshots.parent / "blobs"])


def target(path: Path, within: Iterable[Path]) -> Path | None:
    """Where the path really lies if that is in one of these folders, else None."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # nothing there, or links that lead to each other
        return None
    return real if any(real.is_relative_to(each) for each in within) else None


def spelled(path: Path, within: Iterable[Path]) -> str:
    """The path as HOME//REST, by the first of these folders that it lies in."""
    home = next(each for each in within if path.is_relative_to(each))
    return f"{home}//{path.relative_to(home)}"


def opened(locator: str) -> Path:
    """The file at HOME//REST, links followed; where one of them leads out of HOME, that link.

    So a link that took a file's place since it was listed is refused as what it is. Another place
    is a path as it is.
    """
    home, mark, rest = locator.rpartition("//")
    if not mark:
        return Path(locator)
    path = Path(home, rest)
    if real := target(path, [Path(home).resolve()]):
        return real
    below = [*reversed(path.parents), path]
    inside = (each for each in below if each.is_relative_to(home) and each != Path(home))
    return next((each for each in inside if each.is_symlink()), path)
