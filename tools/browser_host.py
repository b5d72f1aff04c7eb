"""A browser without a window that runs an ONNX file by onnxruntime-web.

UNFADE_ORT_WEB names the folder `dist` of the npm package onnxruntime-web; `chromium` must be on the path.
"""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

DIST = os.environ.get("UNFADE_ORT_WEB", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TELLS = 600  # seconds that the page may take
PAGE = """<!doctype html><script type="module">
import * as ort from "/dist/ort.wasm.min.mjs";
let told;
try {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/dist/";
  const session = await ort.InferenceSession.create("/restorer.onnx");
  const shape = await (await fetch("/shape.json")).json();
  const pictures = new Float32Array(await (await fetch("/pictures.bin")).arrayBuffer());
  const given = await session.run({ input: new ort.Tensor("float32", pictures, shape) });
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


def restored_in_a_browser(model: Path, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """What an ONNX file makes of a batch, in the shape of the batch. Raises AssertionError with the page's error."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "index.html").write_text(PAGE)
        (folder / "shape.json").write_text(json.dumps(pictures.shape))
        (folder / "pictures.bin").write_bytes(np.ascontiguousarray(pictures).tobytes())
        (folder / "restorer.onnx").symlink_to(model.resolve())
        (folder / "dist").symlink_to(Path(DIST).resolve())
        with _served(folder) as (address, pages), _opened(f"{address}/index.html", folder / "profile"):
            assert pages.done.wait(TELLS), "the page told nothing"
    (told,) = pages.told
    assert len(told) == pictures.nbytes, told[:500].decode(errors="replace")
    return np.frombuffer(told, np.float32).reshape(pictures.shape).copy()


def version() -> str:
    """Of the browser and of onnxruntime-web."""
    browser = subprocess.run([str(CHROMIUM), "--version"], capture_output=True, text=True, check=True).stdout
    package = json.loads((Path(DIST).parent / "package.json").read_text())
    return f"{' '.join(browser.split()[:2])}, onnxruntime-web {package['version']}"


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, type[Pages]]]:
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


@contextmanager
def _opened(address: str, profile: Path) -> Iterator[None]:
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += [f"--user-data-dir={profile}", address]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        browser.terminate()
        browser.wait(30)
