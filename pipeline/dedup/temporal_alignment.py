"""Temporal alignment: whether two videos show the same pictures in the same order, at whatever rate
and speed.

Of one video every picture is laid over the other's by one warp (pipeline.dedup.registration): what
a crop, a border or a mirror does to one frame it does to all. Then a straight line is sought
between the two clocks, time in the other = speed * time + offset: a Hough transform, as video copy
detection uses it (Douze, Jegou and Schmid, 2010), in which the likest pictures vote for a speed and
an offset, then a least-squares fit through the likest pictures near the line. Along it enough
pictures must be the same, with enough different ones among them, and nothing may contradict: where
one video stands still the other may not show something else, and no picture may match out of order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.dedup.fingerprints import Floats
from pipeline.dedup.registration import (
    FITS,
    HERE,
    Bools,
    Likeness,
    inside,
    inverse,
    likeness,
    plausible,
    registered,
    warped,
)
from pipeline.dedup.static_overlays import grown

_FASTER = (1, 25 / 24, 11 / 10, 6 / 5, 5 / 4, 4 / 3, 7 / 5, 3 / 2, 5 / 3, 7 / 4, 15 / 8, 2)
SPEEDS = sorted({*_FASTER, *(1 / speed for speed in _FASTER)})
FRAMES = ((45.0, 8.0, 0.9), (64.0, 10.0, 0.97))  # Likeness.same of frames a little apart
SAME = 0.985  # correlation of two pictures that nobody tells apart
STILL = (36.0, 8.0, SAME)  # Likeness.same of a video's neighbours while nothing happens
OTHER = 0.8  # correlation below which something else is shown, not the same thing a little later
MOVED = 0.95  # correlation below which a picture is another piece of evidence
MIN_DISTINCT = 3  # different pictures in a row; a still picture is no evidence of a shared origin
CHANGES = 0.35  # correlation of what changes; copies: at least 0.5
LEAST_SHARE = 0.6  # of the pictures along the line
PATCH = 24.0  # luma; cells that differ more may be a logo's
PATCH_SHARE = 0.16  # of the cells; a larger one is no logo
FAIR = 8.0  # mean luma difference, at most PATCH a cell; copies: at most 5.7
LIKELY = 12.0  # the same after one step of registration; what ends below FAIR: at most 9.6
PATCH_TIMES = 0.25  # share of the pictures in which a logo shows
PEAK = 0.75  # correlation of a picture that is the likest along the line
ABOVE = 0.2  # by how much it exceeds all others'
MAX_STILL_GAP = 1_100_000  # µs; between pictures further apart, a still clip may have moved
SAME_TIME = 60_000  # µs; encoders shift by a frame of 25 fps
TIE = 0.01  # of correlations; while a video stands still, noise says which picture is the likest
LINES_TRIED = 2
OFFSETS_TRIED = 3  # per speed; a clip that repeats fits as well a repetition later

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Film:
    """Pictures [n, 32, 32], smoothed, their times [n] and the step between them in µs."""

    micros: Ints
    pictures: Floats
    step: float


def film(micros: Ints, pictures: Floats) -> Film:
    """A film from the times [n] and the smoothed pictures [n, 32, 32] of a clip."""
    # the median step is the frame distance, whatever a dropped frame or a cut does
    step = float(np.median(np.diff(micros))) if len(micros) > 1 else 1e6
    return Film(micros, pictures, step)


@dataclass(frozen=True, slots=True)
class Laid:
    """Two videos, the first laid over the second; `counted` [1, 32, 32] are the cells to compare,
    `correlations` [n, m] those of their pictures."""

    film: Film
    other: Film
    counted: Floats
    correlations: Floats


@dataclass(frozen=True, slots=True)
class Line:
    """A time of the other video is speed * time + offset."""

    speed: float
    offset: float


ONE_CLOCK = Line(1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Fit:
    """Where one video lies in another: a warp [1, 4], and the cells [32, 32] of a logo on one."""

    warp: Floats
    patch: Bools


def fits(pictures: Floats, others: Floats, start: Floats, pair: Ints) -> Iterator[tuple[int, Fit]]:
    """Which videos fit over each other, by pictures of them that look alike.

    `pictures` and `others` [k, 32, 32] are smoothed, sought from `start` [k, 4]; `pair` [k],
    ascending, is the number of the two videos that each belongs to.
    """
    # most are strangers: seen after one step of registration, before the other seven
    as_asked = _fair(abs(warped(pictures, start) - others))
    after_one = _fair(abs(warped(pictures, registered(pictures, others, start, 1)) - others))
    some = np.isin(pair, pair[np.minimum(as_asked, after_one) <= LIKELY])
    pictures = pictures[some]
    others = others[some]
    start = start[some]
    pair = pair[some]
    # all steps for the rest
    warps = registered(pictures, others, start)
    near = plausible(warps, start)
    astray = ~near & (as_asked[some] <= FAIR)  # pulled away by a logo; it was right at the start
    warps = np.where(astray[:, None], start, warps)
    near |= astray
    # of each pair of videos the warp that fits best serves all of their pictures
    off = abs(warped(pictures, warps) - others)
    fair = np.where(near, _fair(off), np.inf)
    for number in np.unique(pair).tolist():
        seeds = slice(*np.searchsorted(pair, [number, number + 1]))
        best = seeds.start + int(fair[seeds].argmin())
        if fair[best] <= FAIR:
            # cells that differ in most of the seeds are a logo's, if they are few
            patch = (off[seeds][near[seeds]] > PATCH).mean(axis=0) > 0.5
            if patch.mean() <= PATCH_SHARE:
                yield number, Fit(warps[best : best + 1], np.asarray(patch, np.bool_))


def _fair(off: Floats) -> Floats:
    """The mean difference of cells, a logo's cells hardly counted."""
    return np.asarray(np.minimum(off, PATCH).mean(axis=(1, 2)))


