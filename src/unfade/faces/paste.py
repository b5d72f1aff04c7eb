"""Pasting a restored face back into its photo: under a feathered mask, only inside the face's square."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np
import torch
from torch import Tensor

from unfade.errors import BadInput
from unfade.faces.align import Matrix, antialiased, bounds, inverse, onto, scale_of, to_array, to_tensor
from unfade.images.photo import Photo, Window

STRIP = 2**20  # px that are worked on at a time: 12 MB in each tensor, whatever the size of the face


@dataclass(frozen=True)
class PasteSettings:
    """How a restored face is pasted back. `paste` explains the ways."""

    way: str = "change"  # a name in WAYS
    feather: float = 0.15  # of the square's side: how far inside its border the mask reaches 1 (ways change and face);
    #                        0: no feather, for faces that fill the whole photo
    colour: str = "none"  # a name in COLOURS
    upscale: int = 1  # factor by which the photo has been enlarged; only the way "published" uses it

    def __post_init__(self) -> None:
        for name, value, known in (("way", self.way, WAYS), ("colour", self.colour, COLOURS)):
            if value not in known:
                raise BadInput(f"A {name} of pasting is one of {', '.join(known)}, not {value}.")
        if not 0 <= self.feather <= 0.5:
            raise BadInput(f"The feather must lie between 0 and 0.5 of the face's side, got {self.feather}.")
        if self.colour == "ring" and not self.feather:
            raise BadInput("Colours are matched in the ring where the mask rises: that needs a feather above 0.")


@dataclass(frozen=True)
class Patch:
    """A restored face with everything that pasting it needs."""

    crop: Tensor  # (3, S, S) in [-1, 1], the network's input
    restored: Tensor  # (3, R, R) in [-1, 1], the network's output
    matrix: Matrix  # photo -> crop
    mask: Tensor | None  # (1, M, M) in 0..1
    others: Sequence[Matrix]  # the matrices of the photo's other faces

    @property
    def size(self) -> int:
        """Side of the crop, px."""
        return int(self.crop.shape[-1])


def paste(
    photo: Photo,
    crop: Tensor,
    restored: Tensor,
    matrix: Matrix,
    settings: PasteSettings | None = None,
    *,
    mask: Tensor | None = None,
    others: Sequence[Matrix] = (),
) -> None:
    """Paste a restored face into its photo, in place; pixels outside its square stay identical bit for bit.

    `crop` (3, S, S) is the network's input and `restored` (3, R, R) its output, both in [-1, 1]. `matrix` takes the
    photo to the crop (see `align.scaled` for a photo that has been enlarged since). `mask`, (1, M, M) in 0..1 over the
    same square, marks the face (see `masks.parsing_mask`). `others` are the matrices of the photo's other faces, for
    the same S: where squares overlap, a face's share grows with the nearness of its centre, and all shares add up to at
    most 1.
    All faces of a photo are cropped before the first is pasted.
    Ways: "change" adds the network's change to the photo, so that a network that changes nothing gives the photo back
    exactly, and detail finer than the network's pixels is kept. "face" replaces the photo by the restored face.
    "published" does the same as facexlib and CodeFormer do it, half a pixel off where the photo was enlarged and a
    pixel or two beyond the square. Raises BadInput for faces that are not square.
    """
    settings = settings or PasteSettings()
    _check(crop, restored, mask)
    matched = COLOURS[settings.colour](restored, antialiased(crop, restored.shape[-1]), settings.feather)
    WAYS[settings.way](photo, Patch(crop, matched, matrix, mask, others), settings)


def _check(crop: Tensor, restored: Tensor, mask: Tensor | None) -> None:
    for image, channels in ((crop, 3), (restored, 3), (mask, 1)):
        if image is not None and (image.ndim != 3 or len(image) != channels or image.shape[1] != image.shape[2]):
            raise BadInput(f"A face to paste is ({channels}, S, S), not {tuple(image.shape)}; give one square face.")


# --- our ways: strip by strip, with the mask computed for each strip


def _paste_change(photo: Photo, patch: Patch, settings: PasteSettings) -> None:
    change = patch.restored - antialiased(patch.crop, patch.restored.shape[-1])
    _paste_layer(photo, change, patch, settings, lambda before, change, share: before + share * change)


def _paste_face(photo: Photo, patch: Patch, settings: PasteSettings) -> None:
    _paste_layer(photo, patch.restored, patch, settings, torch.lerp)


def _paste_layer(
    photo: Photo,
    layer: Tensor,
    patch: Patch,
    settings: PasteSettings,
    blend: Callable[[Tensor, Tensor, Tensor], Tensor],  # the photo, the layer, its share -> the photo
) -> None:
    for window in _strips(photo, patch):
        share = _share(window, patch, settings.feather)
        after = blend(photo.region(window), _laid(layer, window, patch), share)
        photo.paste(window, after, share > 0)


def _strips(photo: Photo, patch: Patch) -> Iterator[Window]:
    left, top, right, bottom = _window(photo, patch.matrix, patch.size)
    if left >= right:
        return
    rows = max(1, STRIP // (right - left))
    for row in range(top, bottom, rows):
        yield left, row, right, min(row + rows, bottom)


def _window(photo: Photo, matrix: Matrix, size: int, *, margin: int = 1) -> Window:
    """The part of the photo that holds all pixels whose centres lie in the square, and a margin around them."""
    left, top, right, bottom = bounds(matrix, size)
    first_x, first_y = max(0, floor(left) - margin), max(0, floor(top) - margin)
    return first_x, first_y, min(photo.width, ceil(right) + margin), min(photo.height, ceil(bottom) + margin)


def _laid(layer: Tensor, window: Window, patch: Patch) -> Tensor:
    """A layer (C, S, S) over the square, resampled to the window: (C, h, w), cubic, antialiased where it shrinks."""
    left, top, right, bottom = window
    finest = scale_of(onto(patch.matrix, layer.shape[-1] / patch.size))  # px of the layer per px of the photo
    if finest > 1:
        layer = antialiased(layer, max(1, ceil(layer.shape[-1] / finest)))
    there = onto(patch.matrix, layer.shape[-1] / patch.size)
    there[:, 2] += there[:, :2] @ (left, top)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(
        to_array(layer), there, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return to_tensor(laid.reshape(bottom - top, right - left, len(layer)))


def _share(window: Window, patch: Patch, feather: float) -> Tensor:
    """This face's share of each pixel of the window: (h, w) in 0..1, and 0 outside its square."""
    place = _place(window, patch.matrix, patch.size)
    share = _feathered(place[0], feather) * _feathered(place[1], feather)
    if patch.mask is not None:
        share = share * _laid(patch.mask, window, patch)[0].clamp(0, 1)
    near = [other for other in patch.others if _meets(window, bounds(other, patch.size))]
    if not near:
        return share
    own = _nearness(place)
    total = sum((_nearness(_place(window, other, patch.size)) for other in near), own)
    return share * own / total.clamp_min(1e-30)


