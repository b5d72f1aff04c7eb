"""The command line, run in this process."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from unfade.cli import main


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed with --json."""
        assert self.out.count("\n") == 1, "one object and nothing else"
        return dict(json.loads(self.out))

    @property
    def counts(self) -> dict[str, int]:
        """What became of the photos, by --json."""
        return {name: self.json[name] for name in ("found", "done", "skipped", "failed", "no_face")}


Run = Callable[..., Result]  # takes the words of a command line
RunModels = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("adapt", "photos", ...)` is what a user would have typed."""

    def call(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["unfade", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def run_models(run: Run) -> RunModels:
    """`run_models("list")` is `unfade models list`: its exit code, output and errors."""

    def call(*args: object) -> tuple[int, str, str]:
        result = run("models", *args)
        return result.code, result.out, result.err

    return call
