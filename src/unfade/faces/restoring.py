"""Putting restored faces back into photos and into frames of films."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unfade.errors import BadInput
from unfade.faces.align import Matrix, crop, scaled
from unfade.faces.masks import Mask
from unfade.faces.paste import PasteSettings, paste
from unfade.images.photo import Origin, Photo
from unfade.images.tone import Tone

Enlarge = Callable[[Photo], Photo]


@dataclass(frozen=True, eq=False)
class Placed:
    """A face of a photo as the restorer gets it, with its place."""

    matrix: Matrix  # (2, 3): from the photo to the crop
    crop: Tensor  # (3, S, S) in [-1, 1]
    tone: Tone | None = None  # of a grey or sepia photo, applied to the restored face


@dataclass(frozen=True)
class Tools:
    """Networks that putting faces back may use."""

    enlarge: Enlarge | None = None  # makes the photo that faces are pasted into, `PasteSettings.upscale` times as large
    recrop: bool = False  # True: `enlarge` also restores; a face replaces its version of that face
    mask: Mask | None = None  # marks the face in its square; None: the whole square, apart from the feather


def finished(faces: Sequence[Placed], restored: Sequence[Tensor], strength: float = 1.0) -> list[Tensor]:
    """The restorer's result for each face, (3, S, S) in [-1, 1], in the tone of its photo and blended with its crop.

    A face that came back as it was stays so.
    """
    toned = (
        result if face.tone is None or torch.equal(face.crop, result) else face.tone.apply(result)
        for face, result in zip(faces, restored, strict=True)
    )
    return [blend(face.crop, result, strength) for face, result in zip(faces, toned, strict=True)]


def put_back(
    photo: Photo, faces: Sequence[Placed], results: Sequence[Tensor], settings: PasteSettings, tools: Tools
) -> Photo:
    """The photo with its restored faces, (3, S, S) in [-1, 1] each, pasted back.

    The photo is changed in place, unless `tools.enlarge` makes a new one, `settings.upscale` times as large.
    """
    whole = photo if tools.enlarge is None else tools.enlarge(photo)
    matrices = [scaled(face.matrix, settings.upscale) for face in faces]
    before = [face.crop for face in faces]
    if tools.recrop:
        before = [crop(whole, matrix, face.shape[-1]) for matrix, face in zip(matrices, before, strict=True)]
    _paste_all(whole, before, results, matrices, masks_of(results, tools.mask), settings)
    return whole


def masks_of(results: Sequence[Tensor], mask: Mask | None) -> list[Tensor | None]:
    """The part of each restored face that is pasted, (1, M, M) in 0..1; None without a mask: the whole square."""
    return [mask and mask(result) for result in results]


def laid_out(
    photo: Photo,
    faces: Sequence[Placed],
    maps: Sequence[Tensor],
    settings: PasteSettings,
    masks: Sequence[Tensor | None],
) -> Photo:
    """Maps of faces, (3, S, S) in [-1, 1] each, where `put_back` puts these faces: over black, as large as its result.

    A map falls with the share that its face has of the result, to black outside its square.
    """
    size = photo.height * settings.upscale, photo.width * settings.upscale
    black = Photo(np.zeros((*size, 3), np.uint8), origin=Origin(grey=True))
    matrices = [scaled(face.matrix, settings.upscale) for face in faces]
    way = "face" if settings.way == "change" else settings.way
    plain = replace(settings, way=way, colour="none")
    _paste_all(black, [face.crop for face in faces], maps, matrices, masks, plain)
    return black


def _paste_all(
    photo: Photo,
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    matrices: Sequence[Matrix],
    masks: Sequence[Tensor | None],
    settings: PasteSettings,
) -> None:
    for i, (face, result, matrix, mask) in enumerate(zip(before, after, matrices, masks, strict=True)):
        paste(photo, face, result, matrix, settings, mask=mask, others=[*matrices[:i], *matrices[i + 1 :]])


def blend(face: Tensor, restored: Tensor, strength: float) -> Tensor:
    """From exactly the input at strength 0 to exactly the restored face at 1; both of the same shape, in [-1, 1]."""
    return strength * restored + (1 - strength) * face


def refuse_no_numbers(results: Sequence[object], place: object) -> None:
    """Raises BadInput where a result for the file `place` holds NaN or infinity; results that are no tensors pass."""
    if not all(bool(torch.isfinite(result).all()) for result in results if isinstance(result, Tensor)):
        raise BadInput(f"{place}: the network gave values that are not numbers; try another `restorer`.")


def shows_no_change(faces: Sequence[Placed], results: Sequence[Tensor], settings: PasteSettings) -> bool:
    """Whether pasting leaves the photo as it is: the way adds changes, and the restorer changed nothing."""
    added = settings.way == "change" and settings.colour == "none"
    return added and all(torch.equal(face.crop, result) for face, result in zip(faces, results, strict=True))
