"""Whether two clips that look alike at 32 x 32 cells show the same in detail.

    same        the structure that both show is the same
    different   a patch of it differs far more than the rest
    undecided   in between; or too small, or too far apart in time, to tell

The tiles of one clip (pipeline.dedup.details) are laid over the other's, at the largest side that
both have, picture by picture. Copies differ a little everywhere, as far as they were compressed,
scaled or taken a little later; look-alikes are equal but for a patch. So the largest difference is
measured against the usual one.

A patch is an overlay, and left out, where two films move and it stands still in one of them only,
or stands still in both and is smooth in one. Where both have structure of their own that differs,
two labels or two counters, it is content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.dedup import transforms
from pipeline.dedup.details import LEVELS, WAYS, stabilised, unpacked
from pipeline.dedup.fingerprint_arrays import Detailed
from pipeline.dedup.fingerprints import SIDE, Floats
from pipeline.dedup.hamming_join import Ints
from pipeline.dedup.registration import (
    Bools,
    inside,
    plausible,
    registered,
    smoothed,
    warped,
)
from pipeline.dedup.static_overlays import LEAST_CHANGE, grown

SAME = "same"
DIFFERENT = "different"
UNDECIDED = "undecided"
SURE = 0.9  # of what copies differ by at most; copies: 0.89 at most
DOUBTFUL = 1.2  # the same; look-alikes: 0.98 at least
FITS_WELL = 0.75
TOO_SMALL = 2  # steps of LEVELS by which one clip is smaller: the other may show what it cannot
APART = 400_000  # µs; pictures of two films further apart show another moment
EXACT = 60_000  # µs; a frame of 25 fps and more: the same moment
STILL_APART = 0.48  # what images and films that stand still usually differ by; copies: 0.36
STEPS = 1.0  # luma; from picture to picture of a film that moves all the time
_COPIED = (0.5, 0.6, 0.3)  # a copy's largest difference by its usual one: see _allowed
_LEAST = 0.25  # what a patch of a copy may differ by in any case
_LEAST_EXACT = 0.18  # the same where both show one moment
_LUMA_COUNTS = 5.0  # luma; a larger difference allows no more
_STILL_LUMA = 0.5  # the same where nothing moved between two equal moments
_STRUCTURE = 0.5  # of a tile that says something
_STILLER = 0.5  # change in time of an overlay, as a share of the other film's
_SMOOTHER = 0.25  # its contrast, as a share of the other film's
_STANDS_STILL = 0.35
_CONTRAST = 4.0
_MOST_COVERED = 0.35  # share of the cells
_ABOUT = 0.05  # of a tile; registration of a picture that lies where it lay is as exact
_SHIFTS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of a tile; registration at 32 x 32 is as exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The detailed pictures of a clip as they are seen in a view: times on the other's clock [n],
    luma [n, 32, 32], tiles as they are stored."""

    video: bool
    micros: Floats
    pictures: Floats
    details: Detailed
    transform: transforms.Transform

    def tiles(self, side: int) -> Floats:
        """float32[n, tiles, tiles, 8] at one side, of even noise."""
        transform = self.transform
        tiles = stabilised(unpacked(self.details.data, self.details.sides, side))
        # directions run over half a turn: transposing mirrors them at the diagonal, one mirror
        # negates them; two mirrors are half a turn, under which a direction is itself
        ways = np.arange(WAYS)
        if transform.turned:
            tiles = tiles.transpose(0, 2, 1, 3)[..., (WAYS // 2 - ways) % WAYS]
        if transform.down != transform.across:
            tiles = tiles[..., -ways % WAYS]
        return tiles[:, :: -1 if transform.down else 1, :: -1 if transform.across else 1]


def judged(ours: Shown, theirs: Shown, warp: Floats) -> str:
    """SAME, DIFFERENT or UNDECIDED, for two clips of which the first lies so in the other."""
    if not len(ours.micros) or not len(theirs.micros):
        return UNDECIDED
    pairs = _aligned(ours, theirs)
    # of images there is always one; films may have no two pictures of about the same moment
    if not len(pairs):
        return SAME if _moves(ours) and _moves(theirs) else UNDECIDED
    differences = _largest(ours, theirs, pairs, warp)
    if not len(differences):
        return UNDECIDED
    # the median over moments: one pair of pictures may be blurred, cut into or badly registered
    most = float(np.median(differences))
    moving = _moves(ours) and _moves(theirs)
    # of films that move no two moments are equal: one picture that fits well says more than others
    # that do not, and a single doubtful one as little as none
    one_fits = moving and (
        differences.min() <= FITS_WELL or (len(differences) == 1 and most <= DOUBTFUL)
    )
    if most > SURE and not one_fits:
        return DIFFERENT if most > DOUBTFUL else UNDECIDED
    # the larger one may hold small print that the smaller cannot show: not to be told
    smaller = abs(len(ours.details.sides) - len(theirs.details.sides)) >= TOO_SMALL
    return UNDECIDED if smaller else SAME


def _moves(shown: Shown) -> bool:
    """Whether a film moves as a whole and all the time: no fixed camera, no deck of slides."""
    if len(shown.pictures) < 3:
        return False
    # mean luma step from picture to picture, as in shot detection by frame differences
    steps = abs(np.diff(shown.pictures, axis=0)).mean(axis=(1, 2))
    return bool(np.median(shown.pictures.std(axis=0)) >= LEAST_CHANGE and np.median(steps) >= STEPS)


@dataclass(frozen=True, slots=True)
class _Fit:
    """[k, tiles, tiles]: by how much the tiles of k pairs of pictures differ (squared), how much
    structure the one with more of it has (squared), and which tiles lie in both; [k]: the mean
    difference, of a tile at most 1."""

    off: Floats
    structure: Floats
    within: Bools
    score: Floats

    def better(self, so_far: _Fit | None) -> _Fit:
        """Of each pair of pictures the fit that differs less."""
        if so_far is None:
            return self
        worse = self.score >= so_far.score
        for name in self.__slots__:
            getattr(self, name)[worse] = getattr(so_far, name)[worse]
        return self


def _fit(moved: Floats, within: Bools, others: Floats) -> _Fit:
    """How tiles [k, tiles, tiles, 8] differ from others where they lie within both."""
    off = ((moved - others) ** 2).sum(axis=-1)
    structure = np.maximum((moved**2).sum(axis=-1), (others**2).sum(axis=-1))
    count = np.maximum(within.sum(axis=(1, 2)), 1)
    score = (np.minimum(np.sqrt(off), 1) * within).sum(axis=(1, 2)) / count
    return _Fit(off, structure, within, score)


def _aligned(ours: Shown, theirs: Shown) -> Ints:
    """[k, 2]: pictures that lie next to each other in time; of images their only ones."""
    # every picture with the one nearest in time, from either side: none is left unjudged
    off = abs(ours.micros[:, None] - theirs.micros)
    nearest = (off == off.min(axis=1, keepdims=True)) | (off == off.min(axis=0, keepdims=True))
    return np.argwhere(nearest & ((off <= APART) | (not ours.video)))


def _largest(ours: Shown, theirs: Shown, pairs: Ints, warp: Floats) -> Floats:
    """Of each pair of pictures that says something, the largest difference of a patch, as a share
    of what copies differ by at most."""
    # both are described at the largest side they share; finer tiles of one have no partner
    side = max(set(ours.details.sides) & set(theirs.details.sides))
    our_pictures, their_pictures = ours.pictures[pairs[:, 0]], theirs.pictures[pairs[:, 1]]
    start, untouched = (
        np.repeat(origin, len(pairs), axis=0) for origin in (warp, transforms.start(ours.transform))
    )
    refined = registered(our_pictures, their_pictures, start, 5)
    # where registration ran away, the warp it was sought from is the better guess
    warps = np.where(plausible(refined, start)[:, None], refined, start)
    luma = warped(our_pictures, warps) - their_pictures
    luma -= np.median(luma, axis=(1, 2), keepdims=True)  # a copy may be brighter as a whole
    usual_luma = np.quantile(abs(luma) * inside(warps), 0.75, axis=(1, 2))
    free = ~_covered(ours, theirs, warp, LEVELS[side])
    # tiles to compare, without those under an overlay
    tiles = ours.tiles(side)[pairs[:, 0]], theirs.tiles(side)[pairs[:, 1]]
    # registration may bend a picture until other letters fit: where it was sought from counts too
    fit = _laid(*tiles, (warps, start, untouched))
    # root mean square over 3 x 3 tiles: a stroke on the border of two tiles counts as one
    # difference
    patches = np.sqrt(smoothed(fit.off * free))
    says = np.sqrt(smoothed(fit.structure)) > _STRUCTURE
    exact = abs(ours.micros[pairs[:, 0]] - theirs.micros[pairs[:, 1]]) <= EXACT
    moving = _moves(ours) or _moves(theirs)
    shares = []
    # each pair of pictures on its own: the largest difference over what a copy's usual one allows
    for number, counted in enumerate(fit.within & free):
        # too few tiles with structure give no usual difference
        usual = patches[number][counted & says[number]]
        if len(usual) < 4:
            continue
        still = exact[number] and not moving
        allowed = _LEAST_EXACT if exact[number] else _LEAST
        allowed += _allowed(usual, min(usual_luma[number], _STILL_LUMA if still else _LUMA_COUNTS))
        share = patches[number][counted].max() / allowed
        # at one moment, of what never moves, copies agree nearly everywhere
        apart = still and np.quantile(usual, 0.75) > STILL_APART
        shares.append(np.inf if apart else share)
    return np.array(shares, np.float32)


def _allowed(patches: Floats, luma: float) -> float:
    """How much more than the least a patch of a copy differs at most, where its patches, and its
    luma, usually differ so much."""
    usual, many, of_luma = _COPIED
    three_quarters, nine_tenths = np.quantile(patches, (0.75, 0.9)).tolist()
    return float(usual * three_quarters + many * nine_tenths + of_luma * luma)


def _laid(tiles: Floats, others: Floats, origins: Iterable[Floats]) -> _Fit:
    """Lay the tiles of k pictures over the others' at those of the warps, and then at that shift
    of a part of a tile, at which the pictures fit best as a whole."""
    warps = np.stack([*origins])
    # which of the warps explains the most, over the whole picture
    fits = [_fit(*next(_moved(tiles, lies, (0.0,))), others) for lies in warps]
    best = np.argmin([fit.score for fit in fits], axis=0)
    chosen = np.take_along_axis(warps, best[None, :, None], axis=0)[0]
    fit = None
    # then the best shift by a part of a tile, an exhaustive search: this is finer than registration
    # saw
    for moved, within in _moved(tiles, chosen, _SHIFTS):
        fit = _fit(moved, within, others).better(fit)
    assert fit is not None
    return fit


def _moved(tiles: Floats, lies: Floats, shifts: Sequence[float]) -> Iterator[tuple[Floats, Bools]]:
    """Tiles [k, tiles, tiles, 8] as the other would show them, and which lie in the picture; at
    each of the shifts along both axes."""
    count = tiles.shape[1]
    # a picture shown larger has slopes as much less steep
    angle = np.arange(WAYS) * np.pi / WAYS
    steeper = (lies[:, :1] * np.sin(angle)) ** 2 + (lies[:, 2:3] * np.cos(angle)) ** 2
    scaled = (tiles * (steeper**0.25)[:, None, None]).astype(np.float32)
    # separable: columns are sampled once per shift, rows once per shift
    across = [_sampled(lies[:, 2], lies[:, 3], shift, count) for shift in shifts]
    for shift in shifts:
        down, rows = _sampled(lies[:, 0], lies[:, 1], shift, count)
        lower = np.matmul(down, scaled.reshape(len(tiles), count, -1)).reshape(tiles.shape)
        for weights, columns in across:
            yield np.matmul(weights[:, None], lower), rows[:, :, None] & columns[:, None]


def _sampled(scale: Floats, shift: Floats, more: float, count: int) -> tuple[Floats, Bools]:
    """Bilinear sampling [k, count, count] of an axis, and which of its tiles [k, count] lie inside,
    the outermost too, which alone hold the picture's rim; a scaled picture's do not: they hold what
    is beyond its edge."""
    # an axis in tiles; a shift of registration is in cells of 32
    middle = (count - 1) / 2
    at = middle + scale[:, None] * (np.arange(count) - middle)
    at += (shift * count / SIDE)[:, None] + more
    within = (at >= -_ABOUT) & (at <= count - 1 + _ABOUT)
    # the first and last tile mix in what lies beyond the edge once the picture is scaled
    within[abs(scale - 1) > 0.03, :: count - 1] = False
    # triangle weights: linear interpolation between two neighbouring tiles
    weights = np.maximum(0, 1 - abs(at.clip(0, count - 1)[..., None] - np.arange(count)))
    return weights.astype(np.float32), within


def _covered(ours: Shown, theirs: Shown, warp: Floats, count: int) -> Bools:
    """bool[count, count]: the tiles of an overlay that one of two moving films has."""
    none = np.zeros((count, count), np.bool_)
    if not (_moves(ours) and _moves(theirs)):
        # an overlay can be told from content only where the content moves
        return none
    # both ways, as either may carry the overlay; grown twice to take in its soft edge
    laid = warped(ours.pictures, np.repeat(warp, len(ours.micros), axis=0))
    cells = grown(grown(_over(laid, theirs.pictures) | _over(theirs.pictures, laid)))
    # what covers much of the picture is no overlay but another scene
    if cells.mean() > _MOST_COVERED:
        return none
    # a tile is covered if one of its cells is: cells lie 32, tiles `count` to a side
    middles = (np.arange(SIDE) + 0.5) * count / SIDE - 0.5
    touched = abs(middles - np.arange(count)[:, None]) < 1.3
    return np.asarray(touched.astype(np.int64) @ cells @ touched.T.astype(np.int64) > 0)


def _over(pictures: Floats, others: Floats) -> Bools:
    """bool[32, 32]: where the first film stands still and the other moves; or both stand still and
    the first is smooth."""
    # change in time: standard deviation of each cell over the pictures, smoothed
    change, others_change = (
        smoothed(smoothed(each.std(axis=0)[None]))[0] for each in (pictures, others)
    )
    usual, others_usual = np.median(change), np.median(others_change)
    # stiller than the other film there, though the other moves as much as it usually does
    stiller = (change < _STILLER * others_change) & (others_change > _STILLER * others_usual)
    still = (change < _STANDS_STILL * usual) & (others_change < _STANDS_STILL * others_usual)
    # a blurred patch over the other's still structure: contrast within each mean picture
    contrast, against = _contrast(pictures.mean(axis=0)), _contrast(others.mean(axis=0))
    smooth = (contrast < _SMOOTHER * against) & (against > _CONTRAST)
    return np.asarray(stiller | (still & smooth))


def _contrast(picture: Floats) -> Floats:
    """The spread of luma around each cell."""
    # variance as mean of squares less square of the mean, over a 3 x 3 binomial window
    mean, square = smoothed(np.stack([picture, picture**2]))
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))
