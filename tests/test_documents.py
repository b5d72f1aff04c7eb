"""What the documents say is true: commands and flags, files, the map of the rooms, and the worked examples run."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from typer.main import get_command
from typer.testing import CliRunner

from networks import CountingNoise, fake_prior
from recorded import picture
from test_floors import FLOORS
from tiny_models import write_faces
from unfade.cli import app
from unfade.diffusion import guidance
from unfade.diffusion.sampler import sample
from unfade.metrics import reference
from unfade.restorers import load
from unfade.stages import methods

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def example(chapter: str, module: ModuleType | None = None) -> dict[str, Any]:
    """The names that the chapter's example defines, as part of a module or as a file of its own."""
    (lines,) = re.findall(rf"^## {chapter}$.*?```python\n(.*?)```", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    assert lines.count("\n") < 30
    names = dict(vars(module)) if module else {"__name__": "example"}
    exec(lines, names)
    return names


def row(key: str, names: dict[str, Any]) -> Any:
    """What the row of a dict with that key, between backquotes, stands for."""
    (found,) = re.findall(f'`"{key}": ([^`]+)`', CONTRIBUTING)
    return eval(" ".join(found.split()), names)


def test_the_example_of_a_restorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = example("A restorer")
    monkeypatch.setitem(load.RESTORERS, "srcnn", row("srcnn", names))
    restorer = names["SRCNNRestorer"](16, channels=4)
    face = picture(16, 16, 0)
    assert restorer.objective()(restorer, face, face)["l1"] > 0
    load.save_restorer(tmp_path / "srcnn.safetensors", restorer)
    again = load.load_restorer(tmp_path / "srcnn.safetensors", device="cpu")
    torch.testing.assert_close(again(face), restorer(face), rtol=0, atol=0)


def test_the_example_of_a_guidance() -> None:
    names = example("A guidance", guidance)
    method = row("mean-colour", {**vars(methods), **names})
    face, restored = picture(32, 32, 0), picture(32, 32, 1)
    guide = method.guide(methods.Inputs(face, restored))
    found = sample(fake_prior(), guide, CountingNoise(), face)
    torch.testing.assert_close(found.mean((2, 3)), restored.mean((2, 3)), rtol=0, atol=1e-5)


def test_the_example_of_a_command(tmp_path: Path) -> None:
    write_faces(tmp_path, 2)
    command = typer.Typer()
    command.command()(example("A command")["sizes"])
    said = CliRunner().invoke(command, [str(tmp_path)])
    assert (said.exit_code, said.output) == (0, "32x32: 2\n")


def test_the_example_of_a_metric() -> None:
    names = example("A metric", reference)
    metric = row("mae", names)("cpu")
    black = torch.full((2, 3, 4, 4), -1.0)
    assert metric(black, black + 2 / 255).tolist() == pytest.approx([1, 1])


def test_commands_and_flags_of_the_readme_exist() -> None:
    lines = re.findall(r"`(unfade [^`]+)`|^unfade (.*)", README, re.MULTILINE)
    assert len(lines) > 20
    for whole, rest in lines:
        command: Any = get_command(app)
        words = (whole.removeprefix("unfade ") or rest).split("#")[0].split()
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert command.name != "unfade" or words == ["COMMAND", "--help"], words
        flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts, "--help")}
        assert {word for word in words if word.startswith("--")} <= flags, words
    every: set[str] = {*get_command(app).commands}  # type: ignore[attr-defined]
    assert every <= {word for whole, _ in lines for word in whole.split()}


def test_the_map_is_that_of_the_floors() -> None:
    shown = re.findall(r"^  ([a-z]+)/ +(\d+)  ", README, re.MULTILINE)
    assert {name: int(floor) for name, floor in shown} == {
        name: floor for name, floor in FLOORS.items() if (Path(sys.modules["unfade"].__path__[0]) / name).is_dir()
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist_and_nothing_is_a_dead_link_on_a_package_index(name: str) -> None:
    text = (ROOT / name).read_text()
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]*)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    for path in re.findall(r"`((?:docs|tests|tools|benchmarks)/[\w/.]+|[A-Z]+\.(?:md|cff))`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(
        r"`((?:cli|restorers|diffusion|stages|recipes|metrics|report|store|jobs)/[\w/]+\.py)`", text
    ):
        assert (ROOT / "src" / "unfade" / path).exists(), path


def test_only_what_the_questions_name_can_connect() -> None:
    """A download, the page, the processes of one training, and a fleet; see `docs/faq.md` and `SECURITY.md`."""
    connecting = re.compile(
        r"(socket|ssl|http|urllib\.request|ftplib|smtplib|xmlrpc|webbrowser|asyncio|requests|httpx|aiohttp|websockets"
        r"|huggingface_hub|ray|fsspec|gradio|gradio_client|starlette|uvicorn|torch\.hub|torch\.distributed)(\.|$)"
    )
    package = ROOT / "src" / "unfade"
    found: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            if any(map(connecting.match, names)):
                found.add(path.relative_to(package).as_posix())
    assert {name for name in found if not name.startswith("app/")} == {
        "zoo/download.py",
        "training/ranks.py",
        "fleet/cluster.py",
        "jobs/stores.py",
    }
