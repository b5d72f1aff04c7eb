"""An exported restorer in a browser, by onnxruntime-web: the same picture as torch makes.

UNFADE_ORT_WEB names the folder `dist` of the npm package onnxruntime-web; `chromium` must be on the path.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from unfade.hosts.check import random_faces
from unfade.hosts.export import export
from unfade.hosts.settings import LEVEL, ExportSettings
from unfade.restorers.layout import Layout
from unfade.restorers.load import load_restorer

DIST = os.environ.get("UNFADE_ORT_WEB", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGE = """<!doctype html><script type="module">
import * as ort from "/dist/ort.wasm.min.mjs";
let told;
try {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/dist/";
  const session = await ort.InferenceSession.create("/restorer.onnx");
  const face = new Float32Array(await (await fetch("/face.bin")).arrayBuffer());
  const side = Math.sqrt(face.length / 3);
  const given = await session.run({ input: new ort.Tensor("float32", face, [1, side, side, 3]) });
  told = given.output.data;
} catch (error) {
  told = String(error);
}
await fetch("/told", { method: "POST", body: told });
</script>"""


class Pages(SimpleHTTPRequestHandler):
    """Serves a folder on this machine, and keeps what the page tells."""

    told: list[bytes]
    done: threading.Event
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}  # noqa: RUF012

    def do_POST(self) -> None:
        self.told.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.done.set()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of requests."""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, type[Pages]]]:
    """The address of a server on 127.0.0.1, and the class that keeps what it is told."""
    pages = type("Kept", (Pages,), {"told": [], "done": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(pages, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", pages
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.host
@pytest.mark.skipif(not (DIST and CHROMIUM), reason="needs chromium, and UNFADE_ORT_WEB for onnxruntime-web")
@pytest.mark.skipif(not find_spec("onnxruntime"), reason="the extra `onnx` is not installed")
def test_the_same_picture_in_a_browser(tmp_path: Path) -> None:
    layout = Layout(values="unit", axes="nhwc")
    export("small-swinir", tmp_path / "restorer.onnx", ExportSettings(layout=layout))
    face = random_faces(1, 128, seed=7)
    (tmp_path / "face.bin").write_bytes(layout.picture_of(face).contiguous().numpy().tobytes())
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "dist").symlink_to(DIST)
    with served(tmp_path) as (address, pages):
        command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", f"{address}/index.html"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert pages.done.wait(300), "the page told nothing"
        finally:
            browser.terminate()
            browser.wait(30)
    (told,) = pages.told
    assert len(told) == 4 * face.numel(), told[:500].decode(errors="replace")
    shown = torch.from_numpy(np.frombuffer(told, np.float32).copy()).view(1, 128, 128, 3)
    with torch.no_grad():
        expected = load_restorer("small-swinir", device="cpu")(face).clamp(-1, 1)
    assert (layout.face_of(shown) - expected).abs().max() <= LEVEL
