"""What a stranger meets in this code, as numbers: `python -m tests.measure [ROOT]`.

It exits with 1 where a bar does not hold (tests/test_architecture.py holds the lengths of files,
classes and functions). Definitions:

comments      lines that hold a comment token, per 100 lines that hold any other token (docstrings
              count as one line of code)
code lines    lines with a token that is no comment, no docstring and no blank
functions     from `def` to the last line, both counted
folder        .py files of one folder, `__init__.py` not counted
many types    parameter names annotated with four or more different types in one package (`| None`
              ignored), as a share of all names
vague         variables that say nothing of what they hold (`VAGUE`) and live longer than five
              lines, from where they are bound to where they are last read in their function;
              fields and attributes of these names always, but for keys of file formats (`KEYS`)
packed        assignments `a, b = x, y` whose target and value are both written as tuples, as a
              share of all assignments
cycles        groups of modules that import each other, imports inside functions and under
              TYPE_CHECKING counted
"""

from __future__ import annotations

import ast
import functools
import io
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("shards", "mixtures", "pipeline", "train")
QUIET = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SCOPES = (*FUNCTIONS, ast.Lambda, *COMPREHENSIONS)
VAGUE = {"found", "one", "each", "own", "told", "asked", "place"}
VAGUE_LINES = 5
KEYS = {
    "ClipPlacement.told",
    "Prediction.place",
    "QFormerLayer.own",
    "Result.asked",
    "SourceContents.asked",
    "Work.asked",
}
"""Class.field of what a file or a command's JSON says under that key."""
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
MANY_TYPES = "names with four or more types, %"
VAGUE_NAMES = "vague names of long life"
PACKED = "packed assignments, %"
DOCSTRINGS = "public functions with a docstring, %"
MOST: dict[str, float] = {MANY_TYPES: 1.5, VAGUE_NAMES: 0, PACKED: 2.5}
LEAST: dict[str, float] = {DOCSTRINGS: 90}
COMMENTS: dict[str, float] = {
    **{f"{package}/": 6 for package in PACKAGES},
    # dense array code, archives and ZeRO, where each step wants its name
    "mixtures/pool/columns.py": 8,
    "mixtures/tokens/token_plan.py": 8,
    "pipeline/archives/tars.py": 8,
    "pipeline/dedup/candidates.py": 8,
    "pipeline/dedup/hamming_join.py": 8,
    "pipeline/dedup/registration.py": 8,
    "pipeline/dedup/temporal_alignment.py": 8,
    "pipeline/dedup/text_minhash.py": 8,
    "train/data/collate.py": 8,
    "train/engine/deepspeed_engine.py": 8,
}
"""Comment lines per 100 code lines, at least, of the files that begin so."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, its path from the root, its text."""

    name: str
    path: str
    text: str = field(repr=False)

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @functools.cached_property
    def docstring_lines(self) -> set[int]:
        found: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
                found |= set(span(node.body[0]))
        return found

    @functools.cached_property
    def lines(self) -> tuple[set[int], set[int]]:
        """(lines with a comment, lines with anything else)."""
        comments: set[int] = set()
        code: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                comments.add(token.start[0])
            elif token.type not in QUIET:
                code |= set(range(token.start[0], token.end[0] + 1))
        return comments, code

    @functools.cached_property
    def code(self) -> set[int]:
        return self.lines[1] - self.docstring_lines

    @property
    def docstrings(self) -> int:
        nodes = ast.walk(self.tree)
        return sum(bool(ast.get_docstring(n)) for n in nodes if isinstance(n, DOCUMENTED))


_module = functools.cache(Module)  # a text that was read before is not parsed again


