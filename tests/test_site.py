"""The documentation site: nothing is missing in its references, and it is built without a warning."""

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import unfade
from unfade.cli import app
from unfade.zoo.models import MODELS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site() -> Any:
    spec = spec_from_file_location("site_hooks", ROOT / "tools" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages() -> set[str]:
    return {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_every_page_is_in_the_navigation() -> None:
    assert {*re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)} == pages()


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"^::: (\S+)$", (DOCS / "python.md").read_text(), re.MULTILINE)
    modules = {name: import_module(name) for name in listed if name == "unfade.errors"}
    objects = [getattr(import_module(name.rsplit(".", 1)[0]), name.rsplit(".", 1)[1]) for name in listed]
    known = {id(one) for one in objects} | {id(one) for module in modules.values() for one in vars(module).values()}
    missing = [name for name in unfade.__all__ if id(getattr(unfade, name)) not in known]
    assert missing == ["SMALL_ADAPT", "__version__"], "only the values that are no function and no class"


def test_the_reference_has_every_command_and_flag(site: Any) -> None:
    text = site.on_page_markdown("{{ commands }}")
    command: Any = get_command(app)
    for name, one in command.commands.items():
        assert f"## unfade {name}" in text
        for parameter in getattr(one, "params", ()):
            assert parameter.param_type_name == "argument" or parameter.opts[0] in text
    assert text.count("| `--restorer` |") > 3


def test_chapters_and_models_are_filled_in(site: Any) -> None:
    text = site.on_page_markdown("# A\n\n{{ readme: Install }}\n\n{{ models }}")
    assert "pip install unfade" in text
    assert "{{" not in text
    assert all(f"| `{name}` |" in text for name in MODELS)
    with pytest.raises(ValueError, match="no chapter Nowhere"):
        site.on_page_markdown("{{ readme: Nowhere }}")


def test_flags_in_the_pages_are_there() -> None:
    command: Any = get_command(app)

    def flags(one: Any) -> set[str]:
        below = getattr(one, "commands", {}).values()
        return {flag for p in one.params for flag in (*p.opts, *p.secondary_opts)}.union(*map(flags, below))

    for page in [*DOCS.glob("guides/*.md"), DOCS / "faq.md", DOCS / "app.md"]:
        assert {*re.findall(r"`(--[a-z-]+)", page.read_text())} <= flags(command), page


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("mkdocs") and find_spec("mkdocstrings")), reason="the extra `docs` is not installed")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert (tmp_path / "site" / "commands" / "index.html").read_text().count("<table>") > 15
