"""On a device nothing waits inside a loop, and neither places nor types are mixed: shown on a pretended one.

Each case of `pretended_child.py` is run in one process of its own, on tensors without values.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch knows no backend that is written in Python", allow_module_level=True)

from pretended_child import NOTICED, cases

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """What is wrong with each case."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
    child = subprocess.run(
        [sys.executable, str(HERE / "pretended_child.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert child.returncode == 0, child.stderr
    return dict(json.loads(line) for line in child.stdout.splitlines() if line.startswith("["))


@pytest.mark.parametrize("name", cases())
def test_it_waits_for_nothing_and_mixes_nothing(name: str, found: dict[str, str]) -> None:
    assert found[name] == ""


@pytest.mark.parametrize("name", [one.__name__ for one in NOTICED])
def test_what_is_wrong_is_noticed(name: str, found: dict[str, str]) -> None:
    assert found[name].startswith(("Waited", "FakeTensorDeviceMismatchError", "RuntimeError: expected dtype"))
