"""An exported restorer in a browser, by onnxruntime-web: the same picture as torch makes.

`tools/browser_host.py` says what has to be installed.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from browser_host import CHROMIUM, DIST, restored_in_a_browser
from unfade.hosts.check import random_faces
from unfade.hosts.export import export
from unfade.hosts.settings import LEVEL, ExportSettings
from unfade.restorers.load import load_restorer
from unfade.restorers.picture_layout import Layout

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not (DIST and CHROMIUM), reason="needs chromium, and UNFADE_ORT_WEB for onnxruntime-web"),
    pytest.mark.skipif(not find_spec("onnxruntime"), reason="the extra `onnx` is not installed"),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["small-swinir", "small-restorer"])
def test_the_same_picture_in_a_browser_and_in_onnxruntime(name: str, dtype: str, tmp_path: Path) -> None:
    import onnxruntime

    layout = Layout(values="unit", axes="nhwc")
    path = export(name, tmp_path / "restorer.onnx", ExportSettings(layout=layout, dtype=dtype)).path
    face = random_faces(1, 128, seed=7)
    picture = layout.picture_of(face).contiguous().numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = load_restorer(name, device="cpu")(face).clamp(-1, 1)
    for shown in (restored_in_a_browser(path, picture), session.run(None, {"input": picture})[0]):
        assert (layout.face_of(torch.from_numpy(shown)) - expected).abs().max() <= LEVEL
