"""The loss on a second manifest: each sample by itself, so that no rank and no pack changes it.

OUT/held_out.jsonl           a line for each look: step, loss, by_source; means per supervised token
OUT/held_out_samples.json    behind the last step, the summed loss and the tokens of each sample
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypedDict

from mixtures.manifest.draws import Draws, SampleReference
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from train import ranks
from train.data.collate import empty_pack
from train.data.pack_stream import Stream
from train.data.sample_loader import SampleLoader
from train.data.tower_plan import TowerRule, calls_for
from train.engine.interface import Engine
from train.run_keys import HeldOutLoss

_AT_ONCE = 1024
"""Positions that are drawn together."""


class SampleLoss(TypedDict):
    """The summed loss of one sample over its supervised tokens."""

    key: str
    source: str
    loss: float
    tokens: int


class HeldOutMeans(TypedDict):
    """The loss per supervised token, of all samples and by source."""

    loss: float
    by_source: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Samples to look at from time to time."""

    samples: tuple[SampleReference, ...]
    loader: SampleLoader

    def losses(self, engine: Engine) -> list[SampleLoss]:
        """The loss of each sample, in their order: on every rank, for all call."""
        # every rank ends up with all of them: the mean is computed alike everywhere
        mine = dict(self._mine(engine))
        found = {key: told for each in ranks.by_each(lambda: mine) for key, told in each.items()}
        return [
            {"key": one.key, "source": one.source, "loss": loss, "tokens": tokens}
            for one in self.samples
            for loss, tokens in [found[one.key]]
        ]

    def _mine(self, engine: Engine) -> Iterator[tuple[str, tuple[float, int]]]:
        """Key -> (summed loss, supervised tokens) of this rank's samples."""
        size = engine.world_size
        rule = self.loader.tower
        # a sample a rank, and an empty pack where none is left: collectives need every rank
        for start in range(0, len(self.samples), size):
            assigned = self.samples[start : start + size]
            # under ZeRO-3 every rank has to call the tower equally often
            calls = max(calls_for(one.patches, rule.chunk) for one in assigned)
            own = assigned[engine.rank : engine.rank + 1]
            if own:
                rendered = self.loader.load(self.loader.with_rows(own))
                pack = self.loader.packed(rendered, calls)
                yield own[0].key, (engine.score(pack), pack.supervised)
            else:
                engine.score(empty_pack(rule, calls))


def open_held_out(
    rule: HeldOutLoss, trained: Manifest, data: str, chunk: int, where: str
) -> HeldOut:
    """The samples that `rule` names; UserError where the model would see them in another way.

    `data` is where the run itself finds its bytes, `where` names the config.
    """
    manifest = load_manifest(Path(rule.manifest))
    left, right = manifest.contents, trained.contents
    # shown in another way, its loss would measure the showing and not the model
    for name, ours, theirs in (
        ("layout", left.layout, right.layout),
        ("frames", left.frames, right.frames),
        ("text", left.text, right.text),
    ):
        if ours != theirs:
            raise UserError(
                f"{where}: held_out: {rule.manifest}: its {name} is not that of the manifest that "
                "is trained on; plan it with the same"
            )
    stream = Stream(manifest, rule.data or data, tower=TowerRule(chunk=chunk))
    samples = tuple(islice(_distinct(manifest), rule.samples))
    return HeldOut(samples=samples, loader=stream.loader)


def _distinct(manifest: Manifest) -> Iterator[SampleReference]:
    """Every sample of a manifest, as its positions draw it first: however it is packed."""
    left = {
        (n, row["key"].tobytes().hex())
        for n, table in zip(manifest.names, manifest.tables, strict=True)
        for row in table
    }
    # until all were drawn once: an order repeats samples before others come up
    draws, start = Draws(manifest), 0
    while left and not (manifest.is_finite and start >= manifest.length):
        stop = start + _AT_ONCE
        for one in draws.samples(start, min(stop, manifest.length) if manifest.is_finite else stop):
            if (one.source, one.key) in left:
                left.remove((one.source, one.key))
                yield one
        start = stop


def means_of(losses: Sequence[SampleLoss]) -> HeldOutMeans:
    """The means of these samples."""
    sources = sorted({one["source"] for one in losses})
    by_source = {s: _mean([one for one in losses if one["source"] == s]) for s in sources}
    return {"loss": _mean(losses), "by_source": by_source}


def _mean(losses: Sequence[SampleLoss]) -> float:
    """The loss per token, exactly rounded: no order of addition changes it."""
    tokens = sum(one["tokens"] for one in losses)
    return math.fsum(one["loss"] for one in losses) / max(tokens, 1)
