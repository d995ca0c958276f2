"""The house keeps its shape: which room imports which, how long files are, which names are ours."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "shards": set(),
    "mixtures": {"shards"},
    "pipeline": {"mixtures", "shards"},
    "train": {"mixtures", "shards"},
}
HEAVY = {"ray", "torch", "transformers", "ffmpeg", "deepspeed", "torchvision"}
FORBIDDEN = {
    "shards": HEAVY,
    "mixtures": HEAVY,
    "pipeline": {"torch", "transformers", "deepspeed", "torchvision"},
    "train": {"ray", "ffmpeg", "torchvision"},
}
# what a model is asked about is opened exactly as what it was trained on
DOOR_USERS = "train/evaluation/"
DOOR = tuple(f"pipeline.{part}" for part in ("media", "frames", "decoded", "video", "fingerprints"))
BANNED_NAMES = {"utils", "helpers", "common", "base", "manager"}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    bad = []
    for path in files(room):
        name = str(path.relative_to(ROOT))
        for module in sorted(set(imports(path))):
            top = module.split(".")[0]
            wrong_room = top in ROOMS and top != room and top not in ROOMS[room]
            at_the_door = name.startswith(DOOR_USERS) and module.startswith(DOOR)
            on_ray = (name, top) == ("train/on_ray.py", "ray")
            if (wrong_room or top in FORBIDDEN[room]) and not (at_the_door or on_ray):
                bad.append(f"{name} imports {module}")
    assert not bad


def test_only_cluster_knows_ray() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in files("pipeline")
        for module in imports(path)
        if module.split(".")[0] == "ray"
    }
    assert users == {"pipeline/jobs/ray_executor.py"}


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in [path for room in ROOMS for path in files(room)]:
        text = path.read_text()
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno
                if lines > LONGEST_FUNCTION:
                    long.append(
                        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines"
                    )
    assert not long


def test_no_module_has_a_name_without_a_purpose() -> None:
    assert not [path for room in ROOMS for path in files(room) if path.stem in BANNED_NAMES]


def test_our_names_are_ours() -> None:
    owners = importlib.metadata.packages_distributions()
    assert all(set(owners.get(room, [])) <= {"slowfast-mix"} for room in ROOMS)


def test_the_imported_packages_are_this_checkout() -> None:
    import mixtures
    import shards

    assert all(Path(str(room.__file__)).is_relative_to(ROOT) for room in (mixtures, shards))


def test_every_imported_package_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    used = {
        module.split(".")[0] for room in ROOMS for path in files(room) for module in imports(path)
    }
    names = {"yaml": "pyyaml", "PIL": "pillow", "ffmpeg": "ffmpeg-python"}
    outside = used - set(ROOMS) - set(sys.stdlib_module_names)
    missing = [name for name in sorted(outside) if names.get(name, name) not in text]
    assert not missing
