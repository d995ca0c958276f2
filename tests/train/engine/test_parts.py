"""What is trained, at which rate, in which precision, and which steps are taken: by all engines.

One process, and two ranks under ZeRO 1, 2 and 3 in one launch (tests/support/ranks.py).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from shards.errors import UserError
from tests.support.ranks import SHARED, STEPS, keep_until, launch
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import EXACT, metrics, pool_of
from tests.train.engine import watched
from tests.train.engine.test_engines import rules_of
from train.config import Config, Guard, Optimizer, Part, Parts, load_config
from train.engine import checkpoint
from train.guard import SKIPPED
from train.loop import run
from train.model_folder import build_model, load_saved
from train.run_folder.settings import deciding, resolved

pytestmark = pytest.mark.timeout(1500)  # whichever test comes first waits for all the runs
BAD = {4, 7}
SKIP = Guard(policy="skip")
PARTS = Parts(
    tower=Part(train=False),
    projector=Part(lr=2e-2, weight_decay=0.1),
    decoder=Part(lr=5e-3, weight_decay=0.0),
)
CONFIGS: dict[str, Config] = {
    "frozen": replace(SHARED, guard=SKIP, parts=PARTS),
    "bf16": replace(SHARED, guard=SKIP, precision="bf16"),
}
"""In both, steps BAD have a gradient of NaN on the last rank."""
CHAIN = [(3, 2), (1, 4), (2, 6), (2, STEPS)]
"""ZeRO stage, and the last of its checkpoints that the next one finds."""
OFFLOAD = {"bf16": {3: "weights", 1: "optimizer"}}
"""What lies in CPU memory, by config and stage."""


def written(config: Config, folder: Path) -> str:
    """The config as a file that every rank reads."""
    folder.mkdir()
    path = folder / "run.yaml"
    path.write_text(resolved(config))
    assert deciding(load_config(path)) == deciding(config)
    return str(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each of CONFIGS, `NAME/one`: a single process; `NAME/many`: ranks, from each other."""
    folder = tmp_path_factory.mktemp("parts")
    manifest = tiny_manifest(folder / "made")
    jobs = []
    with pytest.MonkeyPatch.context() as patch:
        watched.watch(patch)
        watched.plant(patch, BAD)
        for name, config in CONFIGS.items():
            path = written(config, folder / name)
            run(config, manifest, pool_of(manifest), folder / name / "one")
            where = {"manifest": str(manifest), "out": str(folder / name / "many"), "config": path}
            for number, (stage, keep) in enumerate(CHAIN):
                job = {"stage": stage, "keep": keep, "bad": sorted(BAD), "number": number}
                job["offload"] = OFFLOAD.get(name, {}).get(stage, "none")
                jobs.append(where | job)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    launch(["tests.support.ranks", str(folder / "jobs.json")], 1200)
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def state_of(checkpoint_folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted(checkpoint_folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys()}
    return found


def last(out: Path) -> Path:
    return out / "checkpoints" / f"step-{STEPS:08d}"


@pytest.mark.parametrize("name", CONFIGS)
def test_ranks_train_as_one_process_does_and_on_from_each_other(runs: Path, name: str) -> None:
    one = metrics(runs / name / "one")
    tolerance = 1e-3 if name == "bf16" else 1e-6
    for number in range(len(CHAIN)):
        many = rows(runs / name / "many" / f"metrics-{number}.jsonl")
        assert [row["objection"] is None for row in many] == [
            row["objection"] is None for row in one
        ]
        for ours, theirs in zip(many, one, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance), number


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_ranks_go_on_bit_for_bit(runs: Path, name: str) -> None:
    before, again = (rows(runs / name / "many" / f"metrics-{n}.jsonl") for n in (2, 3))
    names = [*(n for n in EXACT if n in before[0]), "lr_projector", "objection"]
    assert [[row[n] for n in names] for row in again] == [[row[n] for n in names] for row in before]


@pytest.mark.parametrize("name", CONFIGS)
def test_one_process_goes_on_bit_for_bit(runs: Path, name: str, tmp_path: Path) -> None:
    shutil.copytree(runs / name / "one", tmp_path / "out")
    keep_until(tmp_path / "out", 6)
    manifest = runs / "made/build/manifest.json"
    with pytest.MonkeyPatch.context() as patch:
        watched.watch(patch)
        watched.plant(patch, BAD)
        run(CONFIGS[name], manifest, pool_of(manifest), tmp_path / "out")
    before, again = metrics(runs / name / "one"), metrics(tmp_path / "out")
    for ours, theirs in zip(again, before, strict=True):
        measured = ("data_seconds", "compute_seconds", "tokens_per_second", "memory_bytes")
        assert {k: v for k, v in ours.items() if k not in measured} == {
            k: v for k, v in theirs.items() if k not in measured
        }
    states = [state_of(last(out)) for out in (runs / name / "one", tmp_path / "out")]
    assert all(torch.equal(states[1][key], tensor) for key, tensor in states[0].items())


@pytest.mark.parametrize("out", ["one", "many"])
def test_a_part_that_is_not_trained_stays_and_is_in_no_checkpoint(runs: Path, out: str) -> None:
    state = state_of(last(runs / "frozen" / out))
    assert not [key for key in state if "vision_tower" in key]
    assert {"weight/projector.learned", "exp_avg/projector.learned"} <= state.keys()
    record = json.loads((last(runs / "frozen" / out) / checkpoint.COMMITTED).read_text())
    assert record["frozen"].keys() == {"tower"}
    assert record["frozen"]["tower"]["source"] == "{random: 0}"
    assert len(record["frozen"]["tower"]["sha256"]) == 64
    rules = rules_of(runs / "made/build/manifest.json")[1]
    start = build_model(CONFIGS["frozen"], rules)
    saved = load_saved(runs / "frozen" / out / "model").model
    for key, weight in saved.vision_tower.named_parameters():
        assert torch.equal(start.vision_tower.get_parameter(key), weight), key


def test_each_part_has_its_own_rate(runs: Path) -> None:
    for row in metrics(runs / "frozen/one"):
        assert row["lr_projector"] == pytest.approx(4 * row["lr_decoder"])
        assert "lr_tower" not in row


def test_a_frozen_part_of_other_weights_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "frozen/one", tmp_path / "out")
    keep_until(tmp_path / "out", 6)
    note = tmp_path / "out/checkpoints/step-00000006" / checkpoint.COMMITTED
    record = checkpoint.ENVELOPE.unseal(note.read_bytes(), str(note))
    record["frozen"]["tower"] = {"source": "elsewhere", "sha256": "0" * 64}
    note.write_bytes(checkpoint.ENVELOPE.seal(record))
    manifest = runs / "made/build/manifest.json"
    with pytest.raises(UserError, match=r"over the tower of elsewhere \(sha256 000000000000\)"):
        run(CONFIGS["frozen"], manifest, pool_of(manifest), tmp_path / "out")


