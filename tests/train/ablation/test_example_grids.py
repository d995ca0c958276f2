"""The grids of examples/: each can be read, and says what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.ablation.grid import load_grid
from train.ablation.variants import Resolved, resolve, shares_of
from train.model.projectors import ARRANGEMENTS, PROJECTORS, check_idle

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths of these grids are those of a checkout."""
    monkeypatch.chdir(ROOT)


def variants(name: str) -> dict[str, Resolved]:
    path = Path(f"examples/{name}.yaml")
    return {one.name: one for one in resolve(load_grid(path), str(path))}


def test_every_projector_is_trained_over_its_own_arrangement() -> None:
    found = variants("projectors")
    assert {*found} == {*PROJECTORS, "memory"} - {"gsf"} | {"base"}
    for name, one in found.items():
        projector = "gsf" if name in ("base", "memory") else name
        assert one.config.projector == projector
        assert one.recipe.layout.arrangement == ARRANGEMENTS.get(projector, "gsf")
        check_idle(one.recipe.layout)
    assert found["memory"].recipe.layout.memory_tokens > 0


def test_the_floors_show_one_pathway_or_none() -> None:
    found = {name: one.recipe.layout.pathways for name, one in variants("floors").items()}
    assert found == {"base": "both", "slow_only": "slow", "fast_only": "fast", "no_vision": "none"}


def test_the_mixtures_are_enough_for_a_suggestion() -> None:
    found = variants("mixtures_grid")
    shares = [tuple(shares_of(one, found["base"]).values()) for one in found.values()]
    assert len(set(shares)) == 25 and {sum(one) for one in shares} == {1}
    assert {len(one) for one in shares} == {4}


def test_make_ablation_has_eight_variants() -> None:
    assert len(variants("ablation")) == 8
