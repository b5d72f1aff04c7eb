"""Clean faces to degraded faces, each with its own draw."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.blind import BLIND_PRESETS, blind, draw_blind
from unfade.degradations.camera import CAMERA_PRESETS, camera, draw_camera
from unfade.errors import BadInput
from unfade.progress import Advance, Progress, silent
from unfade.stages.items import Item, Stage, run_stage
from unfade.store.runs import Entry, Journal

T = TypeVar("T")
Degradation = Callable[[Tensor, np.random.Generator], Tensor]  # (3, H, W) to the same


def blind_degradation(preset: str = "swinir", scale: int | None = None) -> Degradation:
    """The degradation that restorers are trained with (Eq. 9). `scale` fixes the downsampling ratio, at any size."""
    settings = _preset(BLIND_PRESETS, preset)
    if scale is not None and scale < 1:
        raise BadInput(f"Expected a whole scale of at least 1, got {scale}; the paper has 4 and 8.")

    def degrade(truth: Tensor, rng: np.random.Generator) -> Tensor:
        draw = draw_blind(rng, size=truth.shape[-1], settings=settings)
        return blind(truth, draw if scale is None else replace(draw, ratio=float(scale)))

    return degrade


def camera_degradation(preset: str = "moderate", scale: int | None = None) -> Degradation:
    """The degradation of a small camera in poor light (Eq. 10), which no restorer was trained with."""
    settings = _preset(CAMERA_PRESETS, preset)
    if scale is not None:
        settings = replace(settings, scale=scale)
    return lambda truth, rng: camera(truth, draw_camera(rng, size=truth.shape[-1], settings=settings))


KINDS: dict[str, Callable[[str, int | None], Degradation]] = {"blind": blind_degradation, "camera": camera_degradation}
PRESETS: dict[str, tuple[str, ...]] = {"blind": tuple(BLIND_PRESETS), "camera": tuple(CAMERA_PRESETS)}


def degrade_faces(
    truth: Iterable[Path],
    out: Path,
    degradation: Degradation,
    *,
    size: int | None = None,
    seed: int = 0,
    key: str = "",
    journal: Journal,
    progress: Progress = silent,
) -> list[Entry]:
    """Write each clean face degraded to `out`, brought to `size` before if it is given. One entry for each face."""

    def work(items: list[Item], advance: Advance) -> Tensor:
        draws = [np.random.default_rng(item.seed(seed, "degrade")) for item in items]
        return torch.stack([degradation(item.pixels, rng) for item, rng in zip(items, draws, strict=True)])

    return run_stage(Stage("degraded", work, size, 1, key), truth, out, journal, progress=progress)


def _preset(presets: dict[str, T], name: str) -> T:
    if name not in presets:
        raise BadInput(f"There is no preset named {name}; there are: {', '.join(presets)}.")
    return presets[name]
