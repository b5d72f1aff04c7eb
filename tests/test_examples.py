"""The examples run, in their short form."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, out: Path) -> str:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--short", "--out", str(out)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_restorer_in_torch(tmp_path: Path) -> None:
    assert run("restorer_in_torch", tmp_path / "sheet.png").startswith("2 faces at 3 fidelities")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * sheet.height / 2


@pytest.mark.slow
def test_adapting_and_comparing(tmp_path: Path) -> None:
    said = run("adapt_and_compare", tmp_path / "out").splitlines()
    assert [line.split()[0] for line in said] == ["2", "pre-trained", "adapted"]
    assert (tmp_path / "out" / "run" / "report.html").exists()


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text()
    assert all(f'run("{path.stem}"' in here for path in EXAMPLES.glob("*.py"))
