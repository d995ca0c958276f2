"""What the documents name is there: paths, links, modules, commands, and names inside modules.

A word is ours by its first component: `pipeline/...` and `pipeline.stages...` are, `runs/...`,
`OUT/...` and `hf://...` are not. Words in capitals and `*` stand for anything: `train/NAME.py`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.frame import NAMES

ROOT = Path(__file__).resolve().parent.parent
OURS = ("shards", "mixtures", "pipeline", "train", "benchmarks", "examples", "tests", "docs")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
SPAN = re.compile(r"`([^`]+)`")
BETWEEN = re.compile(r"[\s`'\"()\[\]<>|,;=]+")
DOTTED = re.compile(rf"(?:{'|'.join(OURS)})(?:\.[A-Za-z_]\w*)+")
COMMAND = re.compile(r"-m\s+([\w.]+)")
ANYTHING = re.compile(r"[A-Z][A-Z0-9]+")
FILES = (".yaml", ".yml", ".json", ".jsonl", ".parquet", ".tar", ".md", ".txt")


def words(text: str) -> set[str]:
    return {re.split("::|#", word)[0].rstrip(".:") for word in BETWEEN.split(text)}


def untrue(text: str, root: Path = ROOT, folder: str = ".") -> list[str]:
    """What a document, which lies in this folder, names and what is not in the tree."""
    found = words(text)
    paths = {word for word in found if word.startswith(tuple(f"{name}/" for name in OURS))}
    files = {word for word in found if re.fullmatch(r"\w+\.(py|md)", word)}
    dotted = {word for word in found if DOTTED.fullmatch(word) and not word.endswith(FILES)}
    run = {word for word in COMMAND.findall(text) if word.split(".")[0] in OURS}
    links = {word for word in LINK.findall(text) if "://" not in word}
    return [
        *sorted(word for word in paths if not there(root, word)),
        *sorted(word for word in files if not any(named(root, word))),
        *sorted(word for word in dotted if not importable(root, word.split("."))),
        *sorted(f"-m {word}" for word in run if not runnable(root, word.split("."))),
        *sorted(f"]({word})" for word in links if not (root / folder / word).exists()),
    ]


def there(root: Path, path: str) -> bool:
    return (root / path).exists() or any(root.glob(ANYTHING.sub("*", path)))


def named(root: Path, file: str) -> Iterator[Path]:
    yield from root.glob(file)
    for name in OURS:
        yield from (root / name).rglob(file)


def runnable(root: Path, parts: list[str]) -> bool:
    place = root.joinpath(*parts)
    return place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def importable(root: Path, parts: list[str]) -> bool:
    """Whether these are a package, a module, or names in one: package.module.Class.method."""
    for number in range(len(parts), 0, -1):
        place = root.joinpath(*parts[:number])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return holds(ast.parse(file.read_text()), parts[number:])
    return root.joinpath(*parts).is_dir()


def holds(scope: ast.Module | ast.ClassDef, names: list[str]) -> bool:
    """Whether a module or class defines or imports a name, and that one the next."""
    if not names:
        return True
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and node.name == names[0]:
            return holds(node, names[1:])
        if len(names) == 1 and names[0] in bound(node):
            return True
    return False


def bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    names = [inner for target in targets for inner in ast.walk(target)]
    return {name.id for name in names if isinstance(name, ast.Name)}


def moves(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """([old module, names that moved alone], new places) of the changelog's newest tables."""
    newest = re.split(r"^## ", text, flags=re.MULTILINE)[1]
    for line in newest.splitlines():
        if line.startswith("|") and "`" in line:
            old, new = line.strip("|").split("|")
            yield from ((SPAN.findall(one), SPAN.findall(new)) for one in old.split(";"))


def moved_nowhere(text: str, root: Path = ROOT) -> list[str]:
    """What the changelog's newest tables call new and what is not there.

    Names that moved stand behind their old module: each of them must be in the new one.
    """
    bad = []
    for (old, *names), new in moves(text):
        bad += [f"{old} became nothing"] * (not new)
        for place in new:
            module = root.joinpath(*place.split(".")).with_suffix(".py").is_file()
            full = [f"{place}.{name}" for name in names] if module and names else [place]
            bad += [name for name in full if not importable(root, name.split("."))]
    return bad


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document: str) -> None:
    bad = untrue((ROOT / document).read_text(), folder=str(Path(document).parent))
    assert not bad, f"{document}: " + ", ".join(bad)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_calls_a_benchmark_is_one(document: str) -> None:
    said = re.findall(r"-m benchmarks\s+([a-z]\w*)", (ROOT / document).read_text())
    assert set(said) <= set(NAMES), f"{document}: {sorted(set(said) - set(NAMES))}"


