"""Restored faces back into their places: one way for photos and for the frames of films."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unfade.errors import BadInput
from unfade.faces.align import Matrix, crop, scaled
from unfade.faces.masks import Mask
from unfade.faces.paste import PasteSettings, paste
from unfade.images.photo import Photo
from unfade.images.tone import Tone

Enlarge = Callable[[Photo], Photo]


@dataclass(frozen=True, eq=False)
class Placed:
    """A face of a photo, as the restorer got it."""

    matrix: Matrix  # (2, 3): the photo to the crop
    crop: Tensor  # (3, S, S) in [-1, 1]
    tone: Tone | None = None  # that its result gets, of a grey or sepia photo


@dataclass(frozen=True)
class Tools:
    """What putting faces back may need besides settings."""

    enlarge: Enlarge | None = None  # makes the photo that faces are pasted into, `PasteSettings.upscale` times as large
    recrop: bool = False  # True: what enlarges restores too, and a face replaces what it made of the face
    mask: Mask | None = None  # where a restored face is a face; None: all of its square, but for the feather


def finished(faces: Sequence[Placed], restored: Sequence[Tensor], strength: float = 1.0) -> list[Tensor]:
    """What a restorer gave for each face, (3, S, S) in [-1, 1], in the tone of its photo and blended with its crop."""
    toned = (
        result if face.tone is None else face.tone.apply(result) for face, result in zip(faces, restored, strict=True)
    )
    return [blend(face.crop, result, strength) for face, result in zip(faces, toned, strict=True)]


def put_back(
    photo: Photo, faces: Sequence[Placed], results: Sequence[Tensor], settings: PasteSettings, tools: Tools
) -> Photo:
    """The photo with its faces, (3, S, S) in [-1, 1] each, in their places.

    It is changed in place, unless a tool enlarges it: then that makes another, `settings.upscale` times as large.
    """
    whole = photo if tools.enlarge is None else tools.enlarge(photo)
    matrices = [scaled(face.matrix, settings.upscale) for face in faces]
    before = [face.crop for face in faces]
    if tools.recrop:
        before = [crop(whole, matrix, face.shape[-1]) for matrix, face in zip(matrices, before, strict=True)]
    for i, (face, result, matrix) in enumerate(zip(before, results, matrices, strict=True)):
        mask = tools.mask and tools.mask(result)
        paste(whole, face, result, matrix, settings, mask=mask, others=matrices[:i] + matrices[i + 1 :])
    return whole


def blend(face: Tensor, restored: Tensor, strength: float) -> Tensor:
    """From the input at strength 0 to the restored picture at 1, each bit for bit; all of one shape, in [-1, 1]."""
    return strength * restored + (1 - strength) * face


def refuse_no_numbers(results: Sequence[object], place: object) -> None:
    """Raises BadInput where a result of `place`, a file, holds what is no number; what is no tensor is passed over."""
    if not all(bool(torch.isfinite(one).all()) for one in results if isinstance(one, Tensor)):
        raise BadInput(f"{place}: the network gave values that are not numbers; try another `restorer`.")


def shows_no_change(faces: Sequence[Placed], results: Sequence[Tensor], settings: PasteSettings) -> bool:
    """Whether faces that are put back leave a photo as it is: nothing was changed, and a change is what is added."""
    added = settings.way == "change" and settings.colour == "none"
    return added and all(torch.equal(face.crop, result) for face, result in zip(faces, results, strict=True))
