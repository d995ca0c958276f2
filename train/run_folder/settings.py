"""What a run was told: OUT/config.yaml, the config as resolved, and which of its values decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

from mixtures.recipe.strict_yaml import dump_yaml
from train.config import PARTS, Config, RandomInit, without_effect

CONFIG = "config.yaml"


def resolved(config: Config) -> str:
    """The config as YAML that `train.config.load_config` reads as the same run.

    Keys without a value, and those that do nothing beside the others, are left out.
    """
    tree = _tree(config)
    # a strict reader would refuse them: the file must be readable as the same run
    for *outer, name in [place for place, _ in without_effect(tree)]:
        inner = tree
        for step in outer:
            inner = inner[step]
        del inner[name]
    return dump_yaml(tree)


def _tree(value: Any) -> Any:
    if isinstance(value, RandomInit):
        return {"random": value.seed}
    if is_dataclass(value):
        named = {field.name: _tree(getattr(value, field.name)) for field in fields(value)}
        # a key that is left out has its default, and a default may change between versions; what is
        # said stays
        return {name: inner for name, inner in named.items() if inner not in (None, "", {})}
    if isinstance(value, Fraction):
        # 1.0 and not 1: of a count or a share, an integer is the count
        decimal = float(value)
        return decimal if Fraction(repr(decimal)) == value else str(value)
    return list(value) if isinstance(value, tuple) else value


_HOW_NOT_WHAT = {
    *("engine", "zero_stage", "micro_batch", "save_every", "keep", "held_out", "offload"),
    *("packed_attention", "deterministic", "tower_chunk"),
    *("workers", "cache_mib", "node_folder", "node_mib", "feature_cache"),
    *("stop", "guard", "layout"),
}
"""Keys that spread the same computation over processes, memory and disks, keys that may change
while a run stands still (train.schedule.check_same_rates looks at `stop`), and assertions."""


def deciding(config: Config) -> dict[str, str]:
    """Every value that decides what the run computes, but for its last digits, by its place:
    "parts: decoder: lr" -> "2e-05".

    Of a part whose own weights are not trained, checkpoints hold their digest, wherever they lie;
    of one whose are, the weights, so that where it was started from is not looked at again.
    """
    values = dict(_values(config, ""))
    for part in PARTS:
        rule = getattr(config.parts, part)
        for key_ in ("checkpoint", "init"):
            del values[f"parts: {part}: {key_}"]
        if rule.adapter is None:
            # runs of before this key have the same digest as runs that do not use it
            values.pop(f"parts: {part}: adapter")
        if rule.trains_own and isinstance(rule.init, RandomInit):
            values[f"parts: {part}: init"] = str(rule.init)
    return {place: v for place, v in values.items() if place.split(":")[0] not in _HOW_NOT_WHAT}


def _values(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if not is_dataclass(value) or isinstance(value, RandomInit):
        yield path, str(value)
        return
    for field in fields(value):
        inner = f"{path}: {field.name}" if path else field.name
        yield from _values(getattr(value, field.name), inner)


def differences(saved: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """A line for each place whose value is another one: what it was, and what it is."""
    for place in [*now, *(place for place in saved if place not in now)]:
        before, after = saved.get(place, "nothing"), now.get(place, "nothing")
        if before != after:
            yield f"{place}: saved with {before}, this run has {after}"


def by_place(tree: Any, key_path: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Every value of a JSON tree by its place: "sources[2]: weight" -> "3"."""
    if isinstance(tree, Mapping):
        for name, inner in tree.items():
            yield from by_place(inner, (*key_path, str(name)))
    elif isinstance(tree, list):
        for number, inner in enumerate(tree):
            yield from by_place(
                inner, (*key_path[:-1], f"{key_path[-1] if key_path else ''}[{number}]")
            )
    else:
        yield ": ".join(key_path), str(tree)
