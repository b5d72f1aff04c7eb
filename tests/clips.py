"""Short videos made for tests, and toys that find and restore what is in them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfade.faces.align import TEMPLATE, TEMPLATE_SIZE, to_template
from unfade.faces.detectors import Face
from unfade.images.finding import Found
from unfade.images.photo import Photo
from unfade.jobs.journal import Entry
from unfade.jobs.runs import open_run
from unfade.restorers.base import Restorer
from unfade.stages.photos import Finder, FoundFace
from unfade.stages.restore_photos import PhotoSettings

PLAIN = PhotoSettings()
SIZE = 64  # px of the toy restorer's faces


def make_clip(
    path: Path, frames: int = 20, *, size: tuple[int, int] = (160, 120), codec: str = "libx264",
    pix_fmt: str = "yuv420p", stamps: Sequence[int] | None = None, sound: str = "", matrix: Sequence[int] | None = None,
    draw: Callable[[int, int, int], np.ndarray] | None = None, full: bool = False, shape: Fraction | None = None,
    tag: str = "", options: dict[str, str] | None = None, kind: str | None = None, rate: int = 25,
) -> Path:  # fmt: skip
    """A video of width x height whose square moves by 2 px a frame; `stamps` are in 1/1000 s, else 25 frames a s.

    `shape` is that of a pixel, `kind` FFmpeg's name of the container; pictures that `draw` gives may have alpha.
    """
    import av

    with av.open(str(path), "w", format=kind) as container:
        usual = {} if codec == "ffv1" else {"crf": "12"}
        made: Any = container.add_stream(codec, rate=rate, options=usual if options is None else options)
        made.width, made.height, made.pix_fmt = *size, pix_fmt
        if stamps:
            made.codec_context.time_base = Fraction(1, 1000)
        if full:
            made.codec_context.color_range = 2
        if shape:
            made.codec_context.sample_aspect_ratio = shape
        if tag:
            made.codec_context.codec_tag = tag
        if matrix:
            made.set_display_matrix(matrix)
        heard: Any = container.add_stream(sound, rate=8000) if sound else None
        if heard:
            heard.layout = "mono"
        container.metadata["title"] = "Holiday"
        for i in range(frames):
            picture = (draw or drawn)(i, *size)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.shape[-1] == 3 else "rgba")
            frame = frame.reformat(format=pix_fmt, src_color_range=2, dst_color_range=2 if full else 1)
            frame.pts = stamps[i] if stamps else i
            frame.time_base = Fraction(1, 1000) if stamps else Fraction(1, rate)
            container.mux(made.encode(frame))
            if heard:
                container.mux(heard.encode(beep(i)))
        container.mux(made.encode(None))
        if heard:
            container.mux(heard.encode(None))
    return path


def drawn(i: int, width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    picture = np.stack([60 + x * 100 // width, 60 + y * 100 // height, 90 + 0 * x], -1)
    left = 20 + 2 * i
    picture[30:80, left : left + 50] = (200, 150, 120)
    return picture.clip(0, 255).astype(np.uint8)


def beep(i: int) -> Any:
    import av

    wave = np.sin(np.arange(320) * (0.1 + 0.01 * i)).astype(np.float32)[None] * 0.3
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 8000, 320 * i, Fraction(1, 8000)
    return frame


def face_at(left: float, top: float, width: float = 50.0, noise: np.ndarray | float = 0.0) -> Face:
    """A face in a square, its landmarks those of the template within it."""
    points = TEMPLATE / TEMPLATE_SIZE * 1.5 * width + (left - 0.25 * width, top - 0.3 * width) + noise
    return Face((left, top, left + width, top + width), points, 0.9)


def found(*faces: Face) -> list[FoundFace]:
    return [FoundFace(k, face, to_template(face.points, SIZE)) for k, face in enumerate(faces)]


def square_finder(name: str, photo: Photo) -> list[FoundFace]:
    """Finds the square of `drawn` by its colour."""
    levels = photo.levels if photo.levels.dtype == np.uint8 else photo.levels // 257
    hit = (levels[..., 0].astype(int) - levels[..., 2] > 55) & (levels[..., 0] > 170)
    if hit.sum() < 400:
        return []
    rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
    return found(face_at(float(columns[0]), float(rows[0]), float(columns[-1] + 1 - columns[0])))


class Brighter(Restorer):
    """Adds a constant to every face, and counts its calls and faces."""

    architecture = "brighter"

    def __init__(self, amount: float = 0.3) -> None:
        super().__init__()
        self.size, self.net = SIZE, nn.Identity()
        self.amount = nn.Parameter(torch.tensor(amount))
        self.batches: list[int] = []

    def forward(self, face: Tensor) -> Tensor:
        self.batches.append(len(face))
        return face + self.amount

    def objective(self, settings: Any, **parts: Any) -> Any:
        raise NotImplementedError

    def config(self) -> dict[str, object]:
        return {}


def restored(
    folder: Path, *names: str, restorer: Restorer | None = None, find: Finder = square_finder,
    settings: PhotoSettings = PLAIN, **given: Any,
) -> list[Entry]:  # fmt: skip
    """The entries of films of a folder, whose results lie in the folder `out` of it."""
    out = folder / "out"
    inputs = Found(folder, tuple(Path(name) for name in names))
    from unfade.stages.video import restore_videos

    with open_run(out, {"test": 1}) as run:
        return restore_videos(inputs, run, restorer or Brighter(), find, settings, **given)


def pictures(path: Path) -> list[np.ndarray]:
    """The frames of a film, upright."""
    from unfade.images.film_input import Frame, read_video

    with read_video(path) as reader:
        return [item.photo.levels for item in reader if isinstance(item, Frame)]
