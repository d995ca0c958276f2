"""Resize and letterbox: where a picture stands on the grid of cells that a model can pool.

The pool keeps a picture as it is. A frame that the tower sees has sides of whole cells (64 pixels
of a video, 32 of an image), so the picture fills such a grid or stands in the middle of one, on
zeros. Integers only: a plan counts by the same rule as a trainer decodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

FITS = ("box", "floor")
"""How a picture meets its grid: "box" as it is, "floor" stretched to sides that are rounded down,
as Oryx does."""
Size = tuple[int, int]
"""(width, height) in pixels."""


class Placement(NamedTuple):
    """A grid of `width` x `height` pixels and the size of the picture in its middle."""

    width: int
    height: int
    picture: Size

    @property
    def empty(self) -> int:
        """How much of the grid is zeros, per mille."""
        grid = self.width * self.height
        return (2000 * (grid - self.picture[0] * self.picture[1]) + grid) // (2 * grid)

    def stretched(self, width: int, height: int) -> int:
        """How much more one side of the stored picture is scaled than the other, per mille."""
        across = self.picture[0] * height
        down = self.picture[1] * width
        more = max(across, down)
        less = min(across, down)
        return (2000 * (more - less) + less) // (2 * less)

    def told(self, width: int, height: int) -> str:
        """What becomes of the stored picture, for people."""
        said = f"{width}x{height} as {self.picture[0]}x{self.picture[1]}"
        said += f" on a grid of {self.width}x{self.height}"
        parts = ("stretched by", self.stretched(width, height)), ("zeros", self.empty)
        return said + "".join(f", {what} {share / 10:.1f} %" for what, share in parts if share)

    @property
    def offset(self) -> Size:
        """Pixels left of the picture and above it."""
        return (self.width - self.picture[0]) // 2, (self.height - self.picture[1]) // 2


@lru_cache(maxsize=1 << 16)
def place(
    width: int, height: int, *, area: int, min_area: int = 1, cell: int, fit: str = "box"
) -> Placement:
    """Where a stored picture of `width` x `height` pixels is shown.

    It is scaled to at most `area` and, where it has fewer pixels, to `min_area`. Of all grids of
    whole cells within `area`, those that show at least 95 % of the most pixels that any shows; of
    these the one of fewest cells. The picture fills it where that distorts it by at most 2 %.
    """
    # the area wanted: small pictures are enlarged, large ones scaled down
    pixels = min(max(width * height, min_area), area)
    if fit == "floor":
        return _floored(width, height, pixels, cell)
    wanted = (width, height) if pixels == width * height else _scaled(width, height, pixels)
    found = list(_grids(width, height, wanted, area // cell**2, cell))
    most = max(w * h for _, _, (w, h) in found)
    # nearly the most pixels in the fewest cells: a cell costs tokens even where it is empty
    enough = [one for one in found if 100 * one.picture[0] * one.picture[1] >= 95 * most]
    return min(enough, key=lambda one: (one.width * one.height, -one.picture[0] * one.picture[1]))


def grid_of(width: int, height: int, patch: int = 16) -> tuple[int, int]:
    """Patches of a frame: (rows, columns)."""
    return height // patch, width // patch


def _scaled(width: int, height: int, pixels: int) -> Size:
    """The sides of so many pixels in the same shape, rounded."""
    across = 4 * pixels * width // height
    down = 4 * pixels * height // width
    return max(1, (isqrt(across) + 1) // 2), max(1, (isqrt(down) + 1) // 2)


def _floored(width: int, height: int, pixels: int, cell: int) -> Placement:
    """Oryx's rule: each side rounded down to whole cells by itself, at least one."""
    if pixels != width * height:
        width, height = isqrt(width * pixels // height), isqrt(height * pixels // width)
    width = max(width // cell, 1) * cell
    height = max(height // cell, 1) * cell
    return Placement(width, height, (width, height))


def _grids(width: int, height: int, wanted: Size, most: int, cell: int) -> Iterator[Placement]:
    """Grids of at most `most` cells for a picture, widest first; no other shows more in fewer."""
    best = 0
    for columns in range(min(-(-wanted[0] // cell), most), 0, -1):
        across = columns * cell
        # a bound, as in branch and bound: the search ends where no grid can be good enough
        if 105 * across**2 * height < 95 * best * width:
            return  # narrower ones show less than 95 % of the best, even where it fills them
        needed = -(-min(wanted[1] * width, across * height) // (width * cell))
        # rows that hold the picture at this width, as far as the area allows
        top = min(max(needed, 1), most // columns)
        for rows in range(max(95 * top // 100 - 1, 1), top + 1):  # fewer show less than 95 %
            picture = _picture(width, height, wanted, (across, rows * cell))
            best = max(best, picture[0] * picture[1])
            yield Placement(across, rows * cell, picture)


def _picture(width: int, height: int, wanted: Size, grid: Size) -> Size:
    """The size of the picture in a grid: the grid's, or the largest up to `wanted`."""
    # which side is scaled more
    across = grid[0] * height
    down = grid[1] * width
    odd = grid[1] if width >= height else grid[0]  # the longer side may be a pixel off: it is even
    stretched = 50 * max(across, down) + 51 * odd > 51 * min(across, down)
    larger = any(50 * have > 51 * want for have, want in zip(grid, wanted, strict=True))
    if not stretched and not larger:
        return grid
    if wanted[0] <= grid[0] and wanted[1] <= grid[1]:
        return wanted
    if across < down:
        return grid[0], max(1, (2 * across + width) // (2 * width))
    return max(1, (2 * down + height) // (2 * height)), grid[1]
