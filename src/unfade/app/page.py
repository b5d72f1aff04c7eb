"""The page: photos, their faces, restoring and adapting. It listens on 127.0.0.1 alone, and opens no connection."""

import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from markupsafe import Markup, escape

from unfade.app.photos import Changes, Photos, said
from unfade.app.users import User
from unfade.app.work import Wanted, restorers_for
from unfade.devices import Device
from unfade.errors import BadInput, UnfadeError
from unfade.jobs.background import Background
from unfade.progress import Progress
from unfade.recipes.adapt import WEIGHTS
from unfade.recipes.adapt_report import CURVES
from unfade.recipes.tuning import history_so_far
from unfade.report.curves import Curve, draw

FILES = "files"  # the work folder below the page's address: a report needs the pictures beside it
NEWEST = 12  # pseudo targets that are shown
RESTORING, ADAPTING = threading.Lock(), threading.Lock()  # one of each at a time
Work = Callable[[Device, Progress], Sequence[str]]


class Page(Photos):
    """What happens on the page."""

    def __init__(self, work: Path, device: Device = "auto") -> None:
        super().__init__()
        self.work, self.device = work, device
        self.at_work: dict[Path, Background] = {}  # by the user's folder
        with self.blocks:
            self._connect()
            request = [gr.File(visible=False, label="photo"), gr.Textbox("small-restorer", visible=False)]
            request += [gr.Number(usual, visible=False) for usual in (1.0, 0.5)]
            gr.Button(visible=False).click(self.one, request, gr.File(visible=False), api_name="restore")
        for part in self.blocks.blocks.values():
            part.async_move_resource_to_block_cache = partial(_uploaded, part.async_move_resource_to_block_cache)

    def _connect(self) -> None:
        how: Any = {"api_visibility": "private", "concurrency_limit": None}
        quiet: Any = {**how, "show_progress": "hidden"}
        user, chosen = [self.token, self.left_out], [self.restorer, self.strength, self.fidelity, self.steps]
        live = [self.stage, self.stop, self.curves, self.targets, self.restorer, self.seen, self.ended]
        self.blocks.load(self.opened, [self.token, self.kept], [self.token, self.list, self.name, *chosen], **quiet)
        self.drop.upload(self.dropped, [self.token, self.drop], [self.drop, self.refused, self.list, self.name], **how)
        self.list.select(self.selected, [self.token], [self.name], **quiet)
        self.photo.select(self.clicked, [self.token, self.left_out, self.name], [self.left_out], **quiet)
        changes = [part.change for part in (self.name, self.ended, self.left_out, self.restorer, self.steps)]
        changes += [self.strength.release, self.fidelity.release]
        shown = [self.photo, self.slider, self.results, self.kept]
        gr.on(changes, self.looked, [self.name, *user, *chosen], shown, **quiet)
        self.restore.click(self.restored, [*user, *chosen], [self.stage], **quiet)
        self.adapt.click(self.adapted, [*user, *chosen], [self.stage], **quiet)
        self.stop.click(self.stopped, [self.token], **quiet)
        self.clock.tick(self.watched, [self.seen, *user, *chosen], live, **quiet)

    def restored(self, *chosen: Any) -> str:
        """Begin to restore all photos."""
        wanted = self.wanted(*chosen)
        return self._begin(wanted, wanted.restore, RESTORING)

    def adapted(self, *chosen: Any) -> str:
        """Begin an adaptation, or resume it."""
        wanted = self.wanted(*chosen)
        return self._begin(wanted, wanted.adapt, ADAPTING)

    def _begin(self, wanted: Wanted, work: Work, turn: threading.Lock) -> str:
        before = self.at_work.get(wanted.user.folder)
        if not wanted.user.names:
            return said("Drop a photo first.")
        if before is None or before.said is not None:
            self.at_work[wanted.user.folder] = Background(partial(work, self.device), turn)
        return said("Beginning ...")

    def stopped(self, token: str) -> None:
        """Stop what is done for the user."""
        if at_work := self.at_work.get(User.of(self.work, token).folder):
            at_work.stop()

    def watched(self, seen: list[Any], *chosen: Any) -> Changes:
        """How far the work is; the curves and the newest targets, if there is more than was `seen`."""
        wanted = self.wanted(*chosen)
        run, at_work = wanted.run, self.at_work.get(wanted.user.folder)
        targets = sorted(run.glob("targets/*.png"), key=lambda path: path.stat().st_mtime, reverse=True)
        history, busy = history_so_far(run / WEIGHTS), at_work is not None and at_work.said is None
        now = [str(run), len(targets), len(history.losses), busy, id(at_work)]
        if now == seen:
            return {self.stage: self._stage(run, at_work)} if busy else {self.seen: seen}
        return {
            self.stage: self._stage(run, at_work),
            self.stop: gr.Button(visible=busy),
            self.curves: _drawn([Curve(title, history.curve(name)) for name, title in CURVES.items()]),
            self.targets: gr.Gallery([str(path) for path in targets[:NEWEST]], visible=bool(targets)),
            self.restorer: gr.Dropdown([*restorers_for(wanted.user)], value=wanted.restorer),
            self.seen: now,
            self.ended: 0 if busy else id(at_work),
        }

    def _stage(self, run: Path, at_work: Background | None) -> str:
        """What is done for the user, or how it ended; and the report, if there is one."""
        if at_work and at_work.said is None:
            return said(f"{at_work.stage}: {at_work.done:.0f} of {at_work.total}")
        lines = [line.replace(f"{self.work}/", "") for line in at_work.said or ["Done."]] if at_work else []
        report = run / "report.html"
        if report.exists():
            address = quote(f"/{FILES}/{report.relative_to(self.work)}")
            lines.append(Markup('<a href="{}" target="_blank">Open the report of the adaptation</a>').format(address))
        elif run.exists() and not at_work:
            lines.append("An adaptation was interrupted here; begin it again to resume.")
        return said(*lines)

    def one(self, photo: str, restorer: str, strength: float, fidelity: float) -> str:
        """Restore one photo for another program; raises what is wrong in one sentence."""
        user = User.of(self.work, None)
        wanted = Wanted(user, restorer, strength, fidelity)
        try:
            for sentence in [*user.take([Path(photo)])] or wanted.restore(self.device):
                raise BadInput(sentence)
        except UnfadeError as error:
            raise gr.Error(escape(str(error))) from error
        return str(wanted.result(user.names[0]))