def test_what_the_changelog_calls_new_is_there() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert len(list(moves(text))) > 100
    bad = moved_nowhere(text)
    assert not bad, "CHANGELOG.md: " + ", ".join(bad)


def test_the_readme_draws_every_room() -> None:
    places = [path for top in OURS[:4] for path in (ROOT / top).glob("*/__init__.py")]
    rooms = {f"{place.parent.relative_to(ROOT)}/" for place in places}
    assert len(rooms) > 15
    assert rooms - words((ROOT / "README.md").read_text()) == set()


def test_the_hooks_run_the_ruff_of_the_project() -> None:
    pins = [
        set(re.findall(r'"(ruff==[\d.]+)"', (ROOT / name).read_text()))
        for name in (".pre-commit-config.yaml", "pyproject.toml")
    ]
    assert pins[0] == pins[1] and len(pins[0]) == 1


# It can fail -------------------------------------------------------------------


def world(root: Path) -> Path:
    (root / "pipeline" / "media").mkdir(parents=True)
    (root / "pipeline" / "__main__.py").write_text("")
    text = "import math\nLIMIT: int = 2\nA, B = 1, 2\nclass Door:\n    width: int\n"
    (root / "pipeline" / "media" / "door.py").write_text(text + "    def open(self): ...\n")
    (root / "docs").mkdir()
    (root / "docs" / "media.md").write_text("")
    return root


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("see `pipeline/media/gone.py`.", "pipeline/media/gone.py"),
        ("see pipeline/gone/: it", "pipeline/gone/"),
        ("```\npipeline/gone/ the work\n```", "pipeline/gone/"),
        ("`pipeline/gone/test_NAME.py`", "pipeline/gone/test_NAME.py"),
        ("`door.py` and `window.py`", "window.py"),
        ("`GONE.md`", "GONE.md"),
        ("`pipeline.gone`", "pipeline.gone"),
        ("(pipeline.media.door.GONE)", "pipeline.media.door.GONE"),
        ("`pipeline.media.door.Door.close`", "pipeline.media.door.Door.close"),
        ("    python -m pipeline.media build", "-m pipeline.media"),
        ("```\npython -m mixtures plan\n```", "-m mixtures"),
        ("[media](media.md)", "](media.md)"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, text: str, bad: str) -> None:
    assert untrue(text, world(tmp_path)) == [bad]


def test_what_is_there_or_not_ours_is_not_named(tmp_path: Path) -> None:
    text = """`pipeline/media/door.py::test`, `pipeline/NAME/*.py`, pipeline.media, `door.py`,
    `pipeline.media.door`, `pipeline.media.door.LIMIT`, pipeline.media.door.B,
    `pipeline.media.door.Door.width`, `pipeline.media.door.Door.open`, `pipeline.media.door.math`,
    `runs/demo/pipeline/x.py`, OUT/train/a, hf://datasets/A/train/*.json, `benchmarks.yaml`; the
    trains train. python -m pipeline build; python -m pytest [media](docs/media.md#door)
    [far](https://a/b.md)"""
    assert untrue(text, world(tmp_path)) == []
    assert untrue("[media](media.md)", tmp_path, "docs") == []


def test_a_move_to_nowhere_is_named(tmp_path: Path) -> None:
    rows = [
        ("`pipeline.x`", "`pipeline.media.door`"),
        ("`pipeline.x`", "`pipeline.gone`"),
        ("`pipeline.x`: `Door`, `Window`", "`pipeline.media.door`"),
        ("`pipeline.x`: `Door.shut`", "`pipeline.media.door.Door.open`"),
        ("`pipeline.x`; `pipeline.y`: `LIMIT`, `walk`", "`pipeline.media.door`"),
        ("`pipeline.x`: `run`", "`pipeline.media.door.run`"),
    ]
    table = "\n".join(f"| {old} | {new} |" for old, new in rows)
    text = f"# Changelog\n\n## [Unreleased]\n\n| old | new |\n{table}\n\n## [0.1]\n| `a` | `b` |"
    assert moved_nowhere(text, world(tmp_path)) == [
        "pipeline.gone",
        "pipeline.media.door.Window",
        "pipeline.media.door.walk",
        "pipeline.media.door.run",
    ]
