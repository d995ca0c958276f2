"""Raw bytes, decoded frames and whole packs per second against webdataset, MDS, Energon, litData.

Raw: every side delivers the key, the JSON and the frames' bytes of the same samples, shuffled, in
one process, and one byte of every page is read, as views of a mapping cost nothing; ours checks
every crc32, the peers nothing. What each delivered is digested in a run of its own and must be
equal. CPU seconds, medians of rounds in which all sides take turns.
Frames and packs: seconds on two threads (two DataLoader workers for webdataset + Pillow), against
simplejpeg alone on bytes in memory; medians of the ratios within each round. Seconds enough that
the first touch of memory is little of them; the time to the first pack is a bar of its own.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, at_most
from benchmarks.inputs.corpus import FILMS, PICTURES, STILLS, Corpus, corpus
from benchmarks.peers import PeerUnavailable, ask, ask_ours
from shards.errors import UserError

RAW_BARS = {"webdataset": 3.0, "mosaicml": 6.0, "energon": 6.0, "litdata": 1.2}
ROUNDS, SAMPLES = 5, 1000


def run(console: Console) -> list[Bar]:
    pictures, films = corpus("pictures", [PICTURES]), corpus("reels", [FILMS, STILLS])
    return [*raw(console, pictures), *decoded(console, films)]


def request_of(name: str, made: Corpus) -> dict[str, Any]:
    """What a side needs to read the corpus: tar shards, or a copy in the peer's own format."""
    tars = sorted(str(path) for path in Path(made.shards).glob("*.tar"))
    if name == "ours":
        return {"manifest": made.manifest, "shards": made.shards}
    return {"shards": tars, "home": str(Path(made.shards).resolve().with_name(name))}


def side(name: str, request: dict[str, Any]) -> dict[str, Any]:
    return ask_ours(request) if name == "ours" else ask(name, request, timeout=300)[0]


def prepare(name: str, made: Corpus) -> None:
    """The peer's own copy, made once."""
    request = request_of(name, made)
    if name != "webdataset" and not Path(request["home"]).exists():
        side(name, request | {"task": "prepare"})


def raw(console: Console, made: Corpus) -> list[Bar]:
    table = Table("raw", "CPU s per 1,000 samples", "first 16 samples, s")
    taken: dict[str, list[dict[str, Any]]] = {"ours": []}
    missing: dict[str, str] = {}
    digests = {}
    for name in ("ours", *RAW_BARS):
        try:
            if name != "ours":
                prepare(name, made)
            checked = side(name, request_of(name, made) | {"task": "raw", "check": True})
            told = tuple(checked[field] for field in ("samples", "digest", "bytes"))
            digests[name], taken[name] = told, []
        except PeerUnavailable as error:
            missing[name] = str(error)
    if len(set(digests.values())) != 1:
        raise UserError(f"the sides delivered different samples: {digests}")
    for _ in range(ROUNDS):
        for name, rows in taken.items():
            rows.append(side(name, request_of(name, made) | {"task": "raw"}))
    cost = {
        name: statistics.median(row["cpu_s"] * 1000 / row["samples"] for row in rows)
        for name, rows in taken.items()
    }
    first = {
        name: statistics.median(row["first_s"] for row in rows) for name, rows in taken.items()
    }
    for name in cost:
        table.add_row(name, f"{cost[name]:.4f}", f"{first[name]:.3f}")
    console.print(table)
    bars = [at_most("first 16 samples, s", first["ours"], 0.2)]
    for name, bar in RAW_BARS.items():
        what = f"raw samples per CPU second, ours / {name}"
        if name in missing:
            bars.append(Bar(what=what, value=None, bar=f">= {bar}", holds=False, why=missing[name]))
        else:
            bars.append(at_least(what, cost[name] / cost["ours"], bar))
    return bars


def decoded(console: Console, made: Corpus) -> list[Bar]:
    ours = request_of("ours", made) | {"samples": SAMPLES}
    rounds = []
    for _ in range(ROUNDS):
        found = {task: side("ours", ours | {"task": task}) for task in ("bare", "frames", "packs")}
        try:
            theirs = request_of("webdataset", made) | {"task": "frames"}
            found["webdataset"] = side("webdataset", theirs)
            why = ""
        except PeerUnavailable as error:
            why = str(error)
        rounds.append(found)
    if rounds[0]["bare"]["pixels"] != rounds[0]["frames"]["pixels"]:
        raise UserError("the bare decoder and the loader delivered different pixels")
    table = Table("decoded", "frames / s", "CPU s per 1,000 frames")
    for name in rounds[0]:
        rate = statistics.median(row[name]["frames"] / row[name]["wall_s"] for row in rounds)
        cpu = [
            row[name]["cpu_s"] / row[name]["frames"] * 1000
            for row in rounds
            if "cpu_s" in row[name]
        ]
        table.add_row(name, f"{rate:.0f}", f"{statistics.median(cpu):.3f}" if cpu else "in workers")
    console.print(table)
    what = "frames per second in packs / webdataset + Pillow + DataLoader(2)"
    peer = (
        Bar(what=what, value=None, bar=">= 1.15", holds=False, why=why)
        if why
        else at_least(what, ratio(rounds, "packs", "webdataset"), 1.15)
    )
    return [
        at_least(
            "frames per second, ours / bare simplejpeg", ratio(rounds, "frames", "bare"), 0.90
        ),
        peer,
        at_least(
            "frames per second in packs / bare simplejpeg", ratio(rounds, "packs", "bare"), 0.75
        ),
        at_most("first pack, s", statistics.median(row["packs"]["first_s"] for row in rounds), 0.2),
    ]


def ratio(rounds: list[dict[str, dict[str, Any]]], one: str, other: str) -> float:
    """Median over the rounds of frames per second, one / other."""
    rates = [{n: row[n]["frames"] / row[n]["wall_s"] for n in (one, other)} for row in rounds]
    return statistics.median(rate[one] / rate[other] for rate in rates)