def laid_over(film: Film, other: Film, fit: Fit) -> Laid:
    """Lay the first over the second, on the coarser of their two grids."""
    warp = fit.warp
    counted = (~grown(fit.patch))[None].astype(np.float32)
    # the one that is shown larger is warped: sampling less than it holds loses nothing
    if warp[0, 0] * warp[0, 2] < 1:
        back = inverse(warp)
        counted = np.round(warped(counted, back)) * inside(back, margin=1.0)
        other = replace(other, pictures=warped(other.pictures, back))
    else:
        film = replace(film, pictures=warped(film.pictures, warp))
        counted = counted * inside(warp)
    return Laid(film, other, counted, _correlations(film.pictures, other.pictures, counted))


def _correlations(pictures: Floats, others: Floats, counted: Floats) -> Floats:
    """float32[n, m]: normalised cross-correlation of each picture with each of the others."""
    sides = []
    for cells in (pictures, others):
        # only the cells to compare, each picture centred and of unit norm: correlation is then one
        # product
        flat = (cells * counted).reshape(len(cells), -1)[:, counted.ravel() > 0]
        flat = flat - flat.mean(axis=1, keepdims=True)
        sides.append(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-3))
    return np.asarray(sides[0] @ sides[1].T, np.float32)


def relation(laid: Laid) -> tuple[str, Line]:
    """ "near", "contained" or "": what the two videos are to each other, and on which line."""
    tried = ((_judged(laid, line), line) for line in _lines(laid))
    return next((verdict for verdict in tried if verdict[0]), ("", ONE_CLOCK))


