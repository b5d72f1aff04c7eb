"""The page: photos, their faces, restoring and adapting. It listens on 127.0.0.1 alone, and opens no connection."""

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from markupsafe import Markup, escape
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from unfade.app.desk import Desk
from unfade.app.looking import SIDE, looked_at
from unfade.app.watching import so_far
from unfade.app.work import USUAL, User, Wanted
from unfade.devices import Device
from unfade.errors import BadInput, UnfadeError
from unfade.images.files import shown, to_bytes
from unfade.progress import Progress
from unfade.report.curves import figures
from unfade.report.pictures import address_of

FILES = "files"  # the work folder below the page's address: a report needs the pictures beside it
NEWEST = 12  # pseudo targets that are shown
HIDDEN: Any = {"interactive": False, "visible": False}
PICTURES: Any = {**HIDDEN, "buttons": [], "columns": 6, "fit_columns": False, "object_fit": "contain", "height": "auto"}
KEPT: Any = {"secret": "unfade"}  # the browser's storage is no secret of this page
SLOW: Any = {"api_visibility": "private", "concurrency_limit": None}
QUICK: Any = {**SLOW, "show_progress": "hidden"}


class Layout:
    """The components of the page, from top to bottom; made inside of its `gr.Blocks`."""

    def __init__(self) -> None:
        self.token = gr.BrowserState("", storage_key="unfade", **KEPT)
        self.left_out = gr.BrowserState({}, storage_key="unfade-left-out", **KEPT)
        self.kept = gr.BrowserState([USUAL, 1, 0.5, 80], storage_key="unfade-chosen", **KEPT)  # for a reload
        self.name = gr.State("")  # of the photo that is shown
        self.seen, self.ended = gr.State([]), gr.State(0)  # how far the work was when last shown; what has ended
        gr.HTML("<h1>unfade</h1>Restores the faces in your photos. They do not leave this computer.")
        self.drop = gr.File(file_count="multiple", label="Photos", height=150, elem_id="drop")
        self.refused = gr.HTML(elem_id="refused")
        self.list = gr.Gallery(label="Your photos", allow_preview=False, elem_id="photos", **PICTURES)
        self.photo = gr.Image(buttons=[], elem_id="photo", **HIDDEN)
        self.restorer = gr.Dropdown([USUAL], label="Restorer", info="built-in: by the size of each face")
        with gr.Row():
            self.strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0: the photo, 1: fully restored")
            self.fidelity = gr.Slider(0, 1, 0.5, step=0.05, label="Fidelity", info="0: clean, 1: close to the photo")
            self.steps = gr.Number(80, label="Steps", info="of adapting", precision=0, elem_id="steps")
        with gr.Row():
            self.restore = gr.Button("Restore", variant="primary", elem_id="restore")
            self.adapt = gr.Button("Adapt to these photos", elem_id="adapt")
            self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self.stage = gr.HTML(elem_id="stage")
        self.slider = gr.ImageSlider(label="Before and after", buttons=["fullscreen"], elem_id="slider", **HIDDEN)
        self.results = gr.File(label="Restored, with metadata", file_count="multiple", elem_id="results", **HIDDEN)
        self.curves = gr.HTML(elem_id="curves")
        self.targets = gr.Gallery(label="Pseudo targets, the newest first", elem_id="targets", **PICTURES)


