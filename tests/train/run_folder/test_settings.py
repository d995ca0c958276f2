"""The config as resolved says all that the run did, and is read as the same run."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from tests.support.tiny_run import TINY
from train.config import Config, Part, Parts, Schedule, Stochastic, Stop, load_config
from train.run_folder.settings import by_place, deciding, differences, resolved
from train.run_keys import Keep

CONFIGS = sorted((Path(__file__).parents[3] / "train/configs").glob("*.yaml"))
EXACT = {
    "shares": Config(
        schedule=Schedule(kind="wsd", warmup=Fraction(1), decay=Fraction(1, 30)),
        stop=Stop(epochs=Fraction(3, 2)),
        stochastic=Stochastic(keep=Fraction(1, 8), seed=2),
    ),
    "frozen": Config(parts=Parts(tower=Part(train=False, init="a folder"), decoder=Part(lr=3e-7))),
    "tiny": TINY,
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_itself_when_resolved(tmp_path: Path, path: Path) -> None:
    config = load_config(path)
    (tmp_path / "config.yaml").write_text(resolved(config))
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", EXACT)
def test_every_value_is_kept_to_its_last_digit(tmp_path: Path, name: str) -> None:
    config = EXACT[name]
    (tmp_path / "config.yaml").write_text(resolved(config))
    again = load_config(tmp_path / "config.yaml")
    idle = {"schedule": again.schedule} if config.schedule.kind != "wsd" else {}
    assert again == replace(config, **idle)
    assert (again.schedule.warmup, again.schedule.kind, again.schedule.floor) == (
        config.schedule.warmup,
        config.schedule.kind,
        config.schedule.floor,
    )


def test_what_decides_the_run_is_told_by_its_place() -> None:
    plain = deciding(Config())
    assert plain["parts: decoder: lr"] == "0.001" and plain["parts: tower: init"] == "{random: 0}"
    assert plain == deciding(Config(save_every=3, workers=0, cache_mib=1, keep=Keep(last=9)))
    assert plain == deciding(Config(engine="deepspeed", zero_stage=3, micro_batch=1))
    again = Parts(tower=Part(checkpoint=True), decoder=Part(checkpoint=True))
    assert plain == deciding(Config(parts=again, tower_chunk=1))
    assert deciding(Config(projector="isf")) == plain | {"projector": "isf"}
    drawn = deciding(Config(stochastic=Stochastic(keep=Fraction(1, 4), seed=1)))
    assert drawn == plain | {"stochastic: keep": "1/4", "stochastic: seed": "1"}
    frozen = deciding(Config(parts=Parts(tower=Part(train=False))))
    assert "parts: tower: init" not in frozen and frozen["parts: tower: train"] == "False"


def test_what_differs_is_named_with_both_values() -> None:
    trees = {"a": 1, "b": {"c": [1, {"d": "x"}]}}, {"a": 1, "b": {"c": [2, {"d": "x"}], "e": 0}}
    left, right = (dict(by_place(tree)) for tree in trees)
    assert left == {"a": "1", "b: c[0]": "1", "b: c[1]: d": "x"}
    assert list(differences(left, right)) == [
        "b: c[0]: saved with 1, this run has 2",
        "b: e: saved with nothing, this run has 0",
    ]
