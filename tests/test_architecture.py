"""The house keeps its shape: which room imports which, how long files are, which names are ours.

Every rule is a function from a tree to its offences, each of which begins with the offending file;
the last tests feed made trees to the same functions and see the offence named.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import measure
from tests.measure import Module

ROOT = Path(__file__).resolve().parent.parent
PACKAGES: dict[str, set[str]] = {
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
    "train": {"ffmpeg", "torchvision"},
}
# each room, or file at a package's root, and what it may import: only what stands above it
ROOMS = {
    "pipeline": {
        "untrusted": "",
        "names": "",
        "details": "",
        "archives": "untrusted names",
        "fetch": "names",
        "media": "names",
        "dedup": "media",
        "sources": "untrusted names archives fetch",
        "scorers": "",
        "stages": "untrusted names details archives fetch media dedup sources scorers",
        "jobs": "archives fetch media sources stages",
        "report": "",
        "failed_build": "report",
        "lock": "fetch media sources",
        "checks": "fetch media sources stages",
        "build": "fetch media stages jobs failed_build lock checks",
        "rebuild": "fetch sources lock build",
        "conversation": "",
        "survey": "names sources",
        "first_recipe": "survey",
        "survey_told": "conversation survey first_recipe",
        "shown_sample": "",
        "contact_sheet": "shown_sample",
        "upkeep": "",
        "pool_commands": "jobs upkeep",
        "show_command": "conversation report shown_sample contact_sheet",
        "console_script": "",
        "__main__": "media sources jobs report checks build rebuild survey first_recipe "
        "survey_told show_command pool_commands",
    },
    "mixtures": {
        "versions": "",
        "sums": "",
        "keys": "",
        "order": "versions",
        "tokens": "versions keys",
        "recipe": "keys tokens",
        "manifest": "versions sums order tokens recipe",
        "pool": "sums tokens recipe manifest",
        "selection": "versions order recipe manifest pool",
        "plan": "versions sums order tokens recipe manifest pool selection",
        "diff": "manifest pool",
        "console": "",
        "__main__": "console recipe manifest plan diff",
    },
    "train": {
        "json_files": "",
        "named_files": "",
        "ranks": "",
        "run_keys": "",
        "adapter": "",
        "moved_keys": "",
        "config": "run_keys adapter moved_keys",
        "schedule": "config",
        "guard": "config",
        "data": "",
        "model": "data",
        "weights": "config data model",
        "engine": "json_files ranks run_keys adapter config guard data model",
        "sizing": "config data model engine",
        "model_folder": "json_files config data weights model engine",
        "dry_run": "config schedule data model weights engine sizing model_folder",
        "assemble": "config data model weights model_folder",
        "evaluation": "json_files ranks data model model_folder",
        "chat": "data evaluation",
        "run_folder": "json_files ranks config engine",
        "watched": "json_files ranks run_keys config data model engine sizing",
        "export": "json_files adapter config model weights engine model_folder",
        "loop": "json_files ranks run_keys config schedule guard data weights engine model_folder "
        "run_folder watched export",
        "reproduce": "ranks config schedule engine run_folder loop",
        "on_ray": "",
        "ablation": "json_files named_files run_keys config schedule guard data weights sizing "
        "dry_run evaluation run_folder",
        "__main__": "named_files run_keys config schedule weights engine sizing dry_run assemble "
        "evaluation chat watched export loop reproduce on_ray ablation",
    },
}
RAY = {"pipeline/jobs/ray_executor.py", "train/on_ray.py"}
# what a model is asked about is opened exactly as what it was trained on; published weights come
# through the same bounds as published data
DOORS = {
    "pipeline.media": "train/data/user_media.py",
    "pipeline.sources": "train/evaluation/",
    "pipeline.names": "train/evaluation/copies.py",
    "pipeline.untrusted": "train/evaluation/copies.py",
    "pipeline.fetch.local_files": "train/data/user_media.py",
    "pipeline.fetch": "train/weights/hub_folder.py",
}
# planning remembers facts of a pool in the pool
COMMITTING = ("pipeline/stages/", "mixtures/pool/columns.py")
NO_POOL = ("shards.pool", "shards.receipts", "mixtures.pool", "ray")
BANNED_NAMES = {"utils", "helpers", "common", "base", "manager"}
HOSTS = {"lmms_eval"}
"""Programs that load a plugin of ours: they are there when it is."""
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
    "PIL": "pillow",
    "ffmpeg": "ffmpeg-python",
}
FILE, CLASS, FUNCTION, FOLDER, MEDIAN, P90 = 400, 120, 60, 18, 10, 30

Rule = Callable[[Path], list[str]]


def code(root: Path, *packages: str) -> list[Module]:
    return measure.modules(root, packages or PACKAGES)


def targets(module: Module) -> Iterator[str]:
    """Everything a module imports, as a dotted name: `from a import b` is a.b."""
    package = module.name.split(".")
    if not module.path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            place = [*start, *([node.module] if node.module else [])]
            yield from (".".join([*place, alias.name]) for alias in node.names)


def under(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def defined(module: Module) -> set[str]:
    """The functions at the top of a module."""
    return {node.name for node in module.tree.body if isinstance(node, ast.FunctionDef)}


def texts(module: Module) -> Iterator[str]:
    """The string constants of a module but for its docstrings."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.lineno not in module.docstring_lines:
                yield node.value


