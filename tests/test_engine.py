from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mixtures.manifest import Manifest
from shards.errors import UserError
from tests.test_loop import CONFIG, TINY
from tests.tiny_pool import tiny_manifest
from train.engine import TorchEngine, distinct_weights, open_engine, set_weights
from train.loop import optimize, run
from train.packs import empty_pack
from train.render import Rules
from train.saved import build_model, load_saved
from train.stream import Stream


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


def rules_of(built: Path) -> tuple[Manifest, Rules]:
    manifest = Manifest.load(built)
    return manifest, Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)


def one_step(built: Path, micro_batch: int, *, and_empty: bool = False) -> dict[str, float]:
    manifest, rules = rules_of(built)
    data = str(built.parent.parent / "pool")
    packs = next(Stream(manifest, data, global_batch=4, micro_batch=micro_batch).steps())
    engine = TorchEngine(TINY, build_model(TINY, rules))
    return optimize(engine, [*packs, empty_pack()] if and_empty else packs, 1e-3)


def test_how_packs_are_joined_into_forward_passes_changes_nothing(built: Path) -> None:
    one, four = one_step(built, 1), one_step(built, 4)
    assert one["supervised"] == four["supervised"]
    assert one["loss"] == pytest.approx(four["loss"], rel=1e-5)
    assert one["grad_norm"] == pytest.approx(four["grad_norm"], rel=1e-4)


def test_an_empty_pack_takes_part_and_weighs_nothing(built: Path) -> None:
    plain, padded = one_step(built, 2), one_step(built, 2, and_empty=True)
    assert padded["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert padded["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-5)


def test_weights_go_into_a_model_of_the_same_sizes_only(built: Path) -> None:
    _, rules = rules_of(built)
    one, other = build_model(TINY, rules), build_model(replace(TINY, seed=5), rules)
    set_weights(other, distinct_weights(one))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    deeper = replace(TINY, vision=replace(TINY.vision, num_hidden_layers=2))
    with pytest.raises(UserError, match="the weights do not fit this model at 'vision_tower"):
        set_weights(build_model(deeper, rules), distinct_weights(one))


def test_the_torch_engine_refuses_a_launch_of_several_processes(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="this launch has 2; set `engine: deepspeed`"):
        open_engine(TINY, build_model(TINY, rules_of(built)[1]))


def test_two_deepspeed_processes_train_as_one_torch_process_does(
    built: Path, tmp_path: Path
) -> None:
    config = replace(TINY, steps=4, global_batch=5)
    run(config, built, str(built.parent.parent / "pool"), tmp_path / "one")
    text = CONFIG.replace("global_batch: 4", "global_batch: 5")
    (tmp_path / "run.yaml").write_text(f"{text}steps: 4\nengine: deepspeed\nzero_stage: 2\n")
    launch(tmp_path / "run.yaml", built, tmp_path / "two")
    one, two = (rows(tmp_path / name) for name in ("one", "two"))
    assert [row["supervised"] for row in two] == [row["supervised"] for row in one]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    norms = [[row["grad_norm"] for row in each] for each in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    weights = [distinct_weights(load_saved(tmp_path / n / "model").model) for n in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=2e-5)


def launch(config: Path, manifest: Path, out: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            *"-m torch.distributed.run --nproc_per_node 2 --standalone -m train run".split(),
            *(str(config), "--manifest", str(manifest), "--out", str(out)),
        ],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
