"""Checkpoints stand alone: what was trained is resumed, exported and branched off from them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shards.errors import DamagedData, UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, exact, metrics, pool_of
from train.__main__ import parser
from train.config import Config, Part, Parts, Schedule, Stop
from train.engine import checkpoint
from train.engine.interface import distinct_weights
from train.engine.state_files import read_weights
from train.export import export_any, in_one_step
from train.loop import run
from train.model_folder import load_saved
from train.named_files import by_part
from train.weights.folder_json import read_description

STEPS = 6


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def base(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to start from."""
    out = tmp_path_factory.mktemp("base")
    run(replace(TINY, stop=Stop(steps=2), schedule=Schedule(warmup=1)), built, pool_of(built), out)
    return out / "model"


def config_of(base: Path) -> Config:
    """Tower and decoder from `base`, the tower not trained; bf16, so that export rounds."""
    parts = Parts(
        tower=Part(init=str(base), train=False),
        projector=Part(lr=5e-3),
        decoder=Part(init=str(base), lr=5e-3),
    )
    stop = Stop(steps=STEPS)
    return replace(TINY, parts=parts, stop=stop, save_every=3, precision="bf16")


@pytest.fixture(scope="module")
def unbroken(built: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    assert run(config_of(base), built, pool_of(built), out) == 0
    return out


def step(out: Path, number: int) -> Path:
    return out / "checkpoints" / f"step-{number:08d}"


def stopped_at_3(unbroken: Path, out: Path) -> Path:
    """The run as it was when it had three steps behind it."""
    shutil.copytree(unbroken, out)
    for name in ("model", "checkpoints/step-00000006"):
        shutil.rmtree(out / name)
    (out / "run.json").unlink()
    return out


def same(left: Path, right: Path) -> bool:
    one, other = (distinct_weights(load_saved(folder).model) for folder in (left, right))
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_checkpoint_is_exported_as_the_model_that_the_run_left(
    unbroken: Path, base: Path, tmp_path: Path
) -> None:
    count = export_any(step(unbroken, 6), tmp_path / "model", None, {})
    assert same(tmp_path / "model", unbroken / "model")
    saved = load_saved(tmp_path / "model").model
    assert count == sum(p.numel() for p in saved.parameters()) and saved.dtype == torch.bfloat16
    trained = dict(read_weights(step(unbroken, 6)))
    for name, weight in saved.named_parameters(remove_duplicate=True):
        if name in trained:
            assert torch.equal(trained[name].bfloat16(), weight), name
        else:
            assert name.startswith("vision_tower."), name
    first = load_saved(base).model.vision_tower.state_dict()
    for name, weight in saved.vision_tower.state_dict().items():
        assert torch.equal(first[name].bfloat16(), weight), name
    export_any(step(unbroken, 3), tmp_path / "earlier", None, {})
    assert not same(tmp_path / "earlier", unbroken / "model")


def test_a_model_says_what_it_was_made_of(unbroken: Path, base: Path) -> None:
    card = (unbroken / "model/README.md").read_text()
    manifest_id = read_description(unbroken / "model")["manifest_id"]
    for told in (f"step {STEPS}", f"- tower: {base}", "| clips | d | mit |", manifest_id):
        assert told in card


def test_what_is_exported_is_on_the_disk_before_it_has_its_name(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr("train.export.fsync", lambda path: synced.append((path.name, out.exists())))
    export_any(step(unbroken, 6), out, None, {})
    before = {name for name, has_its_name in synced if not has_its_name}
    assert before == {path.name for path in out.iterdir()} | {".model.tmp"}
    # and the name itself, in the folder that it stands in
    assert synced[-1] == (tmp_path.name, True)


def test_a_kill_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    def killed() -> None:
        with in_one_step(tmp_path / "adapter") as folder:
            (folder / "adapter_model.safetensors").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert not (tmp_path / "adapter").exists()
    # what the kill left is no part of the next try
    with in_one_step(tmp_path / "adapter") as folder:
        assert not list(folder.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_export_refuses_what_it_cannot_vouch_for(unbroken: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="is there already"):
        export_any(step(unbroken, 6), tmp_path / "there", None, {})
    with pytest.raises(UserError, match="no checkpoint"):
        export_any(unbroken, tmp_path / "new", None, {})
    places = {"tower": str(step_model := unbroken / "model")}
    # the same values were rounded there already: the same digest
    export_any(step(unbroken, 6), tmp_path / "new", None, places)
    assert same(tmp_path / "new", step_model)
    with pytest.raises(UserError, match=r"not the tower that .* was trained over .* --init tower="):
        export_any(step(unbroken, 6), tmp_path / "other", None, {"tower": "{random: 5}"})
    assert not (tmp_path / "other").exists()
    torn = shutil.copytree(step(unbroken, 6), tmp_path / "step-00000006")
    state = torn / "state-00000.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedData, match=r"state-00000\.safetensors: not the bytes"):
        export_any(torn, tmp_path / "other", None, {})


def test_what_transformers_saved_becomes_a_model_folder(unbroken: Path, tmp_path: Path) -> None:
    model = load_saved(unbroken / "model").model
    with torch.no_grad():
        model.projector.learned.add_(1)
    model.save_pretrained(tmp_path / "merged")
    export_any(tmp_path / "merged", tmp_path / "ours", unbroken / "model", {})
    ours = load_saved(tmp_path / "ours").model
    assert torch.equal(ours.projector.learned, model.projector.learned)
    assert ours.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_a_resume_needs_the_parts_that_are_not_trained_and_no_others(
    built: Path, base: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = stopped_at_3(unbroken, tmp_path / "out")
    config = config_of(base)
    gone = replace(config.parts.decoder, init=str(tmp_path / "gone"))
    moved = replace(config.parts.tower, init=str(shutil.copytree(base, tmp_path / "moved")))
    config = replace(config, parts=replace(config.parts, decoder=gone, tower=moved))
    assert run(config, built, pool_of(built), out) == 0
    assert exact_but_rates(out) == exact_but_rates(unbroken)
    assert same(out / "model", unbroken / "model")
    assert checkpoint.read(step(out, 6)).bases["decoder"] == str(base)
    out = stopped_at_3(unbroken, tmp_path / "again")
    lost = replace(config.parts, tower=replace(moved, init=str(tmp_path / "gone")))
    with pytest.raises(UserError, match=r"gone: no such file or folder"):
        run(replace(config, parts=lost), built, pool_of(built), out)


def exact_but_rates(out: Path) -> list[tuple[object, ...]]:
    return exact(metrics(out))


def test_a_branch_goes_on_under_another_config_or_manifest(
    built: Path, base: Path, unbroken: Path, tmp_path: Path
) -> None:
    config = config_of(base)
    branch = step(unbroken, 3)
    assert run(config, built, pool_of(built), tmp_path / "same", branch) == 0
    # nothing changed: the same steps
    assert exact(metrics(tmp_path / "same")) == exact(metrics(unbroken))[3:]
    slower = replace(config, parts=replace(config.parts, decoder=Part(lr=1e-4)))
    assert run(slower, built, pool_of(built), tmp_path / "slower", branch) == 0
    rows = metrics(tmp_path / "slower")
    assert [row["step"] for row in rows] == [4, 5, 6] and rows[0]["lr_decoder"] <= 1e-4
    assert checkpoint.read(step(tmp_path / "slower", 6)).branch == str(branch)
    other = tiny_manifest(tmp_path / "other", seed=9)
    assert run(config, other, pool_of(other), tmp_path / "seed", branch) == 0
    assert exact(metrics(tmp_path / "seed")) != exact(metrics(unbroken))[3:]
    # a run that has begun goes on from its own checkpoints
    assert run(config, other, pool_of(other), tmp_path / "seed", branch) == 0
    # another one would be left unread
    with pytest.raises(UserError, match=f"went on from {branch}, not from {tmp_path}"):
        run(config, other, pool_of(other), tmp_path / "seed", tmp_path / "step-00000001")


def test_a_branch_is_refused_where_the_weights_are_for_another_model(
    built: Path, base: Path, unbroken: Path, tmp_path: Path
) -> None:
    config = config_of(base)
    branch = step(unbroken, 3)
    all_trained = replace(config.parts, tower=Part(init=str(base)))
    stamped = tiny_manifest(tmp_path / "stamped", timestamps="per_frame_text")
    cases = [
        (replace(config, parts=all_trained), built, "parts: tower: train: saved with False, this"),
        (config, stamped, "layout: timestamps: saved with none, this run has per_frame_text"),
        (
            replace(config, stop=Stop(steps=3), schedule=Schedule(warmup=1)),
            built,
            "step 3 of the checkpoint, the run would end",
        ),
    ]
    for changed, manifest, message in cases:
        with pytest.raises(UserError, match=f"--branch .*step-00000003: {message}"):
            run(changed, manifest, pool_of(manifest), tmp_path / "out", branch)


def test_parts_are_named_on_the_command_line() -> None:
    words = ["run", "c", "--manifest", "m", "--out", "o", "--init", "tower=a", "decoder=b=c"]
    assert by_part(parser().parse_args(words).init) == {"tower": "a", "decoder": "b=c"}
    for wrong in ("towr=a", "tower", "tower="):
        with pytest.raises(UserError, match="write PART=FOLDER"):
            by_part([wrong])