def _lines(laid: Laid) -> list[Line]:
    """The lines on which the likest pictures lie, best first: the peaks of a Hough transform."""
    ours = laid.film.micros
    theirs = laid.other.micros
    # each picture has one vote, shared by those of the other video that are about the likest
    best = laid.correlations.max(axis=1, keepdims=True)
    rows, columns = np.nonzero((laid.correlations >= best - 0.03) & (laid.correlations >= 0.6))
    if not len(rows):
        return []
    weight = 1 / np.bincount(rows, minlength=len(ours))[rows]
    # at each speed a vote falls into one bin of offsets, half a step between pictures wide
    speeds = np.array(SPEEDS)[:, None]
    offsets = theirs[columns] - speeds * ours[rows]
    bins = np.round(offsets / (max(laid.film.step, laid.other.step) / 2)).astype(np.int64)
    lowest = bins.min()
    span = int(np.ptp(bins)) + 1
    # bins counted: (speed, bin of the offset) as one number
    names = np.arange(len(SPEEDS))[:, None] * span + bins - lowest
    names, group, count = np.unique(names.ravel(), return_inverse=True, return_counts=True)
    votes = np.bincount(group, weights=np.tile(weight, len(SPEEDS)))
    speed = names // span
    offset_bin = names % span + lowest
    # per speed the bins with the most votes, of equal ones that which shifts the clocks least
    order = np.lexsort((abs(offset_bin), -votes, speed))
    first = np.searchsorted(speed[order], speed[order])
    chosen = order[np.arange(len(order)) - first < OFFSETS_TRIED]
    # the offset of a bin is the median of the offsets that fell into it
    of_group = offsets.ravel()[np.lexsort((offsets.ravel(), group))]
    middle = (np.cumsum(count) - count)[chosen] + np.stack([count - 1, count])[:, chosen] // 2
    medians = of_group[middle].mean(axis=0)
    tried = [
        Line(SPEEDS[at], offset)
        for at, offset in zip(speed[chosen].tolist(), medians.tolist(), strict=True)
    ]
    # scored by all pictures along the line, not by the likest alone
    # mean correlation along the line times overlap, so that two pictures that agree do not win
    scores = zip(_scores(laid, tried).tolist(), tried, strict=True)
    # stable: of lines that fit as well, the one with the most votes stays ahead
    scored = sorted(
        scores, key=lambda entry: (-round(entry[0], 2), round(abs(np.log(entry[1].speed)), 9))
    )
    best = [line for _, line in scored[:LINES_TRIED]]
    plain = [line for _, line in scored if line.speed == 1.0][:1]
    return [better for line in [*plain, *best] for better in _fitted(laid, line)]


def _scores(laid: Laid, lines: list[Line]) -> Floats:
    """Of each line the mean correlation along it, of the pictures that lie within both videos,
    times the share of the shorter one that does."""
    speed, offset = np.array([(line.speed, line.offset) for line in lines]).T[..., None]
    at = laid.film.micros * speed + offset
    theirs = laid.other.micros
    # the share of each video that lies within the other, a step of slack at both ends
    slack = np.maximum(laid.film.step * speed, laid.other.step)
    within = (at >= theirs[0] - slack) & (at <= theirs[-1] + slack)
    back = (theirs >= at[:, :1] - slack) & (theirs <= at[:, -1:] + slack)
    # each picture with the likelier of the two that stand around its time
    after = np.searchsorted(theirs, at).clip(min(1, len(theirs) - 1), len(theirs) - 1)
    rows = np.arange(at.shape[1])
    correlations = np.maximum(
        laid.correlations[rows, after], laid.correlations[rows, (after - 1).clip(0)]
    )
    mean = (correlations * within).sum(axis=1) / np.maximum(within.sum(axis=1), 1)
    return np.asarray(mean * np.maximum(within.mean(axis=1), back.mean(axis=1)))


def _fitted(laid: Laid, line: Line) -> list[Line]:
    """The line moved through the likest pictures near it, and the one that fits them best."""
    at = laid.film.micros * line.speed + line.offset
    reach = 1.5 * max(laid.film.step * line.speed, laid.other.step)
    # of each picture the time at which the other shows it, in the middle of equally like ones
    near = abs(at[:, None] - laid.other.micros) <= reach
    correlations = np.where(near, laid.correlations, -1)
    best = correlations.max(axis=1)
    good = best >= 0.9
    if good.sum() < 3:
        return [line]
    # mean time over ties: while a film stands still, several pictures are equally like
    likest = correlations >= best[:, None] - TIE
    middle = (likest * laid.other.micros).sum(axis=1) / likest.sum(axis=1)
    # least squares: with the speed as it is, and, where the speed is a guess, with a free one
    ours = laid.film.micros[good]
    theirs = middle[good]
    moved = Line(line.speed, float(np.mean(theirs - line.speed * ours)))
    speed, offset = np.polyfit(ours, theirs, 1)
    # a speed of 1 is exact by construction; others round a rate conversion such as 23.976 to 25
    free = [Line(float(speed), float(offset))] if line.speed != 1 and 0.45 <= speed <= 2.2 else []
    return [moved, *free]


