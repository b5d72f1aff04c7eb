"""Messages name settings in backquotes; the command line shows each as the flag that the running command has for it."""

import re
import sys
from collections.abc import Sequence
from typing import Any

SETTING = re.compile("`([a-z][a-z0-9_]*)`")
OTHERWISE = {  # settings whose flags have another name
    "batch": "fixed-batch",
    "bf16": "precision",
    "choice": "faces",
    "embedder": "identity",
    "find": "faces",
    "kind": "format",
    "losses": "code-losses",
    "name": "as",
    "provenance": "no-provenance",
    "start": "from",
}


def spoken(text: str) -> str:
    """Replace the settings named in a message with the flags of the running command: `min_face` becomes --min-face.

    Settings for which that command has no flag stay as they are.
    """
    if not SETTING.search(text):
        return text
    words = sys.argv[1:]
    flags = flags_of(words) if words[:1] != ["gather"] else flags_of(["restore"])  # whose reasons it repeats

    def flag(found: re.Match[str]) -> str:
        names = (found[1].replace("_", "-"), OTHERWISE.get(found[1], ""))
        return next((f"--{name}" for name in names if f"--{name}" in flags), found[0])

    return SETTING.sub(flag, text)


def flags_of(words: Sequence[str]) -> set[str]:
    """The flags of the command that these words of a command line start with, such as `models pull`."""
    from typer.main import get_command

    from unfade.cli import app

    command: Any = get_command(app)
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
