"""The components of the page, from top to bottom."""

from typing import Any

import gradio as gr

SHOWN: Any = {"interactive": False, "visible": False}
PICTURES: Any = {**SHOWN, "buttons": [], "columns": 6, "fit_columns": False, "object_fit": "contain", "height": "auto"}
KEPT: Any = {"secret": "unfade"}  # the browser's storage is no secret of this page


class Layout:
    """The page without what happens on it."""

    def __init__(self) -> None:
        with gr.Blocks(title="unfade", analytics_enabled=False, delete_cache=(86_400, 86_400)) as self.blocks:
            self.token = gr.BrowserState("", storage_key="unfade", **KEPT)
            self.left_out = gr.BrowserState({}, storage_key="unfade-left-out", **KEPT)
            self.kept = gr.BrowserState([], storage_key="unfade-chosen", **KEPT)  # what was chosen, for a reload
            self.name = gr.State("")  # of the photo that is shown
            self.seen, self.ended = gr.State([]), gr.State(0)  # how far the work was when last shown; what has ended
            gr.HTML("<h1>unfade</h1>Restores the faces in your photos. They do not leave this computer.")
            self.drop = gr.File(file_count="multiple", label="Photos", height=150, elem_id="drop")
            self.refused = gr.HTML(elem_id="refused")
            self.list = gr.Gallery(label="Your photos", allow_preview=False, elem_id="photos", **PICTURES)
            self.photo = gr.Image(buttons=[], elem_id="photo", **SHOWN)
            self._choices()
            self._results()
            self.clock = gr.Timer(1.0)

    def _choices(self) -> None:
        self.restorer = gr.Dropdown(["small-restorer"], label="Restorer", elem_id="restorer")
        with gr.Row():
            self.strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0: the photo, 1: fully restored")
            self.fidelity = gr.Slider(0, 1, 0.5, step=0.05, label="Fidelity", info="0: clean, 1: close to the photo")
            self.steps = gr.Number(80, label="Steps", info="of adapting", precision=0, elem_id="steps")
        with gr.Row():
            self.restore = gr.Button("Restore", variant="primary", elem_id="restore")
            self.adapt = gr.Button("Adapt to these photos", elem_id="adapt")
            self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self.stage = gr.HTML(elem_id="stage")

    def _results(self) -> None:
        label = "Restored photos, with their metadata"
        self.slider = gr.ImageSlider(label="Before and after", buttons=["fullscreen"], elem_id="slider", **SHOWN)
        self.results = gr.File(label=label, file_count="multiple", elem_id="results", **SHOWN)
        self.curves = gr.HTML(elem_id="curves")
        self.targets = gr.Gallery(label="Pseudo targets, the newest first", elem_id="targets", **PICTURES)
