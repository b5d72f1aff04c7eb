"""What messages advise is there: settings in the library, flags and commands on the command line."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import unfade
from command import Run
from tiny_models import write_faces
from unfade.cli import app
from unfade.cli.wording import OTHERWISE, SETTING, flags_of, spoken

ROOT = Path(unfade.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
LIBRARY = {path: tree for path, tree in TREES.items() if path.parent != ROOT / "cli"}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMAND = re.compile(r"`unfade ([^`]*)")
OTHERS = re.compile(r"`unfade [^`]*`?|pip install [^)]*|var\(--")  # whole commands, and what is no flag


def texts(tree: ast.AST) -> Iterator[str]:
    """Every string, an f-string with X for what is filled in; but not the words of a command that shlex joins."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "shlex.join":
            parts |= {id(part) for part in ast.walk(node)}
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def commands(command: object = get_command(app), *words: str) -> dict[str, object]:
    """All of them, by the words that are typed."""
    below = getattr(command, "commands", {})
    inner = {k: v for name, sub in below.items() for k, v in commands(sub, *words, name).items()}
    return inner if below else {" ".join(words): command}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_no_flags(path: Path) -> None:
    if path.parent.name == "report":
        pytest.skip("pages have variables that look like flags")
    for text in texts(LIBRARY[path]):
        assert not FLAG.search(OTHERS.sub("", text)), text


def test_settings_in_messages_are_settings() -> None:
    """A field, or a parameter of a function, of that name."""
    nodes = [node for tree in LIBRARY.values() for node in ast.walk(tree)]
    known = {node.arg for node in nodes if isinstance(node, ast.arg)}
    known |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    raised = [node for node in nodes if isinstance(node, ast.Raise)]
    named = {name for node in raised for text in texts(node) for name in SETTING.findall(text)}
    assert len(named) > 20
    assert named - known == set()
    assert set(OTHERWISE) - known == set()


def test_flags_in_messages_of_a_command_are_its_own() -> None:
    """Those of files that hold no command are of some command."""
    every = {words: flags_of(words.split()) for words in commands()}
    for path in sorted((ROOT / "cli").glob("*.py")):
        module = f"unfade.cli.{path.stem}"
        own = [words for words, command in commands().items() if command.callback.__module__ == module]  # type: ignore[attr-defined]
        assert own or path.stem in ("__init__", "command", "console", "flags", "settings", "wording"), (
            "of every command"
        )
        flags = set().union(*(every[words] for words in own or every)) | flags_of([])
        said = {flag for text in texts(TREES[path]) for flag in FLAG.findall(OTHERS.sub("", text))}
        assert said <= flags, path.name


def test_commands_in_messages_are_there() -> None:
    every, seen = commands(), 0
    for path, tree in TREES.items():
        for told in (told for text in texts(tree) for told in COMMAND.findall(text)):
            words = next((w for w in every if f"{told} ".startswith(f"{w} ")), None)
            assert words or told.split()[0] in ("COMMAND", "models", "data", "train"), (path.name, told)
            assert set(FLAG.findall(told)) <= flags_of((words or "").split()), told
            seen += 1
    assert seen > 20


def test_settings_are_named_as_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "look at `min_face`, `choice`, `kind` and `nothing`; run `unfade models list`"
    for command, said in {
        "restore photos": "look at --min-face, --faces, --format and `nothing`; run `unfade models list`",
        "degrade truth": "look at `min_face`, `choice`, --kind and `nothing`; run `unfade models list`",
        "": text,
        "no command": text,
    }.items():
        monkeypatch.setattr(sys, "argv", ["unfade", *command.split()])
        assert spoken(text) == said


def test_errors_and_reasons_name_flags(run: Run, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 1)
    refused = run("restore", tmp_path / "faces", "--aligned", "--out", tmp_path / "faces")
    assert refused.err.endswith("name another folder as --out, nothing is overwritten.\n")
    with pytest.raises(unfade.OutputConflict, match="as `out`, nothing"):
        unfade.restore(tmp_path / "faces", tmp_path / "faces", aligned=True)
    unknown = run("doctor", "--device", "gpu9")
    assert "set --device to auto or cpu" in unknown.err
    small = run("data", "prepare", "folder", tmp_path / "faces", "--out", tmp_path / "out", "--size", 256)
    assert "smaller than --size 256; choose a smaller size, or say --enlarge." in small.out
    told = run("data", "prepare", "folder", tmp_path / "faces", "--out", tmp_path / "out", "--size", 256, "--json")
    assert "smaller than `size` 256" in told.json["failures"][0][1], "as the journal has it"


def test_where_a_training_starts_is_named_by_its_flag(run: Run, tmp_path: Path) -> None:
    for what in ("prior", "restorer"):
        said = run("train", what, tmp_path, "--out", tmp_path / "out.safetensors", "--double").err
        assert "can be doubled; name one as --from." in said
