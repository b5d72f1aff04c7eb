"""How the published programs cut a face: the reference for parity, which this library does not do itself."""

import cv2
from torch import Tensor

from unfade.faces.align import Matrix, inverse, to_array, to_tensor
from unfade.images.photo import Photo

BORDER = (132, 133, 135)  # RGB in 0..255: the colour of published crops beyond the photo


def published_crop(photo: Photo, matrix: Matrix, size: int) -> Tensor:
    """The face as they cut it, (3, size, size) in [-1, 1]: bilinear, not antialiased, grey border."""
    pixels = to_array(photo.region((0, 0, photo.width, photo.height)))
    grey = tuple(level / 127.5 - 1 for level in BORDER)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    face = cv2.warpAffine(
        pixels, inverse(matrix), (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=grey
    )
    return to_tensor(face)
