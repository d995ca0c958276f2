"""Units ask Ray for memory, and never for more than any machine has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.jobs import ray_executor
from pipeline.jobs.ray_executor import RayWorkers


@pytest.mark.parametrize(("memory", "asked"), [(0, 0), (400, 400), (600, 500)])
def test_a_unit_asks_for_what_the_largest_machine_has_at_most(
    memory: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [(True, {"memory": 500.0}), (True, {"CPU": 2.0}), (False, {"memory": 9000.0})]
    found = [{"Alive": alive, "Resources": resources} for alive, resources in nodes]
    monkeypatch.setattr("ray.nodes", lambda: found)
    monkeypatch.setattr(ray_executor, "_cpus", lambda: 2)
    said: list[int] = []

    def remote(_: RayWorkers, function: Callable[..., int], cpus: int, memory: int = 0) -> None:
        said.append(memory)

    monkeypatch.setattr(RayWorkers, "_remote", remote)
    assert list(RayWorkers().map(abs, list[int](), memory)) == []
    assert said == [asked]