class Page(Layout):
    """What happens on the page. Handlers get the values of components, and return new ones."""

    def __init__(self, work: Path, device: Device = "auto") -> None:
        self.work, self.device, self.desk = work, device, Desk()
        with gr.Blocks(title="unfade", analytics_enabled=False, delete_cache=(86_400, 86_400)) as self.blocks:
            super().__init__()
            self._connect()
        for part in self.blocks.blocks.values():
            part.async_move_resource_to_block_cache = partial(_uploaded, part.async_move_resource_to_block_cache)

    def _connect(self) -> None:
        chosen = [self.restorer, self.strength, self.fidelity, self.steps]
        wanted = [self.token, self.left_out, *chosen]
        self.blocks.load(self.opened, [self.token, self.kept], [self.token, self.list, self.name, *chosen], **QUICK)
        self.drop.upload(self.dropped, [self.token, self.drop], [self.drop, self.refused, self.list, self.name], **SLOW)
        self.list.select(self.selected, self.token, self.name, **QUICK)
        self.photo.select(self.clicked, [self.token, self.left_out, self.name], self.left_out, **QUICK)
        changes = [part.change for part in (self.name, self.ended, self.left_out, self.restorer, self.steps)]
        changes += [self.strength.release, self.fidelity.release]
        gr.on(changes, self.looked, [self.name, *wanted], [self.kept, self.photo, self.slider, self.results], **QUICK)
        self.restore.click(partial(self.begun, Wanted.restore), wanted, self.stage, **QUICK)
        self.adapt.click(partial(self.begun, Wanted.adapt), wanted, self.stage, **QUICK)
        self.stop.click(self.stopped, self.token, **QUICK)
        live = [self.stage, self.stop, self.curves, self.targets, self.restorer, self.seen, self.ended]
        gr.Timer(1.0).tick(self.watched, [self.seen, *wanted], live, **QUICK)
        asked = [gr.File(visible=False, label="photo"), gr.Textbox(USUAL, visible=False), self.strength, self.fidelity]
        gr.Button(visible=False).click(self.one, asked, gr.File(visible=False), api_name="restore")

    def opened(self, token: object, kept: list[Any]) -> list[Any]:
        """What a user has left here, before a reload or before the server was started again."""
        user, (restorer, *values) = User.of(self.work, token), kept
        known = gr.Dropdown([*user.restorers], value=restorer if restorer in user.restorers else USUAL)
        return [user.folder.name, self._listed(user), next(iter(user.names), ""), known, *values]

    def dropped(self, token: str, files: list[str]) -> list[Any]:
        """Keep the photos that were dropped, and show the first of them."""
        user = User.of(self.work, token)
        names, refused = user.take(map(Path, files))
        return [None, said(*refused), self._listed(user), next(iter(names), gr.skip())]

    def selected(self, token: str, event: gr.SelectData) -> str:
        """The name of the photo that was clicked in the list."""
        return User.of(self.work, token).names[int(event.index)]

    def clicked(self, token: str, left_out: dict[str, list[int]], name: str, event: gr.SelectData) -> Any:
        """Leave out the face that was clicked, or use it again."""
        face = looked_at(User.of(self.work, token).photos / name).at(*event.index)
        return gr.skip() if face is None else {**left_out, name: sorted({*left_out.get(name, [])} ^ {face})}

    def looked(self, name: str, *chosen: Any) -> dict[Any, Any]:
        """The photo with its faces, and the results of what is chosen now."""
        wanted = self.wanted(*chosen)
        if name not in wanted.user.names:
            return {self.kept: chosen[2:]}
        looked = looked_at(wanted.user.photos / name)
        found = f"{len(looked.boxes)} found, click one to leave it out" if looked.boxes else "none found"
        marked = looked.marked(wanted.left_out.get(name, ()))
        results = {name: path for name in wanted.user.names if (path := wanted.variant.result(name))}
        both = (looked.pixels, to_bytes(shown(results[name], SIDE))) if name in results else None
        return {
            self.kept: chosen[2:],
            self.photo: gr.Image(marked, label=f"Faces in {name}: {found}", visible=True),
            self.slider: gr.ImageSlider(both, visible=both is not None),
            self.results: gr.File([*map(str, results.values())], visible=bool(results)),
        }

    def begun(self, work: Callable[[Wanted, Device, Progress], Sequence[str]], *chosen: Any) -> str:
        """Begin to restore all photos, or to adapt to them, or resume that."""
        wanted = self.wanted(*chosen)
        if wanted.user.names:
            self.desk.begin(wanted.user.folder, work, partial(work, wanted, self.device))
        return said("Beginning ..." if wanted.user.names else "Drop a photo first.")

    def stopped(self, token: str) -> None:
        """Stop what is done for the user."""
        if at_work := self.desk.of(User.of(self.work, token).folder):
            at_work.stop()

    def watched(self, seen: list[Any], *chosen: Any) -> dict[Any, Any]:
        """How far the work is or how it ended; the curves and the newest targets, if there is more than was `seen`."""
        wanted = self.wanted(*chosen)
        run, at_work = so_far(wanted.run), self.desk.of(wanted.user.folder)
        busy = at_work is not None and at_work.said is None
        lines = [line.replace(f"{wanted.user.folder}/", "") for line in at_work.lines] if at_work else []
        if run.report and not busy:
            address = f"/{FILES}/{address_of(run.report, self.work)}"
            lines.append(Markup('<a href="{}" target="_blank">Open the report of the adaptation</a>').format(address))
        elif run.folder.exists() and not at_work:
            lines.append("An adaptation was interrupted here; begin it again to resume.")
        now = [str(run.folder), len(run.targets), len(run.history.losses), busy, id(at_work)]
        if now == seen:
            return {self.stage: said(*lines)} if busy else {self.seen: seen}
        return {
            self.stage: said(*lines),
            self.stop: gr.Button(visible=busy),
            self.curves: figures(run.curves),
            self.targets: gr.Gallery([*map(str, run.targets[:NEWEST])], visible=bool(run.targets)),
            self.restorer: gr.Dropdown([*wanted.user.restorers], value=wanted.restorer),
            self.seen: now,
            self.ended: 0 if busy else id(at_work),
        }

    def wanted(self, token: str, left_out: Any, restorer: str, strength: float, fidelity: float, steps: Any) -> Wanted:
        """What is chosen on the page; at least 1 step, also while the field is empty."""
        return Wanted(User.of(self.work, token), left_out, restorer, strength, fidelity, max(1, int(steps or 1)))

    def one(self, photo: str, restorer: str, strength: float, fidelity: float) -> str:
        """Restore one photo for another program; raises what is wrong in one sentence."""
        with TemporaryDirectory(dir=self.work) as folder:
            result = _alone(User(Path(folder)), photo, (restorer, strength, fidelity), self.device)
            return str(self.blocks.move_resource_to_block_cache(result))  # a copy, which Gradio removes after a day

    def _listed(self, user: User) -> Any:
        return gr.Gallery([(str(user.thumb(name)), name) for name in user.names], visible=bool(user.names))


