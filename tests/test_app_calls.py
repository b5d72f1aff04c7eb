"""What other programs ask of the page, without a browser."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from test_looking import people

pytestmark = pytest.mark.skipif(not find_spec("gradio"), reason="the extra `app` is not installed")
ASKED = """
import json, sys
from pathlib import Path
import gradio
from unfade.app.page import Page

page = Page(Path("work"), "cpu")
for call in json.loads(sys.argv[1]):
    try:
        print(page.one(*call))
    except gradio.Error as error:
        print(error.message)
"""  # in a process of its own, as Gradio leaves sockets open


def test_calls_leave_nothing_but_uploads(tmp_path: Path) -> None:
    people(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    (tmp_path / "work").mkdir()
    given = (("a.png", 1.0), ("b.png", 1.0), (None, 1.0), ("a.png", None))
    calls = [(photo, "small-restorer", strength, 0.5) for photo, strength in given]
    command = [sys.executable, "-c", ASKED, json.dumps(calls)]
    where = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "work" / "uploads")}
    said = subprocess.run(command, cwd=tmp_path, env=where, check=True, capture_output=True, text=True).stdout
    result, damaged, *missing = said.splitlines()
    with Image.open(result) as restored:
        assert (Path(result).name, restored.size) == ("a.png", (400, 200))
    assert damaged.startswith("b.png is not a picture")
    assert all(sentence.startswith("Give a photo") for sentence in missing)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["uploads"]