def _place(window: Window, matrix: Matrix, size: int) -> tuple[Tensor, Tensor]:
    """Positions of the window's pixels in the square: x and y, (h, w) each, from 0 to 1 inside."""
    left, top, right, bottom = window
    x, y = (torch.arange(a, b, dtype=torch.float64) for a, b in ((left, right), (top, bottom)))
    across, down = (
        ((row[0] * x)[None] + (row[1] * y + row[2] + 0.5)[:, None]).float() / size for row in matrix.tolist()
    )
    return across, down


def _feathered(t: Tensor, feather: float) -> Tensor:
    """0 at the border and outside, rising smoothly (smoothstep) to 1 at `feather` inside it; a step if that is 0."""
    near = (torch.minimum(t, 1 - t) / max(feather, 1e-12)).clamp_(0, 1)
    return near * near * (3 - 2 * near)


def _nearness(place: tuple[Tensor, Tensor]) -> Tensor:
    """1 in the middle of the square, 0 at its border and beyond."""
    across, down = (4 * (t * (1 - t)).clamp_min(0) for t in place)
    return (across * down) ** 4


def _meets(window: Window, other: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = window
    return other[0] < right and other[2] > left and other[1] < bottom and other[3] > top


# --- as published


def _paste_published(photo: Photo, patch: Patch, settings: PasteSettings) -> None:
    left, top, right, bottom = window = _window(photo, patch.matrix, patch.size, margin=3)
    if left >= right or top >= bottom:
        return
    back = inverse(onto(patch.matrix, patch.restored.shape[-1] / patch.size))
    back[:, 2] += (0.5 if settings.upscale > 1 else 0) - np.array([left, top])
    area = right - left, bottom - top
    soft = _published_mask(back, patch.restored.shape[-1], area, settings.upscale)
    if patch.mask is not None:
        soft = soft * _laid(patch.mask, window, patch)[0].clamp(0, 1)
    face = to_tensor(cv2.warpAffine(to_array(patch.restored), back, area))
    photo.paste(window, torch.lerp(photo.region(window), face, soft), soft > 0)


def _published_mask(back: Matrix, size: int, area: tuple[int, int], upscale: int) -> Tensor:
    """(h, w) in 0..1: the square, eroded, eroded again by a tenth of its side, then blurred by half as much."""
    whole = cv2.warpAffine(np.ones((size, size), np.float32), back, area)
    inner = cv2.erode(whole, np.ones((2 * upscale, 2 * upscale), np.uint8))
    edge = int(float(inner.sum()) ** 0.5) // 20
    if edge:
        inner = cv2.erode(inner, np.ones((2 * edge, 2 * edge), np.uint8))
    return torch.from_numpy(cv2.GaussianBlur(inner, (2 * edge + 1, 2 * edge + 1), 0))


# --- colours


def _as_restored(restored: Tensor, crop: Tensor, feather: float) -> Tensor:
    return restored


def _as_ring(restored: Tensor, crop: Tensor, feather: float) -> Tensor:
    """The restored face with the photo's mean and deviation per channel, both of the ring where the mask rises."""
    size = crop.shape[-1]
    ramp = _feathered((torch.arange(size, dtype=torch.float32) + 0.5) / size, feather).to(crop)
    rising = ramp[:, None] * ramp
    ring = rising * (1 - rising)
    ours, theirs = _moments(restored, ring), _moments(crop, ring)
    return (restored - ours[0]) * (theirs[1] / ours[1]).clamp(0.5, 2) + theirs[0]


def _moments(image: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of each channel, (3, 1, 1) both."""
    weights = weights / weights.sum()
    mean = (image * weights).sum((1, 2), keepdim=True)
    return mean, ((image - mean) ** 2 * weights).sum((1, 2), keepdim=True).sqrt().clamp_min(1e-3)


WAYS: dict[str, Callable[[Photo, Patch, PasteSettings], None]] = {
    "change": _paste_change,
    "face": _paste_face,
    "published": _paste_published,
}
COLOURS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"none": _as_restored, "ring": _as_ring}
