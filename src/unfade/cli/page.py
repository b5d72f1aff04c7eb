"""The command `unfade app`."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from unfade.cli import flags as f
from unfade.cli.command import Outcome, say
from unfade.errors import BadInput

Work = Annotated[Path, f.option(f.BASIC, "Folder for what users drop on the page, and for their results.", "--work")]
Port = Annotated[int, f.option(f.BASIC, "Port of the page; 0: the first free one from 7860 on.", min=0, max=65_535)]
MaxFileSize = Annotated[int, f.option(f.BASIC, "Largest photo that can be dropped, in megabytes.", min=1)]


def page(
    work: Work = Path("unfade-app"),
    port: Port = 0,
    max_file_size: MaxFileSize = 200,
    device: f.Device = "auto",
    as_json: f.Json = False,
    quiet: f.Quiet = False,
) -> None:
    """Serve a page in the browser, on this computer alone: drop photos, restore their faces, adapt to them."""
    if find_spec("gradio") is None:
        raise BadInput('The page needs gradio, which is not installed: pip install "unfade[app]"')
    from unfade.app.page import serve
    from unfade.devices import choose_device

    address = serve(work, port=port, megabytes=max_file_size, device=choose_device(device))
    line = f"The page is at {address} until Ctrl-C; its files are in {work}."
    say(Outcome({"address": address, "work": str(work)}, [line]), as_json=as_json, quiet=quiet)
    while True:
        time.sleep(3600)