def _judged(laid: Laid, line: Line) -> str:
    """What the two videos are to each other if their clocks lie on this line."""
    ours = laid.film.micros * line.speed + line.offset
    theirs = laid.other.micros.astype(float)
    # one must lie within the other: parts that merely overlap are not looked for
    slack = 1.01 * max(laid.film.step * line.speed, laid.other.step)
    inner = ours[0] >= theirs[0] - slack and ours[-1] <= theirs[-1] + slack
    outer = theirs[0] >= ours[0] - slack and theirs[-1] <= ours[-1] + slack
    # pairs to compare: of each picture the two of the other film around its time
    here = _brackets(ours, theirs)
    there = _brackets(theirs, ours).T
    pairs = np.argwhere(here | there)
    if not (inner or outer) or not len(pairs):
        return ""
    # the pictures around each time, compared; textures by their being likest there
    grid, likest = _compared(laid, pairs)
    grid |= _peaks(laid.correlations, np.where(here, likest, -1))
    grid |= _peaks(laid.correlations.T, np.where(there, likest, -1).T).T
    first_side = _Side(laid.correlations, grid, likest, here, laid.other, laid.counted)
    second_side = _Side(laid.correlations.T, grid.T, likest.T, there.T, laid.film, laid.counted)
    if first_side.contradicts(second_side) or second_side.contradicts(first_side):
        return ""
    # evidence from the side with fewer pictures: the other is sampled more finely
    matched = min((first_side.matched, second_side.matched), key=len)
    if len(matched) and matched.mean() < LEAST_SHARE:
        return ""
    whole = bool(inner and outer)
    if _changes_alike(laid, grid, likest):
        return "near" if whole else "contained"
    return "near" if whole and _beyond_doubt(laid, pairs) else ""


class _Side:
    """One video's pictures and where they are looked for in the other: bool[n, m] `searched`."""

    def __init__(
        self,
        correlations: Floats,
        grid: Bools,
        likest: Floats,
        searched: Bools,
        other: Film,
        counted: Floats,
    ) -> None:
        self.correlations = correlations
        self.searched = searched
        self.other = other
        self.counted = counted
        self.same = grid & searched
        self.likest = np.where(searched, likest, -1).max(axis=1)
        self.looked_for: Bools = np.asarray(searched.any(axis=1))
        self.matched: Bools = np.asarray(self.same.any(axis=1))[self.looked_for]

    def contradicts(self, across: _Side) -> bool:
        """Whether a picture is missing where the other video stands still, or is out of order."""
        # pictures looked for in the other film and not found there
        missing = np.flatnonzero(self.looked_for & ~self.same.any(axis=1)).tolist()
        return any(self._out_of_order(row, across) or self._stands_still(row) for row in missing)

    def _out_of_order(self, row: int, across: _Side) -> bool:
        """Whether it shows what only another place of the other video shows."""
        elsewhere = np.flatnonzero(self.correlations[row] >= SAME)
        taken = across.same[elsewhere].copy()  # by another picture, as in a video that repeats
        taken[:, row] = False
        return bool(self.likest[row] < OTHER and (~taken.any(axis=1)).any())

    def _stands_still(self, row: int) -> bool:
        # the other film's pictures around its time: if these are equal, nothing moved in between
        first, last = np.flatnonzero(self.searched[row])[[0, -1]]
        if first == last or self.other.micros[last] - self.other.micros[first] > MAX_STILL_GAP:
            return False
        before, after = (self.other.pictures[at : at + 1] for at in (first, last))
        return bool(likeness(before, after, self.counted).same(*STILL)[0])


def _changes_alike(laid: Laid, grid: Bools, likest: Floats) -> bool:
    """Whether the pictures that are the same differ enough in time, and what changes is the same.

    Two dark clips under one bright logo correlate; what moves below it does not.
    """
    rows = np.flatnonzero(grid.any(axis=1))
    columns = np.where(grid, likest, -2).argmax(axis=1)[rows]
    # covariance of what is left of both when their means over time are taken off
    free = laid.counted[0] > 0
    ours, theirs = laid.film.pictures[rows][:, free], laid.other.pictures[columns][:, free]
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    spread = float((ours**2).sum() * (theirs**2).sum())
    if (ours * theirs).sum() < CHANGES * np.sqrt(spread):
        return False
    evidence = (
        # greedy count of distinct pictures: a still shot is one piece of evidence, however long
        _distinct(laid.film, rows, laid.counted),
        _distinct(laid.other, columns, laid.counted),
    )
    return min(evidence) >= MIN_DISTINCT


