from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from tests.support.ranks import launch
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG, TINY
from train.config import Guard, RandomInit, Stop, all_from
from train.data.collate import empty_pack
from train.data.pack_stream import Stream
from train.data.render import Rules
from train.engine.interface import distinct_weights
from train.engine.open_engine import open_engine
from train.engine.state_files import KINDS, grouped, read_state, write_state
from train.engine.torch_engine import TorchEngine
from train.guard import StepGuard
from train.loop import optimize, run
from train.model_folder import build_model, load_saved


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


NAMES = ("pictures", "clips")
"""The sources of the tiny manifest."""


def rules_of(built: Path) -> tuple[Manifest, Rules]:
    manifest = load_manifest(built)
    return manifest, Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)


def guard() -> StepGuard:
    return StepGuard(Guard())


def one_step(built: Path, micro_batch: int, *, and_empty: bool = False) -> dict[str, float]:
    manifest, rules = rules_of(built)
    data = str(built.parent.parent / "pool")
    packs = next(Stream(manifest, data, global_batch=4, micro_batch=micro_batch).steps())
    engine = TorchEngine(TINY, build_model(TINY, rules))
    return optimize(engine, [*packs, empty_pack()] if and_empty else packs, 0.2, guard(), NAMES)


def test_how_packs_are_joined_into_forward_passes_changes_nothing(built: Path) -> None:
    one, four = one_step(built, 1), one_step(built, 4)
    assert one["supervised"] == four["supervised"]
    assert one["loss"] == pytest.approx(four["loss"], rel=1e-5)
    assert one["grad_norm"] == pytest.approx(four["grad_norm"], rel=1e-4)


def test_the_same_bits_each_time_cost_no_filling_of_new_memory(built: Path) -> None:
    _, rules = rules_of(built)
    open_engine(TINY, build_model(TINY, rules))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch._C._get_deterministic_fill_uninitialized_memory()


def test_an_empty_pack_takes_part_and_weighs_nothing(built: Path) -> None:
    plain, padded = one_step(built, 2), one_step(built, 2, and_empty=True)
    assert padded["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert padded["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-5)


def test_what_an_engine_saved_goes_into_a_model_of_the_same_sizes_only(
    built: Path, tmp_path: Path
) -> None:
    manifest, rules = rules_of(built)
    packs = next(Stream(manifest, str(built.parent.parent / "pool"), global_batch=4).steps())
    one, other = (
        TorchEngine(
            replace(TINY, parts=all_from(TINY.parts, RandomInit(i))), build_model(TINY, rules)
        )
        for i in (0, 5)
    )
    optimize(one, packs, 0.2, guard(), NAMES)
    one.save(tmp_path)
    other.load(tmp_path, 1)
    rows = [optimize(engine, packs, 0.2, guard(), NAMES) for engine in (one, other)]
    assert rows[0] == rows[1]
    both = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in both)
    deeper = replace(TINY, vision=replace(TINY.vision, num_hidden_layers=2))
    with pytest.raises(UserError, match=r"does not fit this model at 'vision_tower\.layers\.1"):
        TorchEngine(deeper, build_model(deeper, rules)).load(tmp_path, 1)
    wider = replace(TINY, vision=replace(TINY.vision, intermediate_size=96))
    with pytest.raises(UserError, match=r"does not fit this model at .*mlp"):
        TorchEngine(wider, build_model(wider, rules)).load(tmp_path, 1)


def test_ranks_share_the_files_of_a_state_and_its_parameters_stay_whole(tmp_path: Path) -> None:
    whole = {name: torch.randn(3, size, 4) for name, size in (("b", 2), ("a", 50), ("c", 2))}
    shapes = {name: kinds.shape[1:] for name, kinds in whole.items()}
    assert grouped(shapes, most=4 * 3 * 4 * 4) == [["b"], ["a"], ["c"]]
    assert grouped(shapes, most=4 * 3 * 4 * 52) == [["b", "a"], ["c"]]
    for rank in (0, 1):
        write_state(tmp_path, shapes, lambda name: list(whole[name]), rank, 2, file_bytes=4 * 3 * 4)
        assert len(list(tmp_path.iterdir())) == (2, 3)[rank]
    found = dict(read_state(tmp_path, shapes))
    assert found.keys() == whole.keys()
    for name, tensors in found.items():
        assert len(tensors) == len(KINDS) and torch.equal(torch.stack(tensors), whole[name])


def test_the_torch_engine_refuses_a_launch_of_several_processes(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="this launch has 2; set `engine: deepspeed`"):
        open_engine(TINY, build_model(TINY, rules_of(built)[1]))


def test_two_deepspeed_processes_train_as_one_torch_process_does(
    built: Path, tmp_path: Path
) -> None:
    config = replace(TINY, stop=Stop(steps=4), global_batch=5)
    run(config, built, str(built.parent.parent / "pool"), tmp_path / "one")
    text = CONFIG.replace("global_batch: 4", "global_batch: 5")
    (tmp_path / "run.yaml").write_text(
        f"{text}stop: {{steps: 4}}\nengine: deepspeed\nzero_stage: 2\n"
    )
    words = ["--manifest", str(built), "--out", str(tmp_path / "two")]
    launch(["train", "run", str(tmp_path / "run.yaml"), *words], 110)
    one, two = (rows(tmp_path / name) for name in ("one", "two"))
    assert [row["supervised"] for row in two] == [row["supervised"] for row in one]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    for name in NAMES:
        each = [[row["by_source"].get(name, 0.0) for row in rows_] for rows_ in (one, two)]
        assert any(each[0]) and each[1] == pytest.approx(each[0], rel=1e-5)
    norms = [[row["grad_norm"] for row in each] for each in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    weights = [distinct_weights(load_saved(tmp_path / n / "model").model) for n in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=2e-5)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
