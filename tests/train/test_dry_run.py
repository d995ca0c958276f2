"""`--dry-run`: what a run would take is told of the model that the run would build."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mixtures.console import Console
from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import CONFIG, TINY, metrics, pool_of
from train.__main__ import parser, run
from train.adapter import Adapter
from train.config import Config, Part, Stop
from train.data.render import Rules
from train.dry_run import dry_run, operations, outline
from train.loop import run as train
from train.model_folder import build_model
from train.schedule import share_of, total_steps
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
    text = told(replace(TINY, stop=Stop(epochs=2), micro_batch=1, engine="deepspeed"), built)
    manifest = load_manifest(built)
    steps = total_steps(Stop(epochs=2), manifest, TINY.global_batch)
    assert text.startswith(f"{steps} steps of 4 packs")
    tokens = manifest.contents.totals.tokens * share_of(manifest, 4 * steps)
    for said in (
        *("pictures", "clips", f"{float(tokens):,.0f}", "40% MFU of 989", "1 ranks", "8 ranks"),
        *("master weights", "Adam moments", "tower, forward", "decoder, backward", "fullest"),
    ):
        assert said in text


def test_tokens_are_those_that_a_run_takes(built: Path, tmp_path: Path) -> None:
    (row,) = re.findall(r"^ all +(\S+) +(\S+)", told(TINY, built), re.M)
    train(TINY, built, pool_of(built), tmp_path / "out")
    taken = metrics(tmp_path / "out")
    for said, name in zip(row, ("samples", "tokens"), strict=True):
        # packs hold what they hold: of 48 of them the mean is near that of the first window
        assert int(said.replace(",", "")) == pytest.approx(
            sum(row[name] for row in taken), rel=0.03
        )


def test_hours_are_those_of_what_is_trained(built: Path) -> None:
    manifest = load_manifest(built)

    def hours(**parts: Part) -> float:
        config = replace(TINY, parts=replace(TINY.parts, **parts))
        return operations(outline(config, manifest, ""), manifest)

    frozen = Part(train=False)
    adapted = Part(adapter=Adapter(rank=2))
    tower = hours() - hours(tower=frozen)
    # an adapter's matrix has no gradient of its own: two passes of three
    decoder = hours() - hours(decoder=adapted)
    assert tower > 0 and decoder > 0
    assert hours(tower=frozen, decoder=adapted) == pytest.approx(hours() - tower - decoder)
    assert hours(decoder=adapted) == hours(decoder=frozen)


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
