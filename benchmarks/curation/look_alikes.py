"""Pictures and films that only look alike: six kinds by seed, 432 pairs a set, none a copy.

    documents        one template, another number or name (pictures)
    charts           one frame and legend, other values (pictures)
    slides           one deck, another figure on a slide (films)
    fixed cameras    one view; another small thing moves, or another counter stands (films)
    game screens     one game and one run; another score and other lives (films)
    sprites          one ground; another figure on it, or another way of it (films and pictures)

A group has four members, every two of which are a pair. In the second half of the groups what
differs is written a third smaller: digits down to 6 pixels. No pair differs by an overlay alone
that only one of them has. Whether two members differ is looked up in what the media door stores of
them: a member that differs from one before in fewer than VISIBLE squares, each a hundredth of the
picture high, is drawn anew, at most ATTEMPTS times.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.curation.copies import H264, QUIET, piped
from pipeline.media import decode
from pipeline.media.decoded import Decoded
from shards.profile import Profile

GROUPS, MEMBERS = 12, 4  # of each kind
SIZES = ((192, 144), (320, 240), (512, 384), (768, 512), (1024, 768), (1536, 1152))
FILM_SIZES = ((192, 144), (256, 192), (320, 240), (480, 360), (640, 360), (1536, 864))
RATE, SECONDS = 8, 5
LEAST_TEXT = 8  # px; its digits are 6 pixels high
ATTEMPTS = 20
STEP, VISIBLE = 48, 4  # luma, and squares of a hundredth of the height that differ by as much
WORDS = "amount order street river paper total count north market letter summer engine".split()
INK = [(200, 30, 30), (30, 140, 30), (40, 60, 200), (230, 200, 40), (240, 240, 240), (20, 20, 20)]
Draw = np.random.Generator
Size = tuple[int, int]
Luma = NDArray[np.uint8]


def made(folder: Path, which: int) -> list[Path]:
    """The files of a set, `kind-group-member`, and `visible.json`; they are written once."""
    folder.mkdir(parents=True, exist_ok=True)
    least = folder / "visible.json"
    if not least.exists():
        with ProcessPoolExecutor() as workers:
            groups = [(folder, kind, which, group) for kind in KINDS for group in range(GROUPS)]
            found = min(workers.map(_write_group, *zip(*groups, strict=True)))
        least.write_text(json.dumps(dict(zip(("squares", "of", "between"), found, strict=True))))
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".mp4"))


def least_visible(folder: Path) -> str:
    """The smallest difference of a pair of a set that was made."""
    found = json.loads((folder / "visible.json").read_text())
    width, height = found["of"]
    return f"{found['squares']} squares of {width} x {height} ({' and '.join(found['between'])})"


def _write_group(
    folder: Path, kind: str, which: int, group: int
) -> tuple[int, tuple[int, int], list[str]]:
    """Write the members of a group; the least of their differences, in squares, of how many, and
    between which two."""
    shown: dict[str, Luma] = {}
    differences = []
    for member in range(MEMBERS):
        name = f"{kind}-{group:02d}-{member}"
        drawn = partial(_drawn, folder / name, kind, which, group, member)
        pictures = most_visible(drawn, list(shown.values()))
        differences += [(differing(pictures, each), [other, name]) for other, each in shown.items()]
        shown[name] = pictures
    squares, between = min(differences)
    return squares, pictures.shape[:0:-1], between


def _drawn(path: Path, kind: str, which: int, group: int, member: int, attempt: int) -> Luma:
    """Write a member; what is stored of it."""
    draws = _seeded(which, group), _seeded(which, group, 1 + member, attempt)
    return _stored(_write(path, KINDS[kind](*draws, group)))


def most_visible(drawn: Callable[[int], Luma], others: Sequence[Luma]) -> Luma:
    """What an attempt draws: the first that differs visibly from all others. Letters of ten pixels
    on a large picture never do: then, of ATTEMPTS, the one that differs most."""
    least = []
    for attempt in range(ATTEMPTS):
        pictures = drawn(attempt)
        least.append(min((differing(pictures, other) for other in others), default=VISIBLE))
        if least[-1] >= VISIBLE:
            return pictures
    return drawn(least.index(max(least)))


def _write(path: Path, drawn: Iterator[Image.Image]) -> Path:
    frames = list(drawn)
    if len(frames) == 1:
        frames[0].save(path.with_suffix(".png"))
        return path.with_suffix(".png")
    width, height = frames[0].size
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {RATE} -i -".split()
    command = [*QUIET, *raw, *H264, "-crf", "20", str(path.with_suffix(".mp4"))]
    piped(command, (np.asarray(frame) for frame in frames))
    return path.with_suffix(".mp4")


def _stored(path: Path) -> Luma:
    """What the media door stores of a file, as the mean luma of squares of a hundredth of its
    height [n, rows, columns]; of at least two pixels."""
    kind = "image" if path.suffix == ".png" else "video"
    found = decode.decode(path, kind, Profile())
    assert isinstance(found, Decoded), (path, found)
    square = max(2, found.height / 100)
    size = round(found.width / square), round(found.height / square)
    planes = (simplejpeg.decode_jpeg(frame, "GRAY")[..., 0] for frame in found.frames)
    small = (Image.fromarray(plane).resize(size, Image.Resampling.BOX) for plane in planes)
    return np.stack([np.asarray(each) for each in small])


def differing(pictures: Luma, others: Luma) -> int:
    """How many squares differ by STEP and more, in the pair of pictures where most do."""
    off = abs(pictures.astype(np.int16) - others) >= STEP
    return int(off.sum(axis=(1, 2)).max())


def _seeded(*key: int) -> Draw:
    return np.random.default_rng([2026, 13, *key])


def number(draw: Draw) -> str:
    return f"{draw.integers(100, 1000)}.{draw.integers(100):02d}"


def finer(group: int) -> float:
    """How large what differs is written: the second half of the groups has smaller letters."""
    return 1.0 if group % GROUPS < GROUPS // 2 else 0.65


def words(draw: Draw, count: int) -> str:
    return " ".join(WORDS[at] for at in draw.integers(0, len(WORDS), count))


def text(
    canvas: ImageDraw.ImageDraw, at: tuple[float, float], said: str, px: float, **kw: Any
) -> None:
    canvas.text(at, said, font_size=max(LEAST_TEXT, px), **{"fill": "black", **kw})


def documents(same: Draw, own: Draw, group: int) -> Iterator[Image.Image]:
    """A form: a heading, ruled lines with words, and one to three fields of its own."""
    width, height = SIZES[group % len(SIZES)]
    image = Image.new("RGB", (width, height), tuple(same.integers(225, 256, 3).tolist()))
    canvas = ImageDraw.Draw(image)
    small = height / same.choice([22, 28, 34]) * finer(group)
    text(canvas, (width * 0.06, height * 0.05), words(same, 2).upper(), height / 14)
    rows = np.linspace(height * 0.2, height * 0.9, 9)
    field = set(same.choice(8, 1 + group % 3, replace=False).tolist())
    for row, y in enumerate(rows):
        canvas.line((width * 0.05, y, width * 0.95, y), fill="black", width=max(1, height // 300))
        if row < 8:
            text(canvas, (width * 0.07, y + small / 2), words(same, 2), small)
        if row in field:
            text(canvas, (width * 0.65, y + small / 2), number(own), small)
        elif row < 8:
            text(canvas, (width * 0.65, y + small / 2), number(same), small)
    yield image


def charts(same: Draw, own: Draw, group: int) -> Iterator[Image.Image]:
    """Bars, or two lines, over ten places; a few values are its own."""
    width, height = SIZES[group % len(SIZES)]
    image = Image.new("RGB", (width, height), "white")
    canvas, values = ImageDraw.Draw(image), same.uniform(0.2, 0.9, (2, 10))
    places = same.choice(10, 1 + group % 3, replace=False)
    values[0, places] = (values[0, places] + own.uniform(0.1, 0.65)) % 0.75 + 0.15
    left, floor, step = width * 0.1, height * 0.9, width * 0.085
    for tick in np.linspace(0, 1, 6):
        y = floor - tick * height * 0.75
        canvas.line((left, y, width * 0.97, y), fill=(200, 200, 200))
        text(canvas, (width * 0.03, y - height / 50), f"{tick:.1f}", height / 30)
    text(canvas, (width * 0.3, height * 0.03), words(same, 3), height / 20)
    for series, ink in zip(values, ((40, 90, 180), (200, 80, 40)), strict=True):
        tops = [(left + step * (i + 0.5), floor - v * height * 0.75) for i, v in enumerate(series)]
        if group % 2:
            canvas.line(tops, fill=ink, width=max(2, height // 120))
        else:
            for x, y in tops:
                wide, shift = step * 0.3, step * 0.3 if ink[0] > 100 else 0
                canvas.rectangle((x - wide + shift, y, x + shift, floor), fill=ink)
    yield image


def slides(same: Draw, own: Draw, group: int) -> Iterator[Image.Image]:
    """Three slides of words, shown a third of the time each; one line of each is its own."""
    width, height = FILM_SIZES[group % len(FILM_SIZES)]
    pages = []
    for _ in range(3):
        image = Image.new("RGB", (width, height), tuple(same.integers(200, 256, 3).tolist()))
        canvas = ImageDraw.Draw(image)
        canvas.rectangle(
            (0, 0, width, height * 0.16), fill=tuple(same.integers(0, 160, 3).tolist())
        )
        text(canvas, (width * 0.05, height * 0.03), words(same, 2), height / 11, fill="white")
        for row in range(5):
            said = f"- {words(same, 2)} {number(own if row == group % 5 else same)}"
            at = (width * 0.07, height * (0.22 + 0.14 * row))
            text(canvas, at, said, height / 16 * finer(group))
        pages.append(image)
    for frame in range(RATE * SECONDS):
        yield pages[frame * 3 // (RATE * SECONDS)]


def ground(draw: Draw, size: Size, cells: Size = (8, 6)) -> Image.Image:
    noise = draw.integers(0, 256, (cells[1], cells[0], 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def way(draw: Draw, size: Size, frames: int) -> NDArray[np.float64]:
    """[frames, 2]: a straight way through the picture, from edge to edge."""
    ends = draw.uniform(0.08, 0.85, (2, 2)) * size
    across = int(draw.integers(2))
    ends[:, across] = np.array([0.05, 0.88])[:: int(draw.choice([1, -1]))] * size[across]
    return np.linspace(ends[0], ends[1], frames)


def fixed_cameras(same: Draw, own: Draw, group: int) -> Iterator[Image.Image]:
    """A view that stands still: a ball goes its own way, or all the same and a counter differs."""
    width, height = size = FILM_SIZES[group % len(FILM_SIZES)]
    view, frames = ground(same, size, (16, 12)), RATE * SECONDS
    shared, alone = way(same, size, frames), way(own, size, frames)
    ink, label = INK[int(own.integers(5))], str(own.integers(100, 1000))
    for frame in range(frames):
        image = view.copy()
        canvas = ImageDraw.Draw(image)
        if group % 2:
            x, y = alone[frame]
            canvas.ellipse((x, y, x + width / 18, y + width / 18), fill=ink)
        else:
            x, y = shared[frame]
            canvas.ellipse((x, y, x + width / 7, y + width / 7), fill=INK[group % 6])
            canvas.rectangle((width * 0.76, height * 0.02, width, height * 0.14), fill="black")
            at = (width * 0.79, height * 0.03)
            text(canvas, at, label, height / 11 * finer(group), fill="white")
        yield image


def game_screens(same: Draw, own: Draw, group: int) -> Iterator[Image.Image]:
    """A run through a world of blocks, the same for all; score and lives are its own."""
    width, height = FILM_SIZES[group % len(FILM_SIZES)]
    block = width // 16
    world = same.random((10, 48)) < 0.25
    inks = same.integers(0, 256, (3, 3))
    moves = 0 if group % 3 == 0 else same.uniform(0.1, 0.5) * block
    score, lives = str(own.integers(1000, 10_000)), int(own.integers(4))
    hero = way(same, (width, height), RATE * SECONDS)
    for frame in range(RATE * SECONDS):
        image = Image.new("RGB", (width, height), tuple(inks[0].tolist()))
        canvas = ImageDraw.Draw(image)
        for row, column in np.argwhere(world).tolist():
            x, y = column * block - moves * frame, height * 0.12 + row * block
            canvas.rectangle((x, y, x + block - 1, y + block - 1), fill=tuple(inks[1].tolist()))
        x, y = hero[frame]
        canvas.rectangle((x, y, x + block, y + block), fill=tuple(inks[2].tolist()))
        canvas.rectangle((0, 0, width, height * 0.12), fill="black")
        at = (width * 0.04, height * 0.01)
        text(canvas, at, f"SCORE {score}", height / 13 * finer(group), fill="white")
        for life in range(lives):
            end = width * (0.95 - 0.07 * life)
            canvas.ellipse((end - height / 14, height * 0.02, end, height * 0.1), fill=INK[0])
        yield image


def sprite(draw: Draw, size: int) -> Image.Image:
    half = draw.random((8, 4)) < 0.55
    cells = np.concatenate([half, half[:, ::-1]], axis=1)
    alpha = Image.fromarray((cells * 255).astype(np.uint8)).resize(
        (size, size), Image.Resampling.NEAREST
    )
    shown = Image.new("RGBA", (size, size), INK[int(draw.integers(5))])
    shown.putalpha(alpha)
    return shown


def sprites(same: Draw, own: Draw, group: int) -> Iterator[Image.Image]:
    """Figures of 8 x 8 blocks on a tiled ground; one of them is its own, or goes its own way."""
    size = width, height = (SIZES if group % 4 == 3 else FILM_SIZES)[group % 6]
    tile = ground(same, (width // 8, width // 8), (3, 3))
    view = Image.new("RGB", size)
    for x, y in itertools.product(range(0, width, width // 8), range(0, height, width // 8)):
        view.paste(tile, (x, y))
    px, frames = max(12, width // 14), 1 if group % 4 == 3 else RATE * SECONDS
    shared = [(sprite(same, px), way(same, size, RATE * SECONDS)) for _ in range(2 + group % 3)]
    alone = sprite(own if group % 2 else same, px)
    goes = way(same if group % 2 else own, size, RATE * SECONDS)
    for frame in range(frames):
        image = view.copy()
        for figure, places in [*shared, (alone, goes)]:
            x, y = places[frame if frames > 1 else 17].astype(int).tolist()
            image.paste(figure, (x, y), figure)
        yield image


Kind = Callable[[Draw, Draw, int], Iterator[Image.Image]]
KINDS: dict[str, Kind] = {
    "documents": documents,
    "charts": charts,
    "slides": slides,
    "fixed_cameras": fixed_cameras,
    "game_screens": game_screens,
    "sprites": sprites,
}
