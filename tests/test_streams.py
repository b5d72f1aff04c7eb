"""What the command line says where it cannot say anything, and of names that would say something themselves."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import Run
from unfade.cli.command import Outcome, gone_lines, note_lines, say
from unfade.errors import first_line
from unfade.evaluation.pairs import Mean, Scores
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.runs import JOURNAL, of_gone
from unfade.shown import cell, finite, json_text, printable

UNFADE = [sys.executable, "-m", "unfade"]
linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux: /dev/full")


@linux
@pytest.mark.parametrize("command", ["--version", "--help", "models path small-prior --json"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_output_that_is_not_read(command: str, where: str) -> None:
    done = subprocess.run(f"{' '.join(UNFADE)} {command} {where}", shell=True, text=True, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "kept" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_ctrl_c_while_imports_run() -> None:
    code = (
        "print('on', flush=True); import sys; sys.argv = ['unfade', 'doctor']; import unfade.__main__ as m; m.start()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "on\n"
        time.sleep(0.5)  # into the imports of the command line, or of the command
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=120)
    assert run.returncode == 130
    assert said.splitlines()[-1].startswith("Stopped. What was finished is kept")
    assert "Traceback" not in said


def test_an_error_of_the_system_is_one_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("a" * 300)
    told = run("degrade", tmp_path, "--out", long)
    assert (told.code, told.err.count("\n"), told.out) == (2, 1, "")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "kept"))

    monkeypatch.setattr("unfade.zoo.models.find_named", refused)
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    told = run("models", "path", "small-prior")
    assert told.code == 2
    assert told.err == (
        f"{tmp_path / 'kept'} cannot be used (Permission denied); check its name and permissions, or choose "
        "another place (UNFADE_WEIGHTS sets the folder of weights).\n"
    )


ODD = {
    "\x1b[2J.png": r"\x1b[2J.png",
    "a\nb.png": r"a\nb.png",
    "\u202egnp.png": r"\u202egnp.png",
    "é 写.png": "é 写.png",
}


@pytest.mark.parametrize("name", ODD)
def test_names_cannot_write_on_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(name) == ODD[name]
    say(Outcome({}, rows=[{"name": f"[bold]{name}"}]), as_json=False, quiet=False)
    assert f"[bold]{ODD[name]}" in capsys.readouterr().out


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_computes_no_name(tmp_path: Path, start: str) -> None:
    assert str(cell(f"{start}cmd|' /C calc'!A0")).startswith("'")
    scores = Scores({f"{start}1+1\n.png": {"psnr": -1.5}}, {"psnr": Mean(-1.5, -1.5, -1.5, 1)}, [], [])
    scores.write_csv(tmp_path / "a.csv")
    head, row = (tmp_path / "a.csv").read_text().splitlines()
    assert head == "file,psnr"
    assert row.startswith("'")
    assert row.endswith(",-1.5"), "numbers stay numbers"


def test_results_of_removed_photos_are_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    entries = [Entry("restored", f"{name}.jpg", "done", "k", outputs=(f"{name}.jpg",)) for name in "abc"]
    for entry in entries:
        journal.record(entry)
    for name in "ab":
        (tmp_path / f"{name}.jpg").touch()
    assert of_gone(entries, tmp_path) == []
    assert of_gone(entries[:1], tmp_path) == ["b.jpg"], "of c nothing is left"
    assert "b.jpg" in gone_lines(["b.jpg"])[0]
    assert gone_lines([]) == note_lines([]) == []


def test_json_is_what_the_standard_allows() -> None:
    value = {"a": math.inf, "b": [math.nan, 1.5, (2, -math.inf)], "c": None, "d": "nan", "e": True}
    assert finite(value) == {"a": None, "b": [None, 1.5, [2, None]], "c": None, "d": "nan", "e": True}
    assert json.loads(json_text(value), parse_constant=pytest.fail) == finite(value)


def test_the_first_line_of_an_error_without_a_message_is_its_type() -> None:
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(RuntimeError("one\ntwo")) == "one"
