"""python -m examples.own_files OUT: a folder as people have it, for docs/own_data.md to begin with.

Twelve pictures and six films of moving shapes, a JSON Lines file about the pictures, a CSV about
the films, and held-out pictures; no download, a second of one core.

Example: python -m examples.own_files own
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
from pathlib import Path

from PIL import Image, ImageDraw

from shards.errors import Parser, UserError, run_command

COLOURS = {
    "red": (210, 50, 40),
    "green": (40, 150, 60),
    "blue": (50, 70, 200),
    "yellow": (230, 200, 50),
}
SHAPES = ("circle", "square", "triangle")
GROUNDS = ((240, 240, 235), (205, 215, 225), (60, 60, 70))
SIZE = (160, 120)
WAYS = ("left", "right")
SECONDS, FPS = 3, 8


def picture(colour: str, shape: str, ground: int, at: tuple[int, int], side: int) -> Image.Image:
    """One shape on a ground."""
    image = Image.new("RGB", SIZE, GROUNDS[ground])
    draw = ImageDraw.Draw(image)
    left, top = at
    box = (left, top, left + side, top + side)
    if shape == "circle":
        draw.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle(box, fill=COLOURS[colour])
    else:
        corners = [(left + side // 2, top), (left, top + side), (left + side, top + side)]
        draw.polygon(corners, fill=COLOURS[colour])
    return image


def make_pictures(out: Path) -> None:
    """pictures/*.png, and what is asked about them: pictures.jsonl; two are held out."""
    (out / "pictures").mkdir(parents=True)
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    rows = []
    for number, (colour, shape) in enumerate(pairs):
        place = (10 + 23 * number % 90, 8 + 17 * number % 50)
        name = f"{colour}-{shape}.png"
        picture(colour, shape, number % 3, place, 36 + 5 * number % 24).save(
            out / "pictures" / name
        )
        said = [("Which shape is it?", shape), ("And its colour?", colour)]
        rows.append({"id": f"p{number}", "image": name, "conversations": turns(said)})
    write_lines(out / "pictures.jsonl", rows)
    held_out = [row | {"id": f"test-{row['id']}"} for row in rows[::6]]
    for row in held_out:
        name = f"test-{row['image']}"
        with Image.open(out / "pictures" / str(row["image"])) as shown:
            shown.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(out / "pictures" / name)
        row["image"] = name
    write_lines(out / "pictures_test.jsonl", held_out)


def turns(said: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Questions and answers as LLaVA writes them; the picture stands in the first question."""
    found = []
    for number, (question, answer) in enumerate(said):
        before = "<image>\n" if number == 0 else ""
        found += [
            {"from": "human", "value": before + question},
            {"from": "gpt", "value": answer},
        ]
    return found


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_films(out: Path) -> None:
    """films/*.mp4 of a shape that moves, and films.csv; one row names a film that is not there."""
    (out / "films").mkdir(parents=True)
    with (out / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "question", "answer"])
        for number, colour in enumerate([*COLOURS, "red", "blue"]):
            way = WAYS[number % 2]
            name = f"{number}-{colour}.mp4"
            film(out / "films" / name, colour, SHAPES[number % 3], way)
            table.writerow([name, "Which way does it move?", way])
        table.writerow(["lost.mp4", "Which way does it move?", "left"])


def film(path: Path, colour: str, shape: str, way: str) -> None:
    """Frames of a shape that crosses the picture, encoded by ffmpeg."""
    frames = []
    for number in range(SECONDS * FPS):
        along = 4 + 112 * number // (SECONDS * FPS)
        at = (along if way == "right" else 116 - along, 40)
        frames.append(picture(colour, shape, 0, at, 36).tobytes())
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE[0]}x{SIZE[1]}", "-r", str(FPS)]
    command = ["ffmpeg", "-v", "error", *source, "-i", "-", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=b"".join(frames), check=True)


def main() -> None:
    parser = Parser(
        prog="python -m examples.own_files",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="the folder to make")
    out = parser.parse_args().out
    if out.exists():
        raise UserError(f"{out}: is there already; give another folder")
    make_pictures(out)
    make_films(out)


if __name__ == "__main__":
    run_command(main)
