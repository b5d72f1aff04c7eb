"""The trust map of a whole photo: the bounds of its faces, where they are."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from unfade.atomic import atomic_write
from unfade.faces.masks import Mask
from unfade.faces.paste import PasteSettings
from unfade.faces.restoring import Placed, blend, laid_out, masks_of
from unfade.faces.trust import Trust
from unfade.images.encoding import encode_photo
from unfade.images.photo import Photo
from unfade.images.tone import tone_of

MAP = ".trust.png"  # what the name of a trust map appends to that of its result

GREY = "no trust map: bounds are not calibrated for grey and sepia photos"


def no_map(photo: Photo, faces: Sequence[Tensor], trust: Trust | None) -> str:
    """Why a photo with these faces, (3, S, S) each, has no map although one is wanted; empty otherwise."""
    if trust is None or not faces:
        return ""
    return trust.why_not(faces) or (GREY if tone_of(photo) is not None else "")


def write_map(
    path: Path,
    photo: Photo,
    faces: Sequence[Placed],
    results: Sequence[Tensor],
    trust: Trust,
    *,
    strength: float,
    settings: PasteSettings,
    mask: Mask | None,
) -> None:
    """Write the map of a photo, a grey PNG as large as its result.

    `results` (3, S, S) are those of the faces at full strength, in the tone of the photo.
    """
    maps = [trust.map_of(face.crop, result, strength) for face, result in zip(faces, results, strict=True)]
    pasted = [blend(face.crop, result, strength) for face, result in zip(faces, results, strict=True)]
    laid = laid_out(photo, faces, maps, settings, masks_of(pasted, mask))
    atomic_write(path, encode_photo(laid, kind="PNG"))
