"""A local copy of a benchmark: its questions in order, and where their media lie.

What is missing in a copy is a value, counted and shown; it never ends an evaluation.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from pipeline.names import is_junk, matching, number_order
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.benchmarks.item import Benchmark, BenchmarkItem
from pipeline.sources.records import MediaRef, RowRefusal
from pipeline.untrusted import path_problems
from shards.errors import UserError
from shards.ids import sha256_file, short_hash
from train.data.user_media import Stills

_SRT_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d+)\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d+)")
_TAGS = re.compile(r"<[^>]+>")


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a medium of a copy cannot be shown."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One benchmark on this disk."""

    benchmark: Benchmark
    folder: Path

    def items(self) -> Iterator[BenchmarkItem | RowRefusal]:
        """Every question of every annotation file, in the order of the files' names.

        Of several files each name begins with its file's: rows are counted from 0 in every one.
        """
        files = self.benchmark.files(self.folder)
        for path in files:
            before = f"{path.relative_to(self.folder)}:" if len(files) > 1 else ""
            for item in self.benchmark.items(path):
                if isinstance(item, RowRefusal):
                    yield replace(item, record=f"{before}{item.record}")
                else:
                    yield replace(item, id=f"{before}{item.id}")

    def training(self) -> Iterator[BenchmarkItem]:
        """The questions of the training split, where this copy has it."""
        globs = self.benchmark.training if self.folder.is_dir() else ()
        found = next((files for glob in globs if (files := matching(self.folder, glob))), [])
        for path in found:
            items = self.benchmark.items(path)
            yield from (item for item in items if isinstance(item, BenchmarkItem))

    def digest(self) -> str:
        """H of the annotation files: two results of one digest asked the same questions."""
        return short_hash([sha256_file(path) for path in self.benchmark.files(self.folder)])

    def find(self, ref: MediaRef) -> Path | Stills | Missing:
        """The file of a medium, in the first of the benchmark's folders that has it."""
        # an annotation file alone: media lie beside it
        root = self.folder if self.folder.is_dir() else self.folder.parent
        # names may have no ending: all that a reader proposed are tried
        for name in (ref.name, *ref.also):
            if problem := next(path_problems(name), None):
                return Missing(f"{problem.code}: {problem.detail}")
            for folder in self.benchmark.media:
                path = root / folder / name
                if ref.fps and path.is_dir():
                    pictures = [picture for picture in path.iterdir() if not is_junk(picture.name)]
                    # frames of a folder in the order of their numbers
                    pictures.sort(key=lambda picture: number_order(picture.name))
                    return Stills(files=tuple(pictures), fps=ref.fps)
                if path.is_file() and not ref.fps:
                    return path.resolve()
        return Missing(f"MISSING: {ref.name} is in none of {', '.join(self._searched())}")

    def subtitles(self, item: BenchmarkItem) -> list[tuple[float, float, str]]:
        """(start, end, words) of a video's subtitles in seconds; nothing where it has none."""
        root = self.folder if self.folder.is_dir() else self.folder.parent
        name = item.subtitles
        path = root / self.benchmark.subtitles / name
        if not name or next(path_problems(name), None) or not path.is_file():
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
        cues = srt(text) if path.suffix == ".srt" else json_subtitles(text)
        # cues of a cut keep the clock of the whole video
        before = item.subtitles_from
        return [(start - before, end - before, words) for start, end, words in cues]

    def _searched(self) -> list[str]:
        return [folder or "." for folder in self.benchmark.media]


def copies(named: Sequence[str]) -> list[Copy]:
    """`NAME=FOLDER` each; UserError names what is unknown, missing or named twice."""
    named_copies: list[Copy] = []
    for text in named:
        name, mark, folder = text.partition("=")
        if name not in BENCHMARKS:
            raise UserError(f"--benchmark {text}: {name!r} is none of {', '.join(BENCHMARKS)}")
        if not mark or not Path(folder).exists():
            raise UserError(f"--benchmark {text}: no such folder; write {name}=FOLDER of your copy")
        if any(copy.benchmark.name == name for copy in named_copies):
            raise UserError(f"--benchmark {text}: {name} is named twice; score one copy at a time")
        named_copies.append(Copy(benchmark=BENCHMARKS[name], folder=Path(folder)))
        named_copies[-1].benchmark.files(named_copies[-1].folder)
    return named_copies


def srt(text: str) -> list[tuple[float, float, str]]:
    """The cues of an SRT file without their tags; blocks that are no cue are passed over."""
    cues = []
    # blocks are parted by blank lines; numbers and styles of cues are not needed
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        if times := _SRT_TIMES.search(block):
            hours = [int(part) for part in times.groups()]
            start = _seconds(hours[:4], times[4])
            end = _seconds(hours[4:], times[8])
            # entities and tags of players' styling
            words = html.unescape(_TAGS.sub("", block[times.end() :])).split()
            if words:
                cues.append((start, end, " ".join(words)))
    return cues


def _seconds(clock: Sequence[int], fraction: str) -> float:
    hours, minutes, seconds, part = clock
    return hours * 3600 + minutes * 60 + seconds + part / 10.0 ** len(fraction)


def json_subtitles(text: str) -> list[tuple[float, float, str]]:
    """LongVideoBench: `{timestamp: [start, end], text}` or `{start, end, line}` with h:m:s.

    What is no JSON has no cues; a result counts the questions that had some (`with_subtitles`).
    """
    cues = []
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return []
    for row in rows if isinstance(rows, list) else []:
        try:
            if "timestamp" in row:
                # two spellings of one benchmark's subtitles
                begin, ended = row["timestamp"]
                # a cue without an end is on screen until the video's
                start, end = float(begin), inf if ended is None else float(ended)
                words = str(row["text"])
            else:
                start, end = (_clock(row[key]) for key in ("start", "end"))
                words = str(row["line"])
        except (TypeError, ValueError, KeyError):
            continue  # some cues have no beginning, or no words: nothing can be shown of them
        cues.append((start, end, words.strip()))
    return cues


def _clock(text: str) -> float:
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def on_screen(cues: Sequence[tuple[float, float, str]], seconds: Sequence[float]) -> str:
    """The words of the cues that are on screen at one of these times, a line each, once."""
    # half-open: a cue that ends as the next begins is not shown with it
    shown = [words for start, end, words in cues if any(start <= at < end for at in seconds)]
    return "\n".join(dict.fromkeys(shown))
