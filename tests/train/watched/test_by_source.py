"""The loss of a step by source: each sample's own, in whatever pack it came."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixtures.manifest.files import load_manifest
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, pool_of
from train.config import Guard
from train.data.collate import empty_pack
from train.data.pack_stream import Stream
from train.data.render import Rules
from train.engine.torch_engine import TorchEngine
from train.guard import StepGuard
from train.json_files import StepLog
from train.loop import optimize
from train.model_folder import build_model
from train.watched.by_source import losses_by_source, mean_by_source, rows_by_source


def test_each_sample_counts_for_its_own_source(tmp_path: Path) -> None:
    built = tiny_manifest(tmp_path)
    manifest = load_manifest(built)
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    stream = Stream(manifest, pool_of(built), global_batch=4, micro_batch=2)
    packs = next(stream.steps())
    engine = TorchEngine(TINY, build_model(TINY, rules))
    # each sample in a pack of its own, before any update
    apart = dict.fromkeys(manifest.names, 0.0)
    rows = dict.fromkeys(manifest.names, 0)
    order = Stream(manifest, pool_of(built), global_batch=4, micro_batch=2)
    for drawn in order.sampler.micro_batches(0):
        for sample in order.loader.load(order.loader.with_rows(drawn)):
            alone = order.loader.packed([sample], 1)
            apart[sample.source] += engine.score(alone)
            rows[sample.source] += alone.supervised
    assert all(rows.values()) and apart["pictures"] / rows["pictures"] != pytest.approx(
        apart["clips"] / rows["clips"], rel=1e-3
    )
    row = optimize(engine, [*packs, empty_pack()], 0.2, StepGuard(Guard()), manifest.names)
    for name in manifest.names:
        assert row["by_source"][name] == pytest.approx(apart[name] / rows[name], rel=1e-5)
    whole = sum(row["by_source"][name] * rows[name] for name in rows)
    assert row["loss"] == pytest.approx(whole / sum(rows.values()), rel=1e-12)


def test_no_order_of_packs_changes_a_bit_and_a_source_without_rows_has_no_mean() -> None:
    assert rows_by_source([empty_pack()], ["a", "b"]) == [0, 0]
    assert losses_by_source([empty_pack()], [torch.zeros(0)], ["a", "b"]) == [0.0, 0.0]
    assert mean_by_source(["a", "b"], [3.0, 0.0], [2.0, 0.0]) == {"a": 1.5}


def test_what_is_not_finite_is_null_at_any_depth(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "log.jsonl", 0)
    log.write({"step": 1, "loss": float("nan"), "by_source": {"a": float("inf"), "b": 1.5}})
    said = '{"step": 1, "loss": null, "by_source": {"a": null, "b": 1.5}}\n'
    assert log.path.read_text() == said