# The rules ---------------------------------------------------------------------


def packages_point_one_way(root: Path) -> list[str]:
    bad = []
    for module in code(root):
        package = module.name.split(".")[0]
        for name in sorted(set(targets(module))):
            top = name.split(".")[0]
            elsewhere = top in PACKAGES and top not in {package, *PACKAGES[package]}
            if (elsewhere and (package, top) != ("train", "pipeline")) or top in FORBIDDEN[package]:
                bad.append(f"{module.path} imports {name}")
    return bad


def rooms_point_one_way(root: Path) -> list[str]:
    bad = []
    for module in code(root, *ROOMS):
        package, *inside = module.name.split(".")
        room = inside[0] if inside else "__init__"
        if inside and room not in ROOMS[package]:
            bad.append(f"{module.path}: {room} has no row in ROOMS")
        allowed = {room, *ROOMS[package].get(room, "").split()}
        for name in sorted(set(targets(module))):
            top, _, rest = name.partition(".")
            if top == package and rest.split(".")[0] not in allowed:
                bad.append(f"{module.path} imports {name}: {room} may import {sorted(allowed)}")
    return bad


def the_table_has_no_way_back(_root: Path) -> list[str]:
    bad = []
    for package, rooms in ROOMS.items():
        names = list(rooms)
        for number, name in enumerate(names):
            back = set(rooms[name].split()) - set(names[:number])
            bad += [f"ROOMS: {package}.{name} may import {other} below it" for other in back]
    return bad


def only_stages_commit(root: Path) -> list[str]:
    bad = []
    found = code(root)
    functions = {module.name for module in found if "commit" in defined(module)}
    for module in found:
        owners = {name.rpartition(".")[2] for name in targets(module) if name in functions}
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            a_function = isinstance(owner, ast.Name) and owner.id in owners
            if node.func.attr == "commit" and not a_function:
                bad.append(f"{module.path}:{node.lineno} commits to a pool")
    return [line for line in bad if not line.startswith(COMMITTING)]


def only_media_runs_ffmpeg(root: Path) -> list[str]:
    bad = []
    for module in code(root):
        programs = {Path(word).name for text in texts(module) for word in text.split()[:1]}
        started = sorted(programs & {"ffmpeg", "ffprobe"})
        imported = ["ffmpeg"] * any(under(name, "ffmpeg") for name in targets(module))
        if not module.path.startswith("pipeline/media/"):
            bad += [f"{module.path} runs {name}" for name in started]
            bad += [f"{module.path} imports {name}" for name in imported]
    return bad


def dedup_knows_no_pool(root: Path) -> list[str]:
    return [
        f"{module.path} imports {name}"
        for module in code(root, "pipeline/dedup")
        for name in sorted(set(targets(module)))
        if under(name, *NO_POOL)
    ]


def one_file_knows_ray(root: Path) -> list[str]:
    users = {m.path for m in code(root) if any(under(name, "ray") for name in targets(m))}
    return [f"{path} imports ray" for path in sorted(users - RAY)]


def train_opens_media_in_one_file(root: Path) -> list[str]:
    bad = []
    for module in code(root, "train"):
        for name in sorted(set(targets(module))):
            places = tuple(DOORS[door] for door in DOORS if under(name, door))
            if under(name, "pipeline") and not module.path.startswith(places):
                bad.append(f"{module.path} imports {name}")
    return bad


def rooms_say_what_belongs_in_them(root: Path) -> list[str]:
    bad = []
    found = code(root)
    folders = {str(Path(module.path).parent) for module in found}
    docstrings = {module.path: ast.get_docstring(module.tree) for module in found}
    for folder in sorted(folders):
        said = docstrings.get(f"{folder}/__init__.py") or ""
        if not 1 <= len(said.splitlines()) <= 2:
            bad.append(f"{folder}/__init__.py: a docstring of {len(said.splitlines())} lines")
    return bad


def names_say_something(root: Path) -> list[str]:
    return [m.path for m in code(root) if BANNED_NAMES & set(Path(m.path).with_suffix("").parts)]


