"""The plan of the house: a room imports only from floors below it, and no file or function outgrows its room."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median, quantiles

import pytest

import unfade

ROOT = Path(unfade.__file__).parent
FLOORS = {
    "errors": -1,
    "atomic": 0, "declared": 0, "devices": 0, "locks": 0, "memory": 0, "own_modes": 0, "processes": 0,
    "precision": 0, "progress": 0, "shown": 0,
    "images": 1,
    "store": 2,
    "nets": 3, "jobs": 3,
    "training": 4, "metrics": 4, "report": 4,
    "zoo": 5, "datasets": 5,
    "diffusion": 6, "degradations": 6, "faces": 6,
    "restorers": 7,
    "stages": 8, "evaluation": 8,
    "recipes": 9,
    "paper": 10, "hosts": 10, "fleet": 10,
    "app": 11, "cli": 12,
    "__main__": 13,
}  # fmt: skip
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("unfade."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_from_floors_below(path: Path) -> None:
    room = room_of(path)
    for other in imported_rooms(ast.parse(path.read_text())):
        assert other == room or FLOORS[other] < FLOORS[room], f"{room} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_outgrows_its_room(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_the_guard_sees_a_wrong_import() -> None:
    tree = ast.parse("from unfade.recipes.adapt import adapt\nimport unfade.cli.restore")
    assert list(imported_rooms(tree)) == ["recipes", "cli"]
    assert FLOORS["recipes"] > FLOORS["images"]


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if room_of(path) == "cli":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


# Sizes, docstrings and circles, of the whole house

Function = ast.FunctionDef | ast.AsyncFunctionDef
TREES = {path: ast.parse(path.read_text()) for path in FILES}
NODES = [node for tree in TREES.values() for node in ast.walk(tree)]
OF_FIELDS = {"PlanConfig"}  # protocols whose properties are the documented fields of a dataclass


def lines_of(node: ast.ClassDef | Function) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def is_public(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")


def skipped(text: str) -> int:
    """How often formatting is skipped, except in tables, which begin with a name in capitals at the margin."""
    lines = text.splitlines()
    ends = [number for number, line in enumerate(lines) if re.search(r"fmt: (skip|off)", line)]
    begins = [next(line for line in reversed(lines[:end]) if line[:1].strip(" )]}#")) for end in ends]
    return len([begin for begin in begins if not re.match(r"[A-Z_]{3,}\b.* = [({[]", begin)])


def untyped(tree: ast.AST) -> list[bool]:
    """For each argument of each function whether it has no type."""
    functions = [node.args for node in ast.walk(tree) if isinstance(node, Function)]
    given = [
        a for args in functions for a in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg)
    ]
    return [a.annotation is None for a in given if a is not None and a.arg not in ("self", "cls")]


def undocumented(tree: ast.Module, documented: set[str]) -> list[str]:
    """Public classes, functions and methods without a docstring; an override has that of its base."""
    found = []
    for node in filter(is_public, tree.body):
        assert isinstance(node, ast.ClassDef | Function)
        found += [] if ast.get_docstring(node) else [node.name]
        if isinstance(node, ast.ClassDef) and node.name not in OF_FIELDS:
            bare = [m for m in node.body if isinstance(m, Function) and is_public(m) and not ast.get_docstring(m)]
            found += [f"{node.name}.{m.name}" for m in bare if not (node.bases and m.name in documented)]
    return found


def imported_modules(path: Path) -> set[Path]:
    """The files that are read when this one is imported: not what a function or a type checker imports."""
    at_once = [node for node in TREES[path].body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_once if isinstance(node, ast.Import) for alias in node.names}
    for node in at_once:
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = {ROOT.parent.joinpath(*name.split(".")).with_suffix(".py") for name in names}
    return places & {*FILES}


def test_most_files_and_functions_are_short() -> None:
    files = [path.read_text().count("\n") for path in FILES if path.name != "__init__.py"]
    functions = [lines_of(node) for node in NODES if isinstance(node, Function)]
    assert median(files) <= 130
    assert median(functions) <= 6
    assert quantiles(functions, n=10)[-1] <= 15


def test_no_class_is_long() -> None:
    long = {node.name: lines_of(node) for node in NODES if isinstance(node, ast.ClassDef) and lines_of(node) > 120}
    assert long == {}


def test_only_tables_skip_the_formatting() -> None:
    found = {str(path.relative_to(ROOT)): skipped(path.read_text()) for path in FILES}
    assert {name: count for name, count in found.items() if count} == {}


def test_arguments_are_typed() -> None:
    assert not any(bare for tree in TREES.values() for bare in untyped(tree))
    tests = [bare for path in Path(__file__).parent.rglob("*.py") for bare in untyped(ast.parse(path.read_text()))]
    assert sum(tests) <= 0.05 * len(tests)


def test_everything_public_has_a_docstring() -> None:
    methods = [m for node in NODES if isinstance(node, ast.ClassDef) for m in node.body if isinstance(m, Function)]
    documented = {"forward"} | {method.name for method in methods if ast.get_docstring(method)}
    missing = {str(path.relative_to(ROOT)): undocumented(tree, documented) for path, tree in TREES.items()}
    assert {name: found for name, found in missing.items() if found} == {}


def test_no_file_imports_itself_by_way_of_others() -> None:
    TopologicalSorter({path: imported_modules(path) for path in FILES}).prepare()


def test_these_guards_see_what_they_forbid() -> None:
    tree = ast.parse("class A(B):\n    def known(self): ...\n    def new(self): ...\ndef bare(): ...\ndef _own(): ...")
    assert undocumented(tree, {"known"}) == ["A", "A.new", "bare"]
    assert untyped(ast.parse("def f(self, a: int, b, *c, d: int = 0, **e): ...")) == [False, True, False, True, True]
    assert skipped("TABLE = {\n    1: 2,\n}  # fmt: skip\n") == 0
    assert skipped("def f(\n    a, b,\n) -> None:  # fmt: skip\n    f(1,\n      2)  # fmt: skip\n") == 2
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    here = ROOT / "stages" / "crop.py"
    assert ROOT / "images" / "photo.py" in imported_modules(here)