def span(node: ast.stmt) -> range:
    """The lines of a statement."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def modules(root: Path, packages: Iterable[str] = PACKAGES) -> list[Module]:
    """Every module of these packages."""
    found = []
    for path in [path for package in packages for path in sorted((root / package).rglob("*.py"))]:
        place = path.relative_to(root)
        name = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        found.append(_module(name, str(place), path.read_text()))
    return found


def file_lines(found: list[Module]) -> list[tuple[int, str]]:
    """(code lines, path) of every file."""
    return [(len(module.code), module.path) for module in found]


def class_lines(found: list[Module]) -> list[tuple[int, str]]:
    """(code lines, path and name) of every class."""
    return [
        (len(set(span(node)) & module.code), f"{module.path}:{node.lineno} {node.name}")
        for module in found
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    ]


def functions(found: list[Module]) -> list[tuple[Module, Function]]:
    """Every function and method, nested ones too."""
    return [
        (module, node)
        for module in found
        for node in ast.walk(module.tree)
        if isinstance(node, FUNCTIONS)
    ]


def function_lines(found: list[Module]) -> list[tuple[int, str]]:
    """(lines, path and name) of every function."""
    return [
        (len(span(node)), f"{module.path}:{node.lineno} {node.name}")
        for module, node in functions(found)
    ]


def folder_files(found: list[Module]) -> Counter[str]:
    """How many .py files each folder holds."""
    paths = [Path(module.path) for module in found]
    return Counter(str(path.parent) for path in paths if path.name != "__init__.py")


def imports(module: Module, names: set[str]) -> Iterator[str]:
    """The project's own modules that a module names in any import."""
    for node in ast.walk(module.tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in targets:
            while name and name not in names:
                name = name.rpartition(".")[0]
            if name and name != module.name:
                yield name


def cycles(found: list[Module]) -> list[list[str]]:
    """Groups of two or more modules that reach each other."""
    names = {module.name for module in found}
    graph = {module.name: set(imports(module, names)) for module in found}
    reach = {name: _reachable(graph, name) for name in graph}
    circular = [name for name in graph if name in reach[name]]
    groups = {frozenset(b for b in reach[a] if a in reach[b]) | {a} for a in circular}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def quantile(values: list[int], share: float) -> int:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def names_of_many_types(found: list[Module]) -> tuple[list[str], int]:
    """(names with four or more types, number of all names) of annotated parameters, per package."""
    types: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module, node in functions(found):
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            if argument.annotation is not None:
                kind = ast.unparse(argument.annotation).replace(" | None", "")
                types[module.name.split(".")[0], argument.arg].add(kind)
    many = [f"{package}:{name}" for (package, name), kinds in types.items() if len(kinds) > 3]
    return sorted(many), len(types)


def vague_names(found: list[Module]) -> list[str]:
    """Path, line and name of every variable that says nothing of what it holds for too long."""
    return [
        f"{module.path}:{line} {name}"
        for module in found
        for line, name in [*_vague_variables(module.tree), *_vague_fields(module.tree)]
    ]


def _vague_variables(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for scope in ast.walk(tree):
        if isinstance(scope, SCOPES):
            bound = _bound(scope)
            for name in sorted(VAGUE & bound.keys()):
                read = [
                    n.lineno for n in ast.walk(scope) if isinstance(n, ast.Name) and n.id == name
                ]
                if max(read, default=0) - bound[name] >= VAGUE_LINES:
                    yield bound[name], name


def _bound(scope: Scope) -> dict[str, int]:
    """The names that a scope binds itself, each with its first line; parameters from the `def`."""
    lines: dict[str, int] = {}
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.arg):
            lines[node.arg] = scope.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
        # what an inner scope binds is its own
        if not isinstance(node, (*SCOPES, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
    return lines


def _vague_fields(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Fields of classes, and attributes that their methods set."""
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef):
            fields = [f.target for f in owner.body if isinstance(f, ast.AnnAssign)]
            names = [(f.lineno, f.id) for f in fields if isinstance(f, ast.Name)]
            names += [
                (node.lineno, node.attr)
                for node in ast.walk(owner)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if isinstance(node.value, ast.Name) and node.value.id == "self"
            ]
            for line, name in names:
                if name in VAGUE and f"{owner.name}.{name}" not in KEYS:
                    yield line, name


def packed(found: list[Module]) -> float:
    """Percent of assignments that pack two into one."""
    nodes = [node for module in found for node in ast.walk(module.tree)]
    assigned = [node for node in nodes if isinstance(node, ast.Assign)]
    tuples = [
        node
        for node in assigned
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
    ]
    return _percent(len(tuples), len(assigned))


def documented(found: list[Module]) -> float:
    """Percent of public functions that have a docstring."""
    public = [node for _, node in functions(found) if not node.name.startswith("_")]
    return _percent(sum(bool(ast.get_docstring(node)) for node in public), len(public))


def comments(found: list[Module]) -> float:
    """Lines with a comment per 100 lines of code."""
    code = sum(len(module.code) + module.docstrings for module in found)
    return _percent(sum(len(module.lines[0]) for module in found), code)


def _percent(part: int, whole: int) -> float:
    return round(100 * part / max(whole, 1), 2)


def measure(found: list[Module]) -> dict[str, float]:
    """Every figure for these modules together."""
    many, names = names_of_many_types(found)
    lines = [count for count, _ in function_lines(found)]
    return {
        "comment lines per 100 code lines": comments(found),
        "largest folder, files": max(folder_files(found).values(), default=0),
        MANY_TYPES: _percent(len(many), names),
        VAGUE_NAMES: len(vague_names(found)),
        PACKED: packed(found),
        "function lines, median": quantile(lines, 0.5),
        "function lines, p90": quantile(lines, 0.9),
        "longest function, lines": max(lines, default=0),
        "longest file, code lines": max(file_lines(found), default=(0,))[0],
        "longest class, code lines": max(class_lines(found), default=(0,))[0],
        "import cycles": len(cycles(found)),
        DOCSTRINGS: documented(found),
    }


def failures(root: Path) -> list[str]:
    """Every bar that does not hold, with the figure."""
    found = modules(root)
    figures = measure(found)
    sparse = [
        f"{subject}: {share:g} comment lines per 100 code lines, at least {least}"
        for subject, least in COMMENTS.items()
        for share in [comments([m for m in found if m.path.startswith(subject)])]
        if share < least
    ]
    above = [
        f"{name}: {figures[name]:g}, at most {most}"
        for name, most in MOST.items()
        if figures[name] > most
    ]
    below = [
        f"{name}: {figures[name]:g}, at least {least}"
        for name, least in LEAST.items()
        if figures[name] < least
    ]
    return [*sparse, *above, *below]


def table(root: Path) -> str:
    """The figures of all packages together and of each, and where the largest ones are."""
    found = modules(root)
    each = [[m for m in found if m.path.split("/")[0] == package] for package in PACKAGES]
    columns = [measure(found), *(measure(some) for some in each)]
    lines = ["".join(f"{name:>10}" for name in ("all", *PACKAGES)).rjust(38 + 50)]
    lines += [
        f"{figure:<38}" + "".join(f"{column[figure]:>10g}" for column in columns)
        for figure in columns[0]
    ]
    return "\n".join([*lines, *_largest(found)])


def _largest(found: list[Module]) -> list[str]:
    return [
        f"largest folder: {folder_files(found).most_common(1)[0][0]}",
        f"longest function: {max(function_lines(found))[1]}",
        f"longest file: {max(file_lines(found))[1]}",
        f"longest class: {max(class_lines(found))[1]}",
        *(f"vague: {name}" for name in vague_names(found)),
        f"four or more types: {' '.join(names_of_many_types(found)[0])}",
        *(f"cycle: {' '.join(group)}" for group in cycles(found)),
    ]


if __name__ == "__main__":
    top = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    sys.stdout.write(table(top) + "\n")
    sys.exit("\n".join(failures(top)) or 0)
