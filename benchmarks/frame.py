"""A benchmark is a module with a docstring and `run(console) -> list[Bar]`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

GROUPS = {
    "curation": (
        "archives",
        "decode",
        "dedupe_scale",
        "duplicates",
        "flips",
        "hostile",
        "kills",
        "pipeline",
        "receipts",
        "text_twins",
    ),
    "size": ("admission", "driver", "million"),
    "mixing": ("mixture", "order", "packing", "scale", "scores"),
    "loading": ("integrity", "loader", "remote", "resume"),
    "training": (
        *("ablation_statistics", "demo", "evaluate", "lmms", "model", "ranks", "survive"),
        *("temporal", "train"),
    ),
}
"""The folders of `benchmarks/`, and the modules in each that measure; the rest serves these."""

MODULES = {name: f"benchmarks.{group}.{name}" for group in GROUPS for name in GROUPS[group]}
NAMES = tuple(sorted(MODULES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One thing measured against one bar; `value` is None where it could not be measured."""

    what: str
    value: float | None
    bar: str
    holds: bool
    why: str = ""

    def __post_init__(self) -> None:
        if self.value is None and (self.holds or not self.why):
            raise ValueError(f"{self.what}: nothing was measured, so nothing holds, and say why")


def at_least(what: str, value: float, bar: float) -> Bar:
    return Bar(what=what, value=round(value, 4), bar=f">= {bar}", holds=value >= bar)


def at_most(what: str, value: float, bar: float) -> Bar:
    return Bar(what=what, value=round(value, 4), bar=f"<= {bar}", holds=value <= bar)


def equal(what: str, value: float, bar: float) -> Bar:
    return Bar(what=what, value=value, bar=f"= {bar}", holds=value == bar)


def load(name: str) -> tuple[str, Callable[[Console], list[Bar]]]:
    """The one-line purpose of a benchmark, and the function that runs it."""
    module = importlib.import_module(MODULES[name])
    return (module.__doc__ or "").strip().splitlines()[0], module.run


def show(console: Console, bars: list[Bar]) -> None:
    table = Table("what", "value", "bar", "holds")
    for bar in bars:
        value = f"not measured: {bar.why}" if bar.value is None else f"{bar.value:g}"
        table.add_row(bar.what, value, bar.bar, "yes" if bar.holds else "NO")
    console.print(table)


def conclude(name: str, bars: list[Bar]) -> None:
    """The last line of a benchmark: one JSON object for machines."""
    fields = ("what", "value", "bar", "holds")
    rows = [{key: asdict(bar)[key] for key in fields} | _reason(bar) for bar in bars]
    sys.stdout.write(json.dumps({"benchmark": name, "bars": rows}) + "\n")


def _reason(bar: Bar) -> dict[str, str]:
    return {"why": bar.why} if bar.why else {}
