"""What clusters install: pinned, by digest, nothing missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SETUPS = ("ray_cluster.yaml", "docs/ray_cluster_local.yaml", "docs/ray_cluster_gcp.yaml")


def entries(name: str) -> dict[str, Requirement]:
    """Name -> requirement of a lock; every entry must have a sha256."""
    text = (ROOT / f"locks/{name}.txt").read_text()
    found = {}
    for entry in re.split(r"\n(?=[^\s#])", text.partition("\n")[2]):
        pin, *hashes = entry.replace("\\\n", "").split("--hash=")
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", each) for each in hashes), pin
        requirement = Requirement(pin)
        package = canonicalize_name(requirement.name)
        # where Pythons need several pins, this one's
        if package not in found or (requirement.marker and requirement.marker.evaluate()):
            found[package] = requirement
    return found


def version(requirement: Requirement) -> str:
    (only,) = requirement.specifier
    assert only.operator == "=="
    return only.version


def test_every_pin_is_locked_as_it_stands() -> None:
    locked = entries("all") | entries("torch") | entries("build") | entries("cuda")
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        pinned = Requirement(line)
        found = locked[canonicalize_name(pinned.name)]
        assert version(found) == version(pinned), "run python -m tests.write_locks"


@pytest.mark.parametrize(("lock", "extras"), [("run", ()), ("all", ("demo", "dev")), ("lmms", ())])
def test_every_requirement_is_met_by_its_lock(lock: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    more = [line for extra in extras for line in project["optional-dependencies"][extra]]
    locked = (entries("torch") if lock == "all" else {}) | entries(lock)
    for line in [*project["dependencies"], *more]:
        asked = Requirement(line)
        if (lock, asked.name) == ("lmms", "torch"):
            continue  # lmms-eval's own, with torchvision
        found = locked[canonicalize_name(asked.name)]
        assert asked.specifier.contains(version(found)), f"{line}: run python -m tests.write_locks"


def test_one_release_of_a_package_on_clusters_and_at_home() -> None:
    everything = entries("all") | entries("torch")
    for name, requirement in entries("run").items():
        assert version(everything[name]) == version(requirement)


def test_both_builds_of_torch_are_one_release() -> None:
    (cpu,) = entries("torch_cpu").values()
    (cuda,) = entries("torch").values()
    assert version(cpu) == f"{version(cuda)}+cpu"


def test_setup_installs_nothing_without_its_digest() -> None:
    text = (ROOT / "Makefile").read_text()
    locked = re.search(r"^LOCKED = -m pip install (.*)", text, re.MULTILINE)
    assert locked and "--require-hashes --no-deps" in locked.group(1)
    recipe = text.partition("$(READY): ")[2].partition("\ntools:")[0]
    # what is not in a lock is this project itself
    (own,) = re.findall(r"pip install.*", recipe)
    assert own.endswith("--no-deps --no-build-isolation --editable .")


@pytest.mark.parametrize("name", SETUPS)
def test_a_cluster_installs_nothing_without_its_digest(name: str) -> None:
    installs = re.findall(r"pip install[^&\n]*", (ROOT / name).read_text())
    assert installs and all("--require-hashes --no-deps" in each for each in installs)
