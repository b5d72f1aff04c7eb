"""Degrade clean faces, each with its own random draw, which is recorded so that `remake` can repeat it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.blind import BLIND_PRESETS, BlindDraw, BlindSettings, blind, draw_blind
from unfade.degradations.camera import (
    CAMERA_PRESETS,
    CameraDraw,
    CameraSettings,
    camera,
    draw_camera,
    require_scale,
    sensor_size,
)
from unfade.degradations.fitted import FittedDegradation, FittedDraw
from unfade.degradations.fitted_file import degradation_file, load_degradation
from unfade.degradations.sensor import Sensor
from unfade.errors import BadInput
from unfade.images.filters import fit_square
from unfade.jobs.journal import Entry
from unfade.jobs.json_lines import JsonLines, fits
from unfade.jobs.run_stage import SMALLEST, Item, Stage, load_item
from unfade.jobs.runs import Run
from unfade.jobs.workers import Tell, one_thread, run_stage_on_cores
from unfade.progress import Advance
from unfade.store.checkpoints import sha256_of

T = TypeVar("T")
Record = dict[str, Any]  # a line of degradation.jsonl, see `remake`

RECORDS = "degradation.jsonl"
LINE: dict[str, Any] = {"name": str, "sha256": str, "kind": str, "size": int | None, "draw": dict}
Apply = Callable[[Tensor, Mapping[str, Any]], Tensor]  # (3, H, W) and the draw as JSON to a degraded (3, H, W)
APPLY: dict[str, Apply] = {  # those of "fitted" depend on a file: see `FittedKind.apply`
    "blind": lambda truth, draw: blind(truth, BlindDraw(**draw)),
    "camera": lambda truth, draw: camera(truth, CameraDraw(**draw)),
}


class Degradation(Protocol):
    """A degradation: all random parameters are drawn first, then applied according to `kind`. Can be pickled."""

    kind: ClassVar[str]  # a key of KINDS

    def draw(self, rng: np.random.Generator, *, height: int, width: int) -> BlindDraw | CameraDraw | FittedDraw:
        """The random parameters for one face of this size. Raises BadInput if the face is too small."""


@dataclass(frozen=True)
class BlindDegradation:
    """The degradation that restorers are trained with (Eq. 9)."""

    kind: ClassVar[str] = "blind"
    settings: BlindSettings = field(default_factory=BlindSettings)
    scale: int | None = None  # downsampling ratio r of all faces, instead of a draw from the range in the settings

    def __post_init__(self) -> None:
        if self.scale is not None:
            require_scale(self.scale)

    def draw(self, rng: np.random.Generator, *, height: int, width: int) -> BlindDraw:
        """Raises BadInput if the scale leaves fewer than 2 pixels of a side."""
        draw = draw_blind(rng, size=width, settings=self.settings)
        if self.scale is None:
            return draw
        sensor_size(width, height, self.scale)
        return replace(draw, ratio=float(self.scale))


@dataclass(frozen=True)
class CameraDegradation:
    """The degradation of a small camera in poor light (Eq. 10), with which no restorer was trained."""

    kind: ClassVar[str] = "camera"
    settings: CameraSettings = field(default_factory=CameraSettings)

    def draw(self, rng: np.random.Generator, *, height: int, width: int) -> CameraDraw:
        """Raises BadInput if the scale leaves less than one tile of the sensor's colour filter."""
        return draw_camera(rng, size=min(height, width), settings=self.settings)


@dataclass(frozen=True)
class FittedKind:
    """The degradation that was fitted to a folder, from its file."""

    kind: ClassVar[str] = "fitted"
    sha256: str  # of the file
    size: int  # px: it degrades faces of this size only
    file: Path = field(repr=False, compare=False)  # results do not depend on its path

    def draw(self, rng: np.random.Generator, *, height: int, width: int) -> FittedDraw:
        """Raises BadInput for a face of another size, since blur and noise are those of this one."""
        self.check_size(height, width)
        return self.loaded().draw(rng)

    def check_size(self, height: int, width: int) -> None:
        """Raises BadInput for any other size than that of the faces it was fitted to."""
        if (height, width) != (self.size, self.size):
            raise BadInput(
                f"{self.file} is the degradation of faces of {self.size} x {self.size} pixels, not {width} x {height}; "
                f"resize them with a `size` of {self.size}."
            )

    def apply(self, truth: Tensor, draw: Mapping[str, Any]) -> Tensor:
        """(3, size, size) and the draw as JSON to the same, degraded. Raises BadInput for another file's draw."""
        values = dict(draw)
        if values.pop("sha256", self.sha256) != self.sha256:
            raise BadInput(f"{self.file} did not degrade this face; give the file whose SHA-256 is in its line.")
        return self.loaded().applied(truth, FittedDraw(**values))

    def loaded(self) -> FittedDegradation:
        """The content of the file, which each process reads once. Raises BadInput if the file has changed."""
        return _content_of(self.file, self.sha256)


@lru_cache(maxsize=1)
def _content_of(file: Path, sha256: str) -> FittedDegradation:
    if sha256_of(file) != sha256:
        raise BadInput(f"{file} has changed since this run began; put the old file back, or start another run.")
    return load_degradation(file)


def blind_degradation(preset: str = "swinir", scale: int | None = None) -> BlindDegradation:
    """By the name of a preset; `scale` fixes the downsampling ratio. Raises BadInput for an unknown name."""
    return BlindDegradation(_preset(BLIND_PRESETS, preset), scale)


