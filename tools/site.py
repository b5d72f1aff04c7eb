"""Hooks of mkdocs: a page gets chapters of the README, the reference of the commands, and the table of models."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from unfade.cli import app
from unfade.zoo.models import MODELS

README = (Path(__file__).parents[1] / "README.md").read_text()


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in `{{ readme: CHAPTER }}`, `{{ commands }}` and `{{ models }}`."""
    markdown = re.sub(r"^\{\{ readme: (.+) \}\}$", lambda found: chapter(found[1]), markdown, flags=re.MULTILINE)
    for mark, text in (("{{ commands }}", "\n".join(reference(get_command(app)))), ("{{ models }}", models())):
        markdown = markdown.replace(mark, text) if mark in markdown else markdown
    return markdown


def chapter(name: str) -> str:
    """The text of a chapter of the README. Raises ValueError if there is none of that name."""
    found = re.search(rf"^## {re.escape(name)}\n\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"README.md has no chapter {name}")
    return re.sub(r"`docs/(\w+\.md)`", r"[`\1`](\1)", found[1].rstrip())


def reference(command: Any, *words: str) -> Iterator[str]:
    """Every command with its arguments and flags, in Markdown."""
    below = getattr(command, "commands", None)
    if below is not None:
        for name, one in below.items():
            yield from reference(one, *words, name)
        return
    yield from (f"## unfade {' '.join(words)}", "", command.help or "", "", *[command.epilog or ""], "")
    yield from ("| | what it is |", "| --- | --- |")
    for parameter in command.params:
        flag = parameter.param_type_name == "option"
        names = [*parameter.opts, *parameter.secondary_opts] if flag else [parameter.name.upper()]
        usual = parameter.default if flag and parameter.default not in (None, False, "") else None
        shown = f" Default: `{usual}`." if usual is not None and "Default:" not in (parameter.help or "") else ""
        yield f"| `{'`, `'.join(names)}` | {_cell((parameter.help or '') + shown)} |"
    yield ""


def models() -> str:
    """The table of models, in Markdown."""
    cells = [(f"`{m.name}`", m.kind, str(m.size or ""), m.licence, m.author) for m in MODELS.values()]
    rows = [f"| {' | '.join(map(_cell, row))} |" for row in cells]
    return "\n".join(["| name | kind | px | licence | author |", "| --- | --- | --- | --- | --- |", *rows])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
