"""Each use of the tower on several ranks, beside one process; some packs are text or empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixtures.manifest.files import load_manifest
from tests.support.ranks import TOWERS, of_steps
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import metrics, pool_of
from train.data.pack_stream import Stream
from train.loop import run

ALIKE = dict.fromkeys(TOWERS, 40)
"""Patches of a call: several calls a pack, whatever becomes of the tower."""


def mixed_manifest(folder: Path) -> Path:
    """Pictures, videos with frames beyond the cap, and text: some packs of the first three steps
    hold text alone."""
    manifest = tiny_manifest(folder, timestamps="none, memory_tokens: 3", talk=True)
    steps = Stream(load_manifest(manifest), pool_of(manifest), global_batch=5).steps()
    packs = [pack for _ in range(3) for pack in next(steps)]
    assert {len(pack.patches) > 0 for pack in packs} == {True, False}
    return manifest


def jobs_for(manifest: Path, folder: Path, steps: int, chunks: dict[str, int]) -> dict[str, Any]:
    """Job by name: each use of the tower, under ZeRO 2 and 3."""
    return {
        f"{tower}-{stage}": {
            "manifest": str(manifest),
            "out": str(folder / f"{tower}-{stage}"),
            "stage": stage,
            "keep": steps,
            "steps": steps,
            "tower": tower,
            "chunk": chunks[tower],
        }
        for tower in TOWERS
        for stage in (2, 3)
    }


def worst_loss(folder: Path, jobs: dict[str, Any]) -> dict[str, float]:
    """By job, how far its losses are from those of one process, as a share of them."""
    found = {}
    for name, job in jobs.items():
        one = folder / f"{job['tower']}-1"
        if not one.exists():
            config = of_steps(job["steps"], job["tower"], job["chunk"])
            run(config, Path(job["manifest"]), pool_of(Path(job["manifest"])), one)
        pairs = zip(metrics(folder / name), metrics(one), strict=True)
        found[name] = max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in pairs)
    return found
