"""docs/manifest.md explains the order; its ten positions are computed here, twice."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from hashlib import sha256
from math import ceil, floor
from pathlib import Path

import numpy as np

from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.draws import Draws
from mixtures.manifest.npy_tables import ROW
from mixtures.order.schedule import table_of
from mixtures.recipe.types import PackRule

DOC = Path(__file__).parents[3] / "docs" / "manifest.md"
SEED, LENGTH, WEIGHTS = 17, 10, {"digits": 7, "scenes": 3}
KEYS = {
    "digits": [f"{n:032x}" for n in range(1, 7)],
    "scenes": [f"{n:032x}" for n in range(7, 9)],
}
MASK = (1 << 64) - 1
Rows = list[tuple[str, ...]]


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def number(*parts: object) -> int:
    return int(sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:16], 16)


def hash_of(source: str, epoch: int, key: str) -> int:
    salted = mix(number(SEED, source) ^ epoch)
    return mix(mix(salted ^ int(key[:16], 16)) ^ int(key[16:], 16))


def by_the_words() -> Rows:
    """The order as the document tells it, in plain Python."""
    total, visits, found = sum(WEIGHTS.values()), dict.fromkeys(WEIGHTS, 0), []
    for n in range(LENGTH):
        due = []
        for at, (source, weight) in enumerate(WEIGHTS.items()):
            share = Fraction(weight, total)
            if floor(visits[source] / share) <= n:
                due.append((ceil((visits[source] + 1) / share), at, source))
        source = min(due)[2]
        epoch, turn = divmod(visits[source], len(KEYS[source]))
        key = sorted(KEYS[source], key=lambda k: (hash_of(source, epoch, k), k))[turn]
        row = (n, source, visits[source], epoch, turn, key, f"{hash_of(source, epoch, key):016x}")
        found.append(tuple(map(str, row)))
        visits[source] += 1
    return found


def as_documented() -> Rows:
    lines = re.findall(r"^\| \d+ \|.*\|$", DOC.read_text(), re.MULTILINE)
    return [tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in lines]


def test_the_worked_example_is_what_its_words_say() -> None:
    text, rows = DOC.read_text(), by_the_words()
    assert as_documented() == [(*row[:5], row[5].replace("0" * 31, "…"), row[6]) for row in rows]
    for source in WEIGHTS:
        assert f'key({SEED}, "{source}") = {number(SEED, source):016x}' in text


def test_the_worked_example_is_what_we_draw() -> None:
    tables = []
    for keys in KEYS.values():
        table = np.zeros(len(keys), ROW)
        table["key"] = np.frombuffer(bytes.fromhex("".join(keys)), "V16")
        tables.append(table)
    order = DrawOrder(
        seed=SEED,
        names=list(WEIGHTS),
        tables=tables,
        source_at=table_of([(0, tuple(WEIGHTS.values()))], LENGTH),
        loop=0,
        is_finite=False,
        pack=PackRule(tokens=1, patches=1, window=1),
    )
    drawn = [
        (str(one.position), one.source, str(one.epoch), one.key)
        for one in Draws(order).samples(0, LENGTH)
    ]
    assert drawn == [(row[0], row[1], row[3], row[5]) for row in by_the_words()]
