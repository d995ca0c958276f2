"""The figures of `python -m tests.measure`: the bars hold, and each of them can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.measure import MANY_TYPES, VAGUE_NAMES, failures, modules, vague_names

ROOT = Path(__file__).resolve().parent.parent
LONG = "def f(found):\n    a = 1\n    b = 2\n    c = 3\n    d = 4\n    return found\n"
TYPES = "".join(f"def _f{i}(x: {kind}): ...\n" for i, kind in enumerate(("int", "str", "A", "B")))


def made(tmp_path: Path, text: str, path: str = "train/data/collate.py") -> Path:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return tmp_path


def test_the_bars_hold() -> None:
    assert not failures(ROOT)


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("x = 1\n", "train/: 0 comment lines"),
        ("x = 1\n", "train/data/collate.py: 0 comment lines"),
        (TYPES, MANY_TYPES),
        (LONG, VAGUE_NAMES),
        ("a, b = 1, 2\n", "packed assignments"),
        ("def f(): ...\n", "public functions with a docstring"),
    ],
)
def test_a_bar_can_fail(tmp_path: Path, text: str, figure: str) -> None:
    assert any(line.startswith(figure) for line in failures(made(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (LONG, ["1 found"]),
        (LONG.replace("    d = 4\n", ""), []),
        (LONG.replace("found", "matches"), []),
        (LONG.replace("found):", "x):").replace("a = 1", "found, a = x"), []),
        ("f = lambda one: (\n1,\n2,\n3,\n4,\none)\n", ["1 one"]),
        ("x = [\none\nfor\none\nin\ny\nif\n1 and\none]\n", ["4 one"]),
        ("class A:\n    place: int\n", ["2 place"]),
        ("class A:\n    def f(self):\n        self.told = 1\n", ["3 told"]),
        ("class QFormerLayer:\n    own: int\n", []),
    ],
)
def test_a_vague_name_is_named_by_its_line(tmp_path: Path, text: str, names: list[str]) -> None:
    found = vague_names(modules(made(tmp_path, text)))
    assert found == [f"train/data/collate.py:{name}" for name in names]