def serve(work: Path, *, port: int = 0, megabytes: int = 200, device: Device = "auto") -> str:
    """Start the page in a thread, and return its address. What users drop and get is kept below `work`.

    A `port` of 0 is the first free one from 7860 on. Raises BadInput if the port is taken.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ |= {"GRADIO_TEMP_DIR": str(work / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
    off = ("share", "inbrowser", "ssr_mode", "pwa", "mcp_server", "run_history", "enable_monitoring")
    server: Any = {"server_name": "127.0.0.1", "server_port": port or None, **dict.fromkeys(off, False)}
    files: Any = {"max_file_size": megabytes * gr.FileSize.MB, "allowed_paths": [str(work)], "footer_links": []}
    files["css_paths"] = [Path(__file__).with_name("page.css")]
    try:
        app, address, _ = Page(work, device).blocks.launch(prevent_thread_lock=True, quiet=True, **server, **files)
    except OSError as error:
        raise BadInput(f"The page cannot be served at port {port} ({error}); choose another `port`.") from error
    app.router.routes.insert(0, Mount(f"/{FILES}", StaticFiles(directory=work)))
    return str(address)


def said(*lines: str) -> str:
    """Lines as HTML; whatever they quote is escaped."""
    return Markup('<div class="said">{}</div>').format(Markup("<br>").join(map(escape, lines)))


def _alone(user: User, photo: str, chosen: tuple[str, float, float], device: Device) -> Path | None:
    """The result of the only photo of a user; raises gr.Error, which says what is wrong in one sentence."""
    restorer, strength, fidelity = chosen
    if not (photo and isinstance(strength, int | float) and isinstance(fidelity, int | float)):
        raise gr.Error("Give a photo, the restorer's name, and numbers for strength and fidelity.")
    try:
        wanted = Wanted(user, {}, restorer, strength, fidelity)
        wrong = user.take([Path(photo)])[1] or wanted.restore(device)
    except UnfadeError as error:
        wrong = [str(error).replace(f"{user.folder}/", "")]
    if wrong:
        raise gr.Error(escape(wrong[0]))
    return wanted.variant.result(*user.names)


async def _uploaded(keep: Callable[[str], Awaitable[str]], place: object) -> str:
    """Keep an uploaded file, as Gradio does; raises gr.Error for an address, which Gradio would fetch."""
    if str(place).startswith(("http://", "https://")):
        raise gr.Error("Photos are not fetched from an address; upload the file.")
    return await keep(str(place))
