"""What two manifests share and where they part; which samples a rank sees at a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixtures.manifest import Manifest
from mixtures.order import Order
from shards.errors import UserError

_RULES = (
    "seed",
    "length",
    "schedule",
    "permutation",
    "pack",
    "frames",
    "layout",
    "text",
    "profile",
)
_CHUNK = 1 << 14


def diff(a: Manifest, b: Manifest) -> dict[str, Any]:
    """Rules that differ, each source's kept sets and shares, and where the draw orders part.

    `same_order` of a source: it is drawn in the same order of its own samples in both.
    """
    ours, theirs = ({s["name"]: i for i, s in enumerate(m.value["sources"])} for m in (a, b))
    return {
        "a": a.manifest_id,
        "b": b.manifest_id,
        "identical": a.manifest_id == b.manifest_id,
        "rules": _rules(a, b),
        "sources": {
            name: _source(a, b, ours.get(name), theirs.get(name)) for name in ours | theirs
        },
        "same_positions": same_positions(a, b),
        "length": [a.length, b.length],
    }


def _rules(a: Manifest, b: Manifest) -> dict[str, list[Any]]:
    """`section.key` -> the two values, for every rule that differs."""
    found = {}
    for name in _RULES:
        ours, theirs = (m.value[name] for m in (a, b))
        if not isinstance(ours, dict):
            ours, theirs = {"": ours}, {"": theirs}
        for key in sorted(ours | theirs):
            pair = [ours.get(key), theirs.get(key)]
            if pair[0] != pair[1]:
                found[f"{name}.{key}".rstrip(".")] = pair
    return found


def _source(a: Manifest, b: Manifest, i: int | None, j: int | None) -> dict[str, Any]:
    keys = [
        np.empty(0, "V16") if at is None else np.ascontiguousarray(m.tables[at]["key"])
        for m, at in ((a, i), (b, j))
    ]
    ours, theirs = ({key.tobytes() for key in side} for side in keys)
    contents = [None if at is None else (m.seed, m.content_ids[at]) for m, at in ((a, i), (b, j))]
    return {
        "share": [_share(a, i), _share(b, j)],
        "kept": [len(ours), len(theirs)],
        "in_both": len(ours & theirs),
        "same_order": contents[0] is not None and contents[0] == contents[1],
    }


def _share(manifest: Manifest, i: int | None) -> str:
    if i is None:
        return "0/1"
    return f"{manifest.schedule.quotas[i]}/{manifest.schedule.period}"


def same_positions(a: Manifest, b: Manifest) -> int:
    """How many positions from the start on hold the same sample in both, at most a length."""
    ours, theirs, shorter = Order(a), Order(b), min(a.length, b.length)
    for start in range(0, shorter, _CHUNK):
        stop = min(start + _CHUNK, shorter)
        left, right = (np.frombuffer(o.keys(start, stop), "V16") for o in (ours, theirs))
        differing = np.flatnonzero(left != right)
        if len(differing):
            return start + int(differing[0])
    return shorter


def explain(
    manifest: Manifest, step: int, rank: int, world_size: int, global_batch: int
) -> list[list[dict[str, Any]]]:
    """The packs of a rank at a step, each a list of samples with position, source, key and cost."""
    if step < 0 or global_batch < 1 or not 0 <= rank < world_size:
        raise UserError(
            f"step {step}, rank {rank} of {world_size}, global batch {global_batch}: "
            "give --step >= 0, 0 <= --rank < --world-size and --global-batch >= 1"
        )
    packs = Order(manifest, global_batch).batch(step, rank, world_size)
    return [
        [{name: getattr(drawn, name) for name in drawn.__slots__} for drawn in pack]
        for pack in packs
    ]
