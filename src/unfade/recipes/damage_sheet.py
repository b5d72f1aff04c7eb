"""A picture of a fitted degradation: a clean face before and after, its blur and noise, and curves of both."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.degradations.fitted import LEVELS, FittedDegradation, FittedDraw, blur, with_random_phases
from unfade.degradations.measured import Damage, frequencies, response_of
from unfade.degradations.rings import filtered
from unfade.images.files import read_image
from unfade.images.filters import fit_square
from unfade.images.finding import list_images
from unfade.images.plot import Axis, plot
from unfade.images.sheet import sheet
from unfade.recipes.adapt_settings import DRAWN
from unfade.store.seeds import seed_for

SIDE = 256  # px of each picture
CHANNELS = ("#d03030", "#209020", "#3050d0")
FACE = "014"  # stem of a face with light, dark and fine detail
SHOWN = 3  # photos like which the face is degraded
WELL_SEEN = 40.0  # grey levels: the strength at which noise is shown, whatever its own


def damage_sheet(fitted: FittedDegradation, damage: Damage) -> Tensor:
    """(3, H, W) in [-1, 1]: two rows of titled pictures. The same degradation always gives the same picture."""
    clean = _clean_face(fitted.size)
    spread = torch.linspace(0, len(fitted.noise) - 1, SHOWN).round().long().tolist()
    made = [fitted.applied(clean, FittedDraw(photo, seed_for("inspect", i))) for i, photo in enumerate(spread)]
    faces = [
        ("a clean face", clean),
        *((f"as photo {photo + 1}", face) for photo, face in zip(spread, made, strict=True)),
    ]
    rows = [faces, [_point(fitted), _noise(fitted, damage), _response(fitted), _strengths(damage)]]
    return torch.cat([sheet([(title, [picture]) for title, picture in row], side=SIDE) for row in rows], 1)


def _clean_face(size: int) -> Tensor:
    """A face of the package, enlarged if the package has none that large."""
    folder = next((folder for side, folder in DRAWN.items() if size <= side), DRAWN[max(DRAWN)])
    path = next(path for path in list_images(folder) if path.stem == FACE)
    return fit_square(read_image(path), size, path)


def _point(fitted: FittedDegradation) -> tuple[str, Tensor]:
    """What the mean kernel and its correction make of a white point, scaled so that the brightest pixel is white."""
    point = torch.zeros(1, 3, fitted.size, fitted.size)
    middle, radius = fitted.size // 2, fitted.kernels.shape[-1] // 2
    point[..., middle, middle] = 1
    spread = blur(point, fitted.kernels.mean(0, keepdim=True))[0]
    if fitted.response is not None:
        spread = filtered(spread, fitted.response)
    around = slice(middle - radius, middle + radius + 1)
    spread = spread[:, around, around]
    levels = (spread / spread.max().clamp_min(1e-12)).clamp_min(0) * 2 - 1
    side = levels.shape[-1] * max(1, SIDE // levels.shape[-1])
    enlarged = F.interpolate(levels[None], size=(side, side), mode="nearest")[0]
    return f"a point, {levels.shape[-1]} x {levels.shape[-1]} px", enlarged


def _noise(fitted: FittedDegradation, damage: Damage) -> tuple[str, Tensor]:
    """A patch of the noise of the middle photo, enlarged so that its grain shows."""
    middle = len(fitted.noise) // 2
    noise = with_random_phases(fitted.noise[middle], np.random.default_rng(seed_for("inspect", "noise")))
    side = min(fitted.size, SIDE // 4)
    piece = noise[:, :side, :side]
    piece = (piece - piece.mean((1, 2), keepdim=True)) / piece.std().clamp_min(1e-6) * (WELL_SEEN / 127.5)
    larger = F.interpolate(piece[None], scale_factor=SIDE // side, mode="nearest")[0]
    return f"noise, {side} px, x {WELL_SEEN / max(damage.noise.middle, 0.1):.1f}", larger


def _response(fitted: FittedDegradation) -> tuple[str, Tensor]:
    gains = response_of(fitted)
    curves = [
        (colour, list(zip(frequencies().tolist(), line.tolist(), strict=True)))
        for colour, line in zip(CHANNELS, gains, strict=True)
    ]
    x = Axis("cycles per pixel", 0, 0.5, (0, 0.1, 0.2, 0.3, 0.4, 0.5))
    return "what is left of detail", plot(curves, x, Axis("gain", 0, 1.2, (0, 0.5, 1)), side=SIDE)


def _strengths(damage: Damage) -> tuple[str, Tensor]:
    levels = damage.noise.levels
    points = [((i + 0.5) * 256 / LEVELS, level) for i, level in enumerate(levels)]
    most = next(top for top in (5, 10, 20, 50, 100, 200, 500) if max(levels) < top or top == 500)
    x, y = Axis("brightness", 0, 256, (0, 64, 128, 192, 256)), Axis("grey levels", 0, most, (0, most / 2, most))
    return "strength of noise", plot([("black", points)], x, y, side=SIDE)
