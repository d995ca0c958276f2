"""What a picture shows in detail, as hashes of its tiles: enough to tell two forms of one template
apart, too little to read either.

The luma of a fingerprint (32 x 32) cannot see a digit of a form or a counter in a corner. So a few
pictures of a clip are described once more: a picture is scaled to a square of LEVELS, every size
that it has pixels for, and cut into tiles that overlap by half; of each tile is kept how much
structure runs in each of eight directions, in four bits. That is where strokes run in a tile that
holds a few letters, not which letters they are. Two clips are compared at the largest size that
both have.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Floats = npt.NDArray[np.float32]
MOST_DETAILED = 8  # pictures a clip; 8 KB each at most
LEVELS = {72: 9, 144: 18, 288: 24, 576: 32}
"""Sides of the square that a picture is scaled to, and the tiles along each."""
WAYS = 8  # directions of a structure, each an eighth of half a turn
_ENLARGED = 1.15  # a picture may be enlarged that much to reach a size
_STEPS = 4.0  # of the square root of a tile's mean slope, in luma a pixel
_NOISE = 1 / _STEPS  # a root that rounding alone may make; a slope of 0.06 luma a pixel
_MOST = 15
_STRIPE = 96  # rows


def sides_of(width: int, height: int) -> list[int]:
    """The sides at which a stored picture is described, ascending; none where it is too small."""
    # the side of a square with as many pixels
    most = _ENLARGED * (width * height) ** 0.5
    return [side for side in LEVELS if side <= most]


def nbytes(sides: list[int]) -> int:
    """Bytes of one picture described at these sides."""
    return sum(LEVELS[side] ** 2 * WAYS // 2 for side in sides)


def described(jpeg: bytes, sides: list[int]) -> bytes:
    """One of our own JPEGs at these sides, one behind the other, two directions a byte."""
    # luma only, as all fingerprints: colours change with every encoder
    plane = Image.fromarray(simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0])
    return b"".join(_packed(_slopes(plane, side)) for side in sides)


def _slopes(plane: Image.Image, side: int) -> Floats:
    """float32[tiles, tiles, 8]: the mean slope of each tile in each direction."""
    # BILINEAR of Pillow reduces with a triangle filter: no aliasing of fine print into coarse
    # slopes
    square = np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR), np.float32)
    # gradient magnitude and direction, in units of an eighth of half a turn
    down, across = np.gradient(_softened(square))
    slope = np.hypot(down, across)
    way = np.arctan2(down, across) * (WAYS / np.pi)
    way += WAYS * (way < 0)  # a turn by half is the same way
    tiles = _tiles(side)
    # a stripe at a time: shares of all directions then stay in a core's cache
    stripes = [slice(at, at + _STRIPE) for at in range(0, side, _STRIPE)]
    rows = [_by_direction(way[some], slope[some]) @ tiles.T for some in stripes]
    return np.asarray((tiles @ np.concatenate(rows, axis=1)).transpose(1, 2, 0), np.float32)


def _by_direction(way: Floats, slope: Floats) -> Floats:
    """float32[8, rows, columns]: the slope of each pixel, shared by the two directions next to its
    own, as in a histogram of oriented gradients (Dalal and Triggs, 2005)."""
    shares = np.empty((WAYS, *slope.shape), np.float32)
    # direction 0 has neighbours on both sides of the wrap: 1 and 7
    for direction in range(WAYS):
        off = abs(way - direction)
        off = np.minimum(off, WAYS - off) if direction == 0 else off
        np.multiply(np.maximum(0, 1 - off), slope, out=shares[direction])
    return shares


def _softened(square: Floats) -> Floats:
    """Each pixel with its neighbours at weights 1, 2, 1: noise of an encoder has no direction."""
    # binomial filter, along columns, then along rows
    wide = np.pad(square, 1, mode="edge")
    tall = (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
    return np.asarray((tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:]) / 4, np.float32)


@functools.cache
def _tiles(side: int) -> Floats:
    """float32[tiles, side]: the weights of the pixels of each tile; they fall to its neighbours'
    middles, so that a shift by a part of a tile is a mean of tiles."""
    count = LEVELS[side]
    # a triangle of two tiles' width around each tile's middle, of weight 1 in all
    middles = (np.arange(count) + 0.5) * side / count
    off = abs(np.arange(side) + 0.5 - middles[:, None]) * count / side
    weights = np.maximum(0, 1 - off)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _packed(slopes: Floats) -> bytes:
    # four bits each: a square root quantises small slopes finer, as gamma does luma
    steps = np.minimum(np.rint(np.sqrt(slopes) * _STEPS), _MOST).astype(np.uint8)
    return (steps[..., ::2] << 4 | steps[..., 1::2]).tobytes()


def unpacked(data: bytes, sides: list[int], side: int) -> Floats:
    """float32[n, tiles, tiles, 8]: the square root of the mean slope (luma a pixel) of each tile in
    each direction, of the pictures of a clip at one of the `sides` that it is described at."""
    # pictures lie one behind the other, each with its sides in ascending order
    before = nbytes([each for each in sides if each < side])
    pictures = np.frombuffer(data, np.uint8).reshape(-1, nbytes(sides))
    at_side = pictures[:, before : before + nbytes([side])]
    steps = np.stack([at_side >> 4, at_side & 15], axis=-1).astype(np.float32) / _STEPS
    return np.asarray(steps.reshape(-1, LEVELS[side], LEVELS[side], WAYS), np.float32)


def stabilised(roots: Floats) -> Floats:
    """Square roots of slopes so that the noise of a difference is about the same for all of them: a
    generalised Anscombe transform (Starck, Murtagh and Bijaoui, 1998).

    Noise that grows with the slope is made even by the root, noise that does not, of rounding and
    of what an encoder leaves on a smooth ground, by the constant below it.
    """
    return np.asarray(np.sqrt(roots**2 + _NOISE**2) - _NOISE, np.float32)
