"""The held-out loss: what it is taken on, that no number of ranks changes it, and what it keeps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, exact, metrics, pool_of
from tests.train.engine.test_engines import rules_of
from train import ranks
from train.config import Config
from train.data.collate import Pack
from train.engine import checkpoint
from train.engine.torch_engine import TorchEngine
from train.loop import run
from train.model_folder import build_model
from train.run_keys import HeldOutLoss, Keep
from train.watched.held_out import means_of, open_held_out


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another order, over a pool of its own."""
    return tiny_manifest(tmp_path_factory.mktemp("other"), seed=9)


def looking(other: Path) -> Config:
    rule = HeldOutLoss(manifest=str(other), data=pool_of(other), every=2, samples=9)
    return replace(TINY, held_out=rule, save_every=4, keep=Keep(last=1, best=1))


@pytest.fixture(scope="module")
def watched(built: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("watched")
    assert run(looking(other), built, pool_of(built), out) == 0
    return out


@dataclass
class OneOf:
    """An engine as one rank of several has it; what it scores is noted."""

    engine: TorchEngine
    rank: int
    world_size: int
    scored: int = 0

    def score(self, pack: Pack) -> float:
        self.scored += 1
        return self.engine.score(pack)


def test_no_number_of_ranks_changes_a_bit(
    built: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = rules_of(built)[1]
    engine = TorchEngine(TINY, build_model(TINY, rules))
    rule = looking(other).held_out
    assert rule is not None
    held = open_held_out(rule, load_manifest(built), pool_of(built), 40, "config")
    alone = held.losses(engine)
    for size in (2, 4):
        team = [OneOf(engine, rank, size) for rank in range(size)]
        told = [dict(held._mine(one)) for one in team]  # type: ignore[arg-type]
        assert len({one.scored for one in team}) == 1  # a rank without a sample calls as well
        monkeypatch.setattr(ranks, "by_each", lambda _, told=told: told)
        assert held.losses(team[0]) == alone  # type: ignore[arg-type]
    means = means_of(alone)
    sources = means["by_source"]
    assert sources.keys() == {"pictures", "clips"}
    assert min(sources.values()) < means["loss"] < max(sources.values())
    assert engine.model.training and all(p.grad is None for p in engine.model.parameters())


def test_every_sample_of_a_small_manifest_is_looked_at_once(built: Path, other: Path) -> None:
    rule = HeldOutLoss(manifest=str(other), data=pool_of(other), samples=1000)
    held = open_held_out(rule, load_manifest(built), pool_of(built), 40, "config")
    manifest = load_manifest(other)
    assert len(held.samples) == sum(len(table) for table in manifest.tables)
    assert len({one.key for one in held.samples}) == len(held.samples)


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "held_out.jsonl").read_text().splitlines()]


def test_a_run_that_looks_learns_as_one_that_does_not(
    built: Path, watched: Path, tmp_path: Path
) -> None:
    run(TINY, built, pool_of(built), tmp_path)
    assert exact(metrics(watched)) == exact(metrics(tmp_path))
    looks = rows(watched)
    assert [row["step"] for row in looks] == [2, 4, 6, 8, 10, 12]
    assert looks[-1]["loss"] < looks[0]["loss"] and all(math.isfinite(r["loss"]) for r in looks)
    # behind the end, sample by sample, what the last line says on the whole
    last = json.loads((watched / "held_out_samples.json").read_text())
    assert len(last["samples"]) == 9 and last["step"] == 12
    assert means_of(last["samples"])["loss"] == looks[-1]["loss"]


def test_the_best_checkpoint_stays(watched: Path) -> None:
    saved = {row["step"]: row["loss"] for row in rows(watched) if row["step"] % 4 == 0}
    best = min(saved, key=lambda step: saved[step])
    root = watched / "checkpoints"
    assert checkpoint.steps(root) == sorted({best, 12})
    for step in checkpoint.steps(root):
        kept = checkpoint.read(checkpoint.folder_of(root, step))
        assert float.fromhex(kept.held_out) == saved[step]


def test_a_manifest_that_shows_media_otherwise_is_refused(built: Path, tmp_path: Path) -> None:
    stamped = tiny_manifest(tmp_path, timestamps="per_frame_text")
    rule = HeldOutLoss(manifest=str(stamped))
    with pytest.raises(UserError, match=r"held_out: .*: its layout is not that of the manifest"):
        open_held_out(rule, load_manifest(built), pool_of(built), 40, "config")
