"""One flipped bit in every kind of file: named, made again, or proven harmless. Never silent.

400 bits by chance and 60 by choice, where a flip leaves a file that parses: digits of counts and
steps, letters of names, headers. After each, only the commands that read the file run, in one
process. A flip is named (an error of one line with the file in it), made again (the file has its
bytes back, and so has every later output), or harmless (every later output has the same bytes). All
else is a fault: other outputs in silence, a traceback, an error that names another file.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.curation.flip_world import Kind, Outputs, World, forget, world
from benchmarks.frame import Bar, at_least, at_most, equal
from shards.errors import UserError

HOME = Path("runs/benchmarks/flips")
RANDOM, SEED, MINUTES = 400, 11, 25
GOOD = ("named", "made again", "harmless")
BAD = ("silent", "traceback", "names another file")

_TABLE = (rb"PAR1$", rb"(.)...PAR1$", rb"(schema)", rb"^PAR1(.)")
CHOSEN: dict[str, Sequence[bytes]] = {
    "pool/receipts": (
        rb'"(leaks)":', rb'"(refused)":\[', rb'"(index/samples)":', rb'"(clusters)":',
        rb'"refused":(\d)', rb'"records":(\d)', rb'"samples":(\d)', rb'"version":"[^"]*(\d)',
        rb'"stage":"(\w)', rb'"revision":"(\w)', rb'"inputs":\["(\w)', rb'\["(\w+)\.parquet',
        rb'"(tools)":', rb'"sha256":"(\w)', rb'"schema":"[^"]*(\d)"',
    ),
    "profile.json": (
        rb'"fps":(\d)', rb'"frame_cap":(\d)', rb'"jpeg_quality":(\d)', rb'"door":"[^"]*(\d)',
        rb'"(sha256)"',
    ),
    "books.json": (rb'"drawn":(\d)', rb'"chosen":(\d)', rb'"source":"(\w)', rb'"(refused\.par)'),
    "shards' receipt": (rb'"samples":(\d)', rb'"manifest_id":"(\w)', rb'"index":"(\w)'),
    "manifest.json": (
        rb'"seed":(\d)', rb'"length":(\d)', rb'"tokens":(\d)', rb'"samples":(\d)',
        rb'"order_digest":"(\w)', rb'"manifest_id":"(\w)',
    ),
    "plan tables": (rb"^(.)NUMPY", rb"'shape': \((\d)", rb"'descr'.*?(\d)"),
    "plan tokenizer": (rb'"vocab".*?(\d)',),
    "COMMITTED.json": (
        rb'"step":(\d),"v"', rb'"step":(\d),"total"', rb'"pack":(\d)', rb'"window":(\d)',
        rb'"(files)"',
    ),
    "leak index": (rb'"(questions)"', rb'"fingerprints":"[^"]*(\d)'),
    "fetched, entries": (rb'"digest":"(\w)', rb'"name":"(\w)', rb'"address":"(\w)'),
    "fetched": (rb"^(.)",),
    "digests": (rb'(\d)\],"\w{64}"', rb'\],"(\w)'),
    "node index": (rb'"(pictures)"', rb"(Which)", rb'"(user)'),
    "shards": (rb'"(Which)', rb'"width":(\d)', rb"\xff\xc0(.)", rb"(ustar)"),
    "pool/clips": (rb'"width": ?(\d)', rb'"pts": ?\[(\d)', rb"\xff\xc0(.)"),
    "pool/index/samples": _TABLE,
    "refused.parquet": _TABLE,
}  # fmt: skip
"""Kind -> where to flip: the lowest bit of the first byte that a pattern's group finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One bit of one file."""

    kind: Kind
    file: Path
    bit: int

    @property
    def where(self) -> str:
        return f"{self.kind.name}: {self.file.name}, bit {self.bit}"


