"""The plan of the house: a room imports only from floors below it, and no file or function outgrows its room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import unfade

ROOT = Path(unfade.__file__).parent
FLOORS = {
    "errors": -1,
    "atomic": 0, "devices": 0, "memory": 0, "processes": 0, "precision": 0, "progress": 0,
    "images": 1,
    "store": 2,
    "nets": 3, "jobs": 3,
    "training": 4, "metrics": 4, "report": 4,
    "zoo": 5, "datasets": 5,
    "diffusion": 6, "degradations": 6, "faces": 6,
    "restorers": 7,
    "stages": 8, "evaluation": 8,
    "recipes": 9,
    "cli": 10,
    "__main__": 11,
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