def imported_packages_are_declared(root: Path) -> list[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {}).values()
    wanted = [*project["dependencies"], *(one for group in optional for one in group)]
    declared = {re.split(r"[^\w.-]", one)[0].lower().replace("_", "-") for one in wanted}
    bad = []
    for module in code(root):
        outside = {name.split(".")[0] for name in targets(module)} - set(sys.stdlib_module_names)
        outside -= HOSTS
        bad += [
            f"{module.path} imports {name}, which pyproject.toml does not name"
            for name in sorted(outside - set(PACKAGES))
            if DISTRIBUTIONS.get(name, name).replace("_", "-") not in declared
        ]
    return bad


def files_stay_short(root: Path) -> list[str]:
    return above(FILE, "code lines", measure.file_lines(code(root)))


def classes_stay_short(root: Path) -> list[str]:
    return above(CLASS, "code lines", measure.class_lines(code(root)))


def functions_stay_short(root: Path) -> list[str]:
    return above(FUNCTION, "lines", measure.function_lines(code(root)))


def folders_stay_small(root: Path) -> list[str]:
    everything = code(root, *PACKAGES, "benchmarks", "examples", "tests")
    counts = measure.folder_files(everything)
    return above(FOLDER, "files", [(count, folder) for folder, count in counts.items()])


def above(most: int, unit: str, sizes: list[tuple[int, str]]) -> list[str]:
    return [f"{name}: {size} {unit}, at most {most}" for size, name in sizes if size > most]


def no_module_imports_itself(root: Path) -> list[str]:
    found = code(root)
    paths = {module.name: module.path for module in found}
    return [", ".join(paths[name] for name in group) for group in measure.cycles(found)]


def functions_are_short_by_habit(root: Path) -> list[str]:
    found = measure.function_lines(code(root))
    lines = [count for count, _ in found]
    longest = ", ".join(name for _, name in sorted(found, reverse=True)[:3])
    figures = [
        (measure.quantile(lines, 0.5), f"{longest} and more: median"),
        (measure.quantile(lines, 0.9), f"{longest} and more: p90"),
    ]
    return above(MEDIAN, "lines", figures[:1]) + above(P90, "lines", figures[1:])


RULES: tuple[Rule, ...] = (
    packages_point_one_way,
    rooms_point_one_way,
    the_table_has_no_way_back,
    only_stages_commit,
    only_media_runs_ffmpeg,
    dedup_knows_no_pool,
    one_file_knows_ray,
    train_opens_media_in_one_file,
    rooms_say_what_belongs_in_them,
    names_say_something,
    imported_packages_are_declared,
    files_stay_short,
    classes_stay_short,
    functions_stay_short,
    folders_stay_small,
    no_module_imports_itself,
    functions_are_short_by_habit,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule: Rule) -> None:
    offences = rule(ROOT)
    assert not offences, "\n".join(offences)


def test_ray_is_where_it_is_looked_for() -> None:
    (executor,) = (m for m in code(ROOT, "pipeline") if m.path in RAY)
    assert any(under(name, "ray") for name in targets(executor))


def test_our_names_are_ours() -> None:
    owners = importlib.metadata.packages_distributions()
    assert all(set(owners.get(package, [])) <= {"slowfast-mix"} for package in PACKAGES)


def test_the_imported_packages_are_this_checkout() -> None:
    import mixtures
    import shards

    assert all(Path(str(package.__file__)).is_relative_to(ROOT) for package in (mixtures, shards))


# Each rule can fail ------------------------------------------------------------