def run(console: Console) -> list[Bar]:
    started = time.monotonic()
    with world(HOME) as made:
        kinds = made.kinds()
        judge = Judge(made, kinds)
        chosen = [(flip, judge.of(flip)) for flip in by_choice(kinds)]
        by_luck = [(flip, judge.of(flip)) for flip in by_chance(kinds, RANDOM)]
    found = [*chosen, *by_luck]
    console.print(told(found))
    for flip, what in found:
        if what not in GOOD:
            console.print(f"{what}: {flip.where}", highlight=False, soft_wrap=True)
    return [
        *(equal(f"{what} flips", sum(w == what for _, w in found), 0) for what in BAD),
        at_least("flips by chance that are no fault", _share(by_luck), 1.0),
        at_least("flips by choice that are no fault", _share(chosen), 1.0),
        at_least("flips by choice", len(chosen), 60),
        at_most("minutes", (time.monotonic() - started) / 60, MINUTES),
    ]


def _share(found: Sequence[tuple[Flip, str]]) -> float:
    return sum(what in GOOD for _, what in found) / len(found)


def told(found: Sequence[tuple[Flip, str]]) -> Table:
    """What became of the flips in each kind of file."""
    counts = Counter((flip.kind.name, what) for flip, what in found)
    table = Table("kind of file", *(*GOOD, *BAD))
    for name in dict.fromkeys(flip.kind.name for flip, _ in found):
        table.add_row(name, *(str(counts[name, what] or "") for what in (*GOOD, *BAD)))
    return table


def by_chance(kinds: Sequence[Kind], count: int) -> Iterator[Flip]:
    """So many bits, as many of each kind; a file by chance, whatever its size."""
    rng = random.Random(SEED)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        file = rng.choice(kind.files)
        yield Flip(kind=kind, file=file, bit=rng.randrange(8 * file.stat().st_size))


def by_choice(kinds: Sequence[Kind]) -> Iterator[Flip]:
    """The bits of CHOSEN, each in the first file that has such a place."""
    by_name = {kind.name: kind for kind in kinds}
    for name, patterns in CHOSEN.items():
        for pattern in patterns:
            yield _first(by_name[name], re.compile(pattern, re.DOTALL))


def _first(kind: Kind, pattern: re.Pattern[bytes]) -> Flip:
    for file in kind.files:
        if found := pattern.search(file.read_bytes()):
            return Flip(kind=kind, file=file, bit=8 * found.start(found.lastindex or 0))
    raise AssertionError(f"{kind.name}: no file holds {pattern.pattern!r}")


class Judge:
    """Runs the readers of flipped files, and keeps the world as it was."""

    def __init__(self, made: World, kinds: Sequence[Kind]) -> None:
        self.made = made
        self.expected: dict[str, Outputs] = {}
        for kind in kinds:
            if kind.read.__name__ not in self.expected:
                forget()
                self.expected[kind.read.__name__] = kind.read()
        self.clean = self._files()

    def _files(self) -> dict[Path, bytes]:
        kept = (self.made.pool, self.made.out, self.made.node, self.made.root / "cache")
        return {
            path: path.read_bytes() for one in kept for path in one.rglob("*") if path.is_file()
        }

    def of(self, flip: Flip) -> str:
        """What became of a flip."""
        whole = flip.file.read_bytes()
        data = bytearray(whole)
        data[flip.bit // 8] ^= 1 << flip.bit % 8
        flip.file.write_bytes(data)
        forget()
        try:
            return self._outcome(flip, whole)
        finally:
            flip.file.parent.mkdir(parents=True, exist_ok=True)
            flip.file.write_bytes(whole)
            self._restore()

    def _outcome(self, flip: Flip, whole: bytes) -> str:
        try:
            found = flip.kind.read()
        except UserError as error:
            return "named" if flip.file.name in str(error) else "names another file"
        except Exception:  # what a user would see as a traceback
            return "traceback"
        if found != self.expected[flip.kind.read.__name__]:
            return "silent"
        return "made again" if flip.file.read_bytes() == whole else "harmless"

    def _restore(self) -> None:
        """Nothing that one flip led to is there for the next."""
        found = self._files()
        for path in found.keys() - self.clean.keys():
            path.unlink()
        for path, data in self.clean.items():
            if found.get(path) != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