@pytest.mark.parametrize("out", ["one", "many"])
def test_bf16_keeps_master_weights_and_learns_as_fp32_does(runs: Path, out: str) -> None:
    state = state_of(last(runs / "bf16" / out))
    model = load_saved(runs / "bf16" / out / "model").model
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    finer = 0
    for name, weight in model.named_parameters(remove_duplicate=True):
        assert weight.dtype == torch.bfloat16
        assert torch.equal(state[f"weight/{name}"].bfloat16(), weight), name
        finer += not torch.equal(state[f"weight/{name}"], weight.float())
    assert finer > 10  # the masters hold more than the model's weights
    losses = [row["loss"] for row in metrics(runs / "bf16" / out)]
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("out", ["one", "many"])
def test_a_step_with_a_gradient_of_nan_is_not_taken_and_named(
    runs: Path, name: str, out: str
) -> None:
    folder = runs / name / out
    for row in metrics(folder):
        assert (row["objection"] is not None) == (row["step"] in BAD)
        assert (row["grad_norm"] is None) == (row["step"] in BAD) and row["loss"] is not None
    named = rows(folder / SKIPPED)
    assert [row["step"] for row in named] == sorted(BAD)
    for row in named:
        taken = {sample["key"] for sample in row["samples"]}
        assert len(row["samples"]) == metrics(folder)[row["step"] - 1]["samples"] and taken
        assert {sample["source"] for sample in row["samples"]} <= {"pictures", "clips"}
    record = json.loads((last(folder) / checkpoint.COMMITTED).read_text())
    assert (record["step"], record["updates"]) == (STEPS, STEPS - len(BAD))
    assert record["guard"]["skipped"] == len(BAD)
    state = state_of(last(folder))
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_by_default_the_run_ends_at_a_step_that_is_not_taken(runs: Path, tmp_path: Path) -> None:
    manifest = runs / "made/build/manifest.json"
    with pytest.MonkeyPatch.context() as patch:
        watched.plant(patch, BAD)
        with pytest.raises(UserError, match=r"step 4: its gradient norm is nan; it was not taken"):
            run(replace(SHARED), manifest, pool_of(manifest), tmp_path)
        config = replace(SHARED, guard=Guard(policy="skip", at_most=1))
        with pytest.raises(UserError, match=r"step 7: .*skipped.jsonl"):
            run(config, manifest, pool_of(manifest), tmp_path)
    assert [row["step"] for row in rows(tmp_path / SKIPPED)] == sorted(BAD)
    run(config, manifest, pool_of(manifest), tmp_path)  # from step 6, whatever was wrong is gone
    assert [row["step"] for row in rows(tmp_path / SKIPPED)] == [4]


def test_states_in_bf16_are_for_one_process(runs: Path, tmp_path: Path) -> None:
    manifest = runs / "made/build/manifest.json"
    config = replace(SHARED, precision="bf16", optimizer_state="bf16", optimizer=Optimizer())
    run(config, manifest, pool_of(manifest), tmp_path)
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert losses[-1] < losses[0]
    record = json.loads((last(tmp_path) / checkpoint.COMMITTED).read_text())
    assert record["optimizer_state"] == "bf16"
