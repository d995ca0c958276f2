"""Small pools for what a plan keeps and refuses, and what it says of it."""

from __future__ import annotations

import numpy as np

from mixtures.plan.build_manifest import Plan
from mixtures.pool.columns import Samples
from shards.outcome import Refused
from tests.support.made_pool import MadePool, MadeSample, many


def samples_of(asked: list[tuple[list[int], int, int, int]]) -> Samples:
    clips, licences, turns, tokens = zip(*asked, strict=True) if asked else ([], [], [], [])
    keys = b"".join(number.to_bytes(16, "big") for number in range(len(asked)))
    return Samples(
        name="a",
        key=np.frombuffer(keys, "V16"),
        turns=np.frombuffer(keys, "V16"),
        tokens=np.array(tokens, np.uint32),
        num_turns=np.array(turns, np.int32),
        licence=np.array(licences, np.int32),
        licences=["MIT", "CC0"],
        clips=np.array([clip for own in clips for clip in own], np.int32),
        ends=np.cumsum([0, *map(len, clips)]),
    )


RATIOS = {"a": "weight: 1", "b": "weight: 1"}


def refusals(plan: Plan) -> list[Refused]:
    return [Refused(**row) for row in plan.refusals.to_pylist()]


def refused(plan: Plan) -> dict[tuple[str, str], tuple[str, str]]:
    """(source, record) -> (stage, code) of every refusal of a sample."""
    return {(r.source, r.record): (r.stage, r.code) for r in refusals(plan) if r.key}


def pool_with(a: list[MadeSample], b: list[MadeSample], **more: object) -> MadePool:
    return MadePool(sources={"a": [*many("a", 2), *a], "b": [*many("b", 2), *b]}, **more)