STAGE, DEDUP, LOOP = "pipeline/stages/a.py", "pipeline/dedup/a.py", "train/loop.py"
LONG = "    x = 1\n"
OFFENCES: tuple[tuple[Rule, str, str], ...] = (
    (packages_point_one_way, "shards/a.py", "import mixtures.order"),
    (packages_point_one_way, "mixtures/plan/a.py", "from pipeline import build"),
    (packages_point_one_way, "mixtures/plan/a.py", "def f():\n    import torch"),
    (packages_point_one_way, STAGE, "if TYPE_CHECKING:\n    from transformers import AutoModel"),
    (packages_point_one_way, "train/data/a.py", "import torchvision.io"),
    (rooms_point_one_way, "pipeline/fetch/a.py", "from pipeline.stages import pending"),
    (rooms_point_one_way, "pipeline/fetch/a.py", "def f():\n    from pipeline import build"),
    (rooms_point_one_way, "pipeline/fetch/a.py", "from ..stages import pending"),
    (rooms_point_one_way, "pipeline/untrusted.py", "import pipeline.media.decode"),
    (
        rooms_point_one_way,
        "mixtures/order/a.py",
        "if TYPE_CHECKING:\n    from mixtures.plan import x",
    ),
    (rooms_point_one_way, "train/model/a.py", "from train.engine.interface import Engine"),
    (rooms_point_one_way, "train/__init__.py", "from train import loop"),
    (rooms_point_one_way, "train/attic/a.py", "x = 1"),
    (only_stages_commit, "pipeline/jobs/a.py", "def f(pool):\n    pool.commit('decode')"),
    (
        only_stages_commit,
        STAGE.replace("stages", "report"),
        "from shards import pool\npool.commit(1)",
    ),
    (only_stages_commit, DEDUP, "from shards.pool import Pool\nPool('a').commit('decode')"),
    (only_stages_commit, "mixtures/pool/inputs.py", "self.pool.commit(work)"),
    (only_media_runs_ffmpeg, STAGE, "import ffmpeg"),
    (only_media_runs_ffmpeg, STAGE, "subprocess.run(['/usr/bin/ffprobe', path])"),
    (only_media_runs_ffmpeg, "train/data/a.py", "subprocess.run(f'ffmpeg -i {path}', shell=True)"),
    (dedup_knows_no_pool, DEDUP, "from shards.pool import Pool"),
    (dedup_knows_no_pool, DEDUP, "from mixtures.pool.columns import clip_columns"),
    (dedup_knows_no_pool, DEDUP, "def f():\n    import ray"),
    (one_file_knows_ray, "pipeline/jobs/a.py", "from ray.util import queue"),
    (one_file_knows_ray, LOOP, "def f():\n    import ray"),
    (train_opens_media_in_one_file, LOOP, "from pipeline.media.decode import decode_all"),
    (train_opens_media_in_one_file, LOOP, "from pipeline.sources import records"),
    (train_opens_media_in_one_file, "train/evaluation/a.py", "import pipeline.build"),
    (
        train_opens_media_in_one_file,
        "train/data/user_media.py",
        "from pipeline.dedup import verify",
    ),
    (rooms_say_what_belongs_in_them, "pipeline/media/__init__.py", "x = 1"),
    (rooms_say_what_belongs_in_them, "pipeline/media/__init__.py", "'''One\n\nand three.\n'''"),
    (names_say_something, "pipeline/media/utils.py", "x = 1"),
    (names_say_something, "train/common/a.py", "x = 1"),
    (imported_packages_are_declared, "shards/a.py", "import tornado"),
    (files_stay_short, "shards/a.py", "x = 1\n" * (FILE + 1)),
    (classes_stay_short, "shards/a.py", f"class A:\n{LONG * CLASS}"),
    (functions_stay_short, "shards/a.py", f"def f():\n{LONG * FUNCTION}"),
    (no_module_imports_itself, "pipeline/stages/a.py", "def f():\n    import pipeline.stages.b"),
    (functions_are_short_by_habit, "shards/a.py", f"def f():\n{LONG * MEDIAN}"),
)


def made(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(("rule", "path", "text"), OFFENCES)
def test_an_offence_is_named(tmp_path: Path, rule: Rule, path: str, text: str) -> None:
    made(tmp_path, "pyproject.toml", '[project]\ndependencies = ["numpy>=2"]\n')
    made(tmp_path, "pipeline/stages/b.py", "import numpy\nimport pipeline.stages.a")
    made(tmp_path, "pipeline/stages/__init__.py", "'Says what belongs here.'")
    assert not rule(tmp_path)
    made(tmp_path, path, text)
    (named,) = rule(tmp_path)
    assert named.startswith(path)


def test_a_full_folder_is_named(tmp_path: Path) -> None:
    for number in range(FOLDER + 1):
        made(tmp_path, f"tests/train/test_{number}.py", "x = 1")
    assert folders_stay_small(tmp_path) == [f"tests/train: {FOLDER + 1} files, at most {FOLDER}"]


def test_a_way_back_in_the_table_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ROOMS, "train", {"data": "model", "model": "data"})
    assert the_table_has_no_way_back(tmp_path) == ["ROOMS: train.data may import model below it"]


def test_what_is_allowed_is_not_named(tmp_path: Path) -> None:
    made(tmp_path, "pipeline/stages/a.py", "'''Runs nothing.'''\npool.commit(work)")
    made(tmp_path, "pipeline/media/a.py", "import ffmpeg\nrun(['ffprobe'])")
    made(tmp_path, "train/engine/checkpoint.py", "def commit(): ...")
    made(tmp_path, "train/loop.py", "from train.engine import checkpoint\ncheckpoint.commit()")
    made(tmp_path, "train/on_ray.py", "import ray")
    made(tmp_path, "train/data/user_media.py", "from pipeline.media.decode import decode_all")
    made(tmp_path, "train/evaluation/a.py", "from pipeline.sources import records")
    rules = (
        packages_point_one_way,
        only_stages_commit,
        only_media_runs_ffmpeg,
        one_file_knows_ray,
        train_opens_media_in_one_file,
    )
    assert [rule(tmp_path) for rule in rules] == [[]] * 5
