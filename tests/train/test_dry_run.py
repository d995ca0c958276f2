"""`--dry-run`: what a run would take is told of the model that the run would build."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from mixtures.console import Console
from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG, TINY
from train.__main__ import parser, run
from train.config import Config, Stop
from train.data.render import Rules
from train.dry_run import dry_run, outline
from train.model_folder import build_model
from train.sizing.tracing import MODEL


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_manifest(tmp_path_factory.mktemp("tiny"))


def told(config: Config, manifest: Path | None) -> str:
    console = Console(file=io.StringIO(), width=160)
    found = None if manifest is None else load_manifest(manifest)
    for part in dry_run(config, found, str(manifest)):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_traced_is_what_a_run_builds(built: Path) -> None:
    manifest = load_manifest(built)
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    model = build_model(TINY, rules)
    assert type(model) is MODEL
    assert outline(TINY, manifest, str(built)).model.to_dict() == model.config.to_dict()


def test_steps_tokens_hours_and_memory_of_a_manifest(built: Path) -> None:
    totals = load_manifest(built).contents.totals
    epochs = replace(TINY, stop=Stop(epochs=2), micro_batch=1, engine="deepspeed")
    text = told(epochs, built)
    packs = load_manifest(built).contents.packs
    steps = -(-2 * packs // epochs.global_batch)
    assert text.startswith(f"{steps} steps of 4 packs")
    tokens = totals.tokens * steps * epochs.global_batch / packs
    for said in ("pictures", "clips", f"{tokens:,.0f}", "40% MFU of 989", "1 ranks", "8 ranks"):
        assert said in text
    for said in (
        "master weights",
        "Adam moments",
        "tower, forward",
        "decoder, backward",
        "fullest",
    ):
        assert said in text


def test_without_a_manifest_what_is_made_up_is_said() -> None:
    small = replace(TINY, tower_chunk=1 << 18, micro_batch=1)
    text = told(small, None)
    assert "12 steps of 4 packs" in text and "no --manifest: tokens and hours are unknown" in text
    assert "32,768 tokens, 221,184 patches of 384 frames" in text
    assert "memory of each of 1 ranks" in text and "8 ranks" not in text


def test_a_run_wants_a_manifest_and_a_place(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    with pytest.raises(UserError, match="give --manifest and --out, or --dry-run"):
        run(parser().parse_args(["run", str(tmp_path / "run.yaml"), "--out", str(tmp_path)]))