def camera_degradation(
    preset: str = "moderate",
    scale: int | None = None,
    *,
    iso: float | None = None,
    demosaic: str | None = None,
    sensor: Sensor | None = None,
) -> CameraDegradation:
    """By the name of a preset; the other arguments replace its values. Raises BadInput for an unknown name."""
    given = {"scale": scale, "iso": iso, "demosaic": demosaic, "sensor": sensor}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings = replace(_preset(CAMERA_PRESETS, preset), **changes)
    return CameraDegradation(replace(settings, iso=float(settings.iso)))  # so that 1600 and 1600.0 give the same record


def fitted_degradation(fitted: str | Path) -> FittedKind:
    """By a file that `save_degradation` wrote, or the folder of an adaptation. Raises BadInput, BadCheckpoint."""
    file = degradation_file(fitted)
    sha256 = sha256_of(file)
    return FittedKind(sha256, _content_of(file, sha256).size, file)


KINDS: dict[str, Callable[..., BlindDegradation | CameraDegradation | FittedKind]] = {
    "blind": blind_degradation,
    "camera": camera_degradation,
    "fitted": fitted_degradation,
}


def settings_of(degradation: BlindDegradation | CameraDegradation | FittedKind) -> dict[str, Any]:
    """What results depend on, as JSON holds it: not the place of a file."""
    return {name: value for name, value in asdict(degradation).items() if name != "file"}


def degrade_faces(
    truth: Iterable[Path],
    run: Run,
    degradation: Degradation,
    *,
    size: int | None = None,
    seed: int = 0,
    workers: int = 1,
    records: str = RECORDS,
) -> list[Entry]:
    """Degrade each clean face, resized to `size` first if given, and write it to the run's folder. One entry for each.

    The pictures are the same for any number of worker processes. `records`, a file in that folder, gets a line for each
    picture, before the picture is written, from which `remake` can make it again. With more than one worker, the main
    module must be importable. Raises OutputConflict if that file is not this run's.
    """
    if size is not None and size < SMALLEST:
        raise BadInput(f"Expected a size of at least {SMALLEST} pixels, got {size}; leave it out to keep the faces'.")
    out = run.folder
    run.journal.claim(out / records)
    paths, lines = list(truth), JsonLines(out / records)
    written = {line["name"]: line for line in lines.read() if fits(line, **LINE)}  # the last of a name counts

    def tell(record: Record) -> None:
        lines.append(record)
        written[record["name"]] = record

    make = _Degrading(degradation, size, seed)
    entries = run_stage_on_cores(make, paths, run, tell=tell, workers=workers)
    done = {entry.item: path for entry, path in zip(entries, paths, strict=True) if entry.status == "done"}
    for name in done.keys() - written.keys():  # the file was removed since
        written[name] = make.record(load_item(done[name], size))
    known = {path.name for path in paths}
    others = [name for name in written if name not in known and (out / f"{Path(name).stem}.png").exists()]
    lines.rewrite(written[name] for name in [*done, *others])
    return entries


def remake(truth: Tensor, record: Mapping[str, Any], *, fitted: str | Path | None = None) -> Tensor:
    """Make the degraded face of a parsed line of degradation.jsonl again, bit for bit.

    `truth` is the whole clean picture, (3, H, W) in [-1, 1], whose file has the line's name and sha256. The result is
    (3, h, w), with the line's size or, if that is null, the truth's. JPEG compression is the same bit for bit only with
    the same release of OpenCV. Lines of the kind "fitted" need the file or run folder `fitted`. Raises BadInput for
    anything that is not such a line, and for another file than that of the line.
    """
    try:
        if record["kind"] == FittedKind.kind and fitted is None:
            raise BadInput("This face was degraded like the photos of a folder; give that degradation as `fitted`.")
        own = APPLY if fitted is None else {**APPLY, FittedKind.kind: fitted_degradation(fitted).apply}
        name, apply, size, draw = record["name"], own[record["kind"]], record["size"], dict(record["draw"])
        with one_thread():
            return apply(truth if size is None else fit_square(truth, size, Path(name)), draw)
    except (KeyError, TypeError) as error:
        raise BadInput(f"Expected a line of {RECORDS} with name, kind, size and draw, got {record}.") from error


@dataclass(frozen=True)
class _Degrading:
    """Makes the stage in each worker process."""

    degradation: Degradation
    size: int | None
    seed: int

    def __call__(self, tell: Tell) -> Stage:
        apply = self.degradation.apply if isinstance(self.degradation, FittedKind) else APPLY[self.degradation.kind]

        def degraded(item: Item) -> Tensor:
            record = self.record(item)
            result = apply(item.pixels, record["draw"])
            tell(record)  # before the picture is written, so that no picture lacks its line
            return result

        def work(items: list[Item], advance: Advance) -> Tensor:
            return torch.stack([degraded(item) for item in items])

        return Stage("degraded", work, self.size, 1, repr(self))

    def record(self, item: Item) -> Record:
        """The line for a face; the same content, seed and size always give the same draw."""
        height, width = item.pixels.shape[-2:]
        rng = np.random.default_rng(item.seed(self.seed, "degrade"))
        draw = asdict(self.degradation.draw(rng, height=height, width=width))
        if isinstance(self.degradation, FittedKind):
            draw["sha256"] = self.degradation.sha256
        kind = self.degradation.kind
        return {"name": item.name, "sha256": item.content, "kind": kind, "size": self.size, "draw": draw}


def _preset(presets: dict[str, T], name: str) -> T:
    if name not in presets:
        raise BadInput(f"There is no preset named {name}; there are: {', '.join(presets)}.")
    return presets[name]