def serve(work: Path, *, port: int = 0, megabytes: int = 200, device: Device = "auto") -> str:
    """Start the page in a thread, and return its address. What users drop and get is kept below `work`.

    A `port` of 0 is the first free one from 7860 on. Raises BadInput if the port is taken.
    """
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(work / "uploads")
    page = Page(work, device)
    try:
        off = ("share", "inbrowser", "ssr_mode", "pwa", "mcp_server", "run_history", "enable_monitoring")
        server: Any = {"server_name": "127.0.0.1", "server_port": port or None, **dict.fromkeys(off, False)}
        files: Any = {"max_file_size": megabytes * gr.FileSize.MB, "allowed_paths": [str(work)], "footer_links": []}
        style: Any = {"css_paths": [Path(__file__).with_name("page.css")]}
        app, address, _ = page.blocks.launch(prevent_thread_lock=True, quiet=True, **server, **files, **style)
    except OSError as error:
        raise BadInput(f"The page cannot be served at port {port} ({error}); choose another `port`.") from error
    app.router.routes.insert(0, Mount(f"/{FILES}", StaticFiles(directory=work)))
    return str(address)


async def _uploaded(keep: Callable[[str], Awaitable[str]], place: object) -> str:
    """Keep an uploaded file, as Gradio does; raises gr.Error for an address, which Gradio would fetch."""
    if str(place).startswith(("http://", "https://")):
        raise gr.Error("Photos are not fetched from an address; upload the file.")
    return await keep(str(place))


def _drawn(curves: Sequence[Curve]) -> str:
    figure = Markup("<figure><figcaption>{}</figcaption>{}</figure>")
    drawn = Markup("").join(figure.format(curve.name, draw(curve)) for curve in curves if curve.points)
    return Markup('<div class="curves">{}</div>').format(drawn)