def _beyond_doubt(laid: Laid, pairs: Ints) -> bool:
    """Whether every picture has one along the line that is the same as two images are."""
    ours, theirs = laid.film.pictures[pairs[:, 0]], laid.other.pictures[pairs[:, 1]]
    # over all cells, an overlay's too, and at the thresholds of images
    every = np.ones((1, *ours.shape[1:]), np.float32)
    fits = pairs[likeness(ours, theirs, every).same(*FITS)]
    return all(set(fits[:, side]) == set(pairs[:, side]) for side in (0, 1))


def _brackets(times: Floats, others: Floats) -> Bools:
    """bool[n, m]: of each time among the others' the last one before it and the first after."""
    brackets = np.zeros((len(times), len(others)), np.bool_)
    # nearest before and after, by binary search; beyond the ends there is nothing to compare with
    within = np.flatnonzero((times >= others[0] - SAME_TIME) & (times <= others[-1] + SAME_TIME))
    after = np.searchsorted(others, times[within] + SAME_TIME, side="right")
    brackets[within, (after - 1).clip(0)] = True
    brackets[within, after.clip(max=len(others) - 1)] = True
    return brackets


def _compared(laid: Laid, pairs: Ints) -> tuple[Bools, Floats]:
    """bool[n, m]: which of these pairs are the same, after registration where they are not at once;
    float32[n, m]: how like they are, -1 elsewhere."""
    ours, theirs = laid.film.pictures[pairs[:, 0]], laid.other.pictures[pairs[:, 1]]
    # at once, without the cells that differ time and again
    counted = laid.counted * _without_patch(abs(ours - theirs) * laid.counted)
    at_once = likeness(ours, theirs, counted)
    same = _same(at_once)
    like = at_once.correlation.copy()
    # the rest after registration: a pan moves between two pictures of other moments
    rest = np.flatnonzero(~same & (like >= 0.4))
    if len(rest):
        warps = registered(ours[rest], theirs[rest], np.repeat(HERE, len(rest), axis=0), steps=5)
        again: Likeness = likeness(warped(ours[rest], warps), theirs[rest], counted)
        fits = plausible(warps, np.repeat(HERE, len(rest), axis=0))
        same[rest] = _same(again) & fits
        like[rest] = np.where(fits, np.maximum(like[rest], again.correlation), like[rest])
    grid = np.zeros(laid.correlations.shape, np.bool_)
    likest = np.full(laid.correlations.shape, -1, np.float32)
    grid[pairs[:, 0], pairs[:, 1]] = same
    likest[pairs[:, 0], pairs[:, 1]] = like
    return grid, likest


def _same(measured: Likeness) -> Bools:
    return measured.same(*FRAMES[0]) | measured.same(*FRAMES[1])


def _without_patch(difference: Floats) -> Floats:
    """float32[1, 32, 32]: 0 for the cells that differ time and again, if they are few: a logo."""
    # an overlay differs in many of the pictures, a moving object in few
    patch = (difference > PATCH).mean(axis=0) > PATCH_TIMES
    few = patch.mean() <= PATCH_SHARE
    return (~grown(patch) if few else np.ones_like(patch))[None].astype(np.float32)


def _peaks(correlations: Floats, likest: Floats) -> Bools:
    """Pairs along the line that are far more like than anything off the line: the same picture of
    a texture or of a motion too fine for these cells."""
    here = likest > -1
    # the line and its neighbours, and everything away from it
    near = here | np.roll(here, 1, axis=1) | np.roll(here, -1, axis=1)
    away = np.where(near, -1, correlations).max(axis=1, keepdims=True)
    return np.asarray(here & (likest >= PEAK) & (likest >= away + ABOVE))


def _distinct(film: Film, numbers: Ints, counted: Floats) -> int:
    """How many pictures, in order, differ from the one counted before."""
    numbers = np.unique(numbers)
    if not len(numbers):
        return 0
    count = 1
    last = film.pictures[numbers[:1]]
    for row in numbers[1:].tolist():
        now = film.pictures[row : row + 1]
        if likeness(last, now, counted).correlation[0] < MOVED:
            count = count + 1
            last = now
    return count
