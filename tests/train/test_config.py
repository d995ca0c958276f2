from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mixtures.tokens.layout_types import LayoutConfig
from shards.errors import UserError
from train.config import Config, check_layout, load_config
from train.moved_keys import MOVED
from train.schedule import check_schedule

CONFIGS = sorted((Path(__file__).parents[2] / "train" / "configs").glob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == Config()


def test_nested_values_override_defaults(tmp_path: Path) -> None:
    config = load_config(
        write(
            tmp_path,
            "stop: {steps: 7}\noptimizer: {clip: 2, betas: [0.9, 0.95]}\ntext: {hidden_size: 64}",
        )
    )
    assert (config.stop.steps, config.optimizer.clip, config.optimizer.betas) == (
        7,
        2,
        (0.9, 0.95),
    )
    assert config.text == replace(Config().text, hidden_size=64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stopp: {steps: 3}", "unknown key 'stopp'; did you mean 'stop'"),
        ("optimizer: {clib: 1}", "optimizer: unknown key 'clib'; did you mean 'clip'"),
        ("layout: {slow_frame: 4}", "layout: unknown key 'slow_frame'"),
        ("stop: {steps: many}", "stop: steps: must be an integer of at least 1, not 'many'"),
        ("stop: {steps: true}", "stop: steps: must be an integer of at least 1, not true"),
        ("stop: {steps: 0}", "stop: steps: must be an integer of at least 1, not 0"),
        ("stop: {steps: -1}", "stop: steps: must be an integer of at least 1, not -1"),
        ("engine: jax", "engine: must be one of torch, deepspeed"),
        ("zero_stage: 4", "zero_stage: must be one of 1, 2, 3"),
        ("optimizer: {betas: [0.9]}", "betas: must be a list of 2, each a number above 0, not"),
        ("optimizer: 3", "optimizer: must be a mapping"),
        ("parts: {tower: {lr: 0}}", "lr: must be a number above 0, not 0"),
        ("parts: {decoder: {lr: 1e400}}", r"lr: must be a number above 0, not 1E\+400"),
        ("schedule: {floor: -0.1}", "floor: must be 0, or a number above 0, not -0.1"),
        ("optimizer: {betas: [1, 2, 3]}", "betas: must be a list of 2"),
        ("optimizer: {betas: [0.9, x]}", r"betas\[1\]: must be a number above 0, not 'x'"),
        ("vision: {antialias: 1}", "antialias: must be true or false, not 1"),
        ("vision: {antialias: 'true'}", "antialias: must be true or false, not 'true'"),
        ("zero_stage: 2.0", "zero_stage: must be one of 1, 2, 3, not 2.0"),
        ("layout: {patch: 14}", "layout: patch: must be one of 16, not 14"),
        ("layout:", "layout: is empty"),
    ],
)
def test_a_wrong_value_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


def test_all_mistakes_of_a_config_are_named_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path, "stopp: 3\noptimizer: {clip: fast, clop: 1}\nglobal_batch: -1\nengine: jax"
    )
    with pytest.raises(UserError) as raised:
        load_config(path)
    assert str(raised.value).split("\n") == [
        f"{path}: unknown key 'stopp'; did you mean 'stop'?",
        f"{path}: optimizer: unknown key 'clop'; did you mean 'clip'?",
        f"{path}: optimizer: clip: must be a number above 0, not 'fast'",
        f"{path}: global_batch: must be an integer of at least 1, not -1",
        f"{path}: engine: must be one of torch, deepspeed, not 'jax'",
    ]


def test_a_key_of_before_is_an_error_that_names_the_new_one(tmp_path: Path) -> None:
    text = (
        "init_from: a\nsteps: 7\nseed: 1\n"
        "optimizer: {lr: 1, weight_decay: 1, warmup_steps: 1, schedule: cosine, floor: 1}"
    )
    with pytest.raises(UserError) as raised:
        load_config(write(tmp_path, text))
    lines = str(raised.value).split("\n")
    assert len(lines) == len(MOVED)
    for line, (place, now) in zip(lines, MOVED.items(), strict=True):
        assert f"the key {place[-1]!r} is no more; write {now}" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stop: {steps: 3, epochs: 1}", "stop: says steps and epochs; write one of"),
        ("stop: {}", "stop: says nothing; write one of"),
        ("parts: {tower: {init: {random: -1}}}", "init: must be a folder, hf://"),
        ("parts: {tower: {init: {seed: 1}}}", "init: must be a folder, hf://"),
        ("stochastic: {keep: 5/4}", "keep: must be a share above 0 and up to 1"),
        ("stochastic: {keep: 1/0}", "keep: must be a share above 0 and up to 1"),
        ("stochastic: {keep: 2/3}", "keep: 2/3 is not 1/N; write 1/4"),
        ("stochastic: {keep: 1/4}\nparts: {tower: {train: false}}", "the tower is not trained"),
        ("parts: {tower: {train: false, checkpoint: true}}", "checkpoint: does nothing under"),
        ("parts: {projector: {checkpoint: true}}", "it keeps next to nothing"),
        ("save_every: 20\nkeep: {every: 30}", "every: 30 is no multiple of `save_every: 20`"),
        ("keep: {last: 0}", "last: must be an integer of at least 1"),
        ("keep: {best: 1}", "every checkpoint needs its held-out loss; write `held_out`"),
        ("keep: {best: 1}\nsave_every: 50\nheld_out: {manifest: m, every: 20}", "that divides"),
        ("held_out: {every: 5}", "held_out: the key 'manifest' is missing"),
        ("tower_chunk: 0", "tower_chunk: must be an integer of at least 1"),
        ("schedule: {warmup: -1}", "warmup: must be a count, or a share"),
        ("deterministic: 1", "deterministic: must be one of true, false, auto"),
    ],
)
def test_what_keys_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, text))


def test_a_layout_that_differs_from_the_manifest_names_both_values() -> None:
    layout = LayoutConfig(slow_frames=4)
    check_layout(Config(), layout, "m.json")
    check_layout(Config(layout=layout), layout, "m.json")
    with pytest.raises(
        UserError, match=r"layout: slow_frames: the config says 32, .*m.json says 4"
    ):
        check_layout(Config(layout=LayoutConfig()), layout, "m.json")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configs_load(path: Path) -> None:
    config = load_config(path)
    check_schedule(config.schedule, config.stop.steps or 1000)
    assert path.read_text().startswith("#")
