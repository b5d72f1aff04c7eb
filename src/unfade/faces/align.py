"""From a photo to an aligned face: the similarity transform to FFHQ's five-point template, and the crop under it.

Positions refer to pixel centres: (0, 0) is the middle of the upper left pixel, so a picture of S px reaches from -0.5
to S - 0.5. A matrix is (2, 3) float64 and takes (x, y, 1) of the photo to (x, y) of the face.
"""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unfade.errors import BadInput
from unfade.images.photo import Photo, Window

Matrix = NDArray[np.float64]

TEMPLATE_SIZE = 512  # px
TEMPLATE: Matrix = np.array(  # left eye, right eye, nose, left and right corner of the mouth, in picture order
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ]
)
MARGIN = 3  # px around the part of the photo that a crop covers: a cubic kernel reaches 2


def to_template(points: ArrayLike, size: int) -> Matrix:
    """The similarity that takes five landmarks, (5, 2) in px of the photo, to FFHQ's template in a face of `size` px.

    The fit minimizes the median of the squared distances, so that one bad landmark does no harm. Raises BadInput where
    no similarity exists, as for points that coincide.
    """
    return _to_template(points, size, _least_median)


def steady(points: ArrayLike, size: int) -> Matrix:
    """`to_template` by least squares, for films: it changes continuously with the landmarks.

    The other, robust fit may leave out other landmarks from frame to frame.
    """
    return _to_template(points, size, least_squares)


def least_squares(points: Matrix, template: Matrix) -> Matrix:
    """The similarity, (2, 3), that takes points (N, 2) to those of a template with the least sum of squares.

    In closed form, with positions as complex numbers (Umeyama 1991, without reflections).
    """
    (x, y), (u, v) = points.T, template.T
    ours, theirs = x + 1j * y, u + 1j * v  # a similarity is one complex factor and one complex shift
    off = ours - ours.mean()
    turn = np.vdot(off, theirs - theirs.mean()) / np.vdot(off, off)
    shift = theirs.mean() - turn * ours.mean()
    return np.array([(turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag)])


def crop(photo: Photo, matrix: Matrix, size: int) -> Tensor:
    """The face under a matrix, (3, size, size) float32 in [-1, 1].

    Resampling is antialiased where it shrinks and cubic otherwise; beyond its border the photo is mirrored. Only the
    part of the photo that the crop needs becomes a tensor, and it is shrunk first if it is large.
    """
    shrinking = 1 / scale_of(matrix)  # px of the photo per px of the face
    if shrinking <= 1:
        return _warped(photo, matrix, size, times=1).clamp_(-1, 1)
    twice = _warped(photo, onto(matrix, 2), 2 * size, times=int(shrinking))
    return antialiased(twice, size).clamp_(-1, 1)


def centred(place: ArrayLike, scale: float, degrees: float, size: int) -> Matrix:
    """The similarity that takes a place (x, y) to the middle of a crop of `size` px, enlarged by `scale`.

    The crop shows the place turned counterclockwise by `degrees`.
    """
    angle = math.radians(degrees)
    turn = scale * np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    return np.column_stack([turn, (size - 1) / 2 - turn @ np.asarray(place, dtype=np.float64)])


def scaled(matrix: Matrix, factor: float) -> Matrix:
    """The matrix for the same photo enlarged by `factor`: its first pixel's centre moves to (factor - 1) / 2."""
    result: Matrix = matrix @ _resizing(1 / factor, 1 / factor)
    return result


def onto(matrix: Matrix, factor: float) -> Matrix:
    """The matrix for the same face at a side `factor` times as long."""
    result: Matrix = (_resizing(factor, factor) @ _square(matrix))[:2]
    return result


def inverse(matrix: Matrix) -> Matrix:
    """The matrix of the way back, from the face to the photo, (2, 3)."""
    return np.asarray(np.linalg.inv(_square(matrix))[:2], dtype=np.float64)


def scale_of(matrix: Matrix) -> float:
    """Px of the face per px of the photo."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def bounds(matrix: Matrix, size: int) -> tuple[float, float, float, float]:
    """The area that a face of `size` px covers: left, top, right, bottom in px of the photo, even beyond its border."""
    first, last = -0.5, size - 0.5
    corners = np.array([(first, first, 1), (first, last, 1), (last, first, 1), (last, last, 1)]) @ inverse(matrix).T
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    return float(left), float(top), float(right), float(bottom)


def antialiased(image: Tensor, size: int) -> Tensor:
    """(C, S, S) to (C, size, size) by Keys' cubic kernel, stretched by the factor of the shrinking."""
    if image.shape[-1] == size:
        return image
    result = F.interpolate(image[None], (size, size), mode="bicubic", align_corners=False, antialias=True)
    return result[0]


def to_array(image: Tensor) -> NDArray[np.float32]:
    """(C, h, w) -> (h, w, C), OpenCV's order."""
    return np.ascontiguousarray(image.detach().float().cpu().numpy().transpose(1, 2, 0))


def to_tensor(image: NDArray[Any]) -> Tensor:
    """(h, w, C) -> (C, h, w); the inverse of `to_array`."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _to_template(points: ArrayLike, size: int, fit: Callable[[Matrix, Matrix], Matrix | None]) -> Matrix:
    points = np.asarray(points, dtype=np.float64)
    matrix = fit(points, TEMPLATE * (size / TEMPLATE_SIZE)) if _spread_out(points) else None
    if matrix is None or not np.isfinite(matrix).all() or scale_of(matrix) < 1e-6:
        raise BadInput(f"Five landmarks of a face were expected, but no face fits {points.tolist()}; leave it out.")
    return matrix


def _least_median(points: Matrix, template: Matrix) -> Matrix | None:
    found = cv2.estimateAffinePartial2D(points, template, method=cv2.LMEDS)[0]
    return None if found is None else np.asarray(found, dtype=np.float64)


def _spread_out(points: Matrix) -> bool:
    return points.shape == TEMPLATE.shape and bool(np.isfinite(points).all()) and float(np.ptp(points, 0).max()) > 0


def _warped(photo: Photo, matrix: Matrix, size: int, *, times: int) -> Tensor:
    """A cubic crop from the window that it needs, which is first shrunk by the factor `times`."""
    left, top, right, bottom = window = _needed(photo, matrix, size)
    width, height = -(-(right - left) // times), -(-(bottom - top) // times)
    shrunk = _resizing(width / (right - left), height / (bottom - top))
    back = _square(inverse(matrix))
    back[:2, 2] -= left, top
    pixels = to_array(photo.resampled(window, height, width))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return to_tensor(
        cv2.warpAffine(pixels, (shrunk @ back)[:2], (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)
    )


def _needed(photo: Photo, matrix: Matrix, size: int) -> Window:
    """The part of the photo that a crop shows, directly or mirrored at the border."""
    left, top, right, bottom = bounds(matrix, size)
    (first_x, last_x), (first_y, last_y) = _span(left, right, photo.width), _span(top, bottom, photo.height)
    return first_x, first_y, last_x, last_y


def _span(first: float, last: float, length: int) -> tuple[int, int]:
    low, high = math.floor(first) - MARGIN, math.ceil(last) + MARGIN + 1
    mirrored_low, mirrored_high = min(low, 2 * length - high), max(high, -low)
    start = min(max(mirrored_low, 0), length - 1)
    return start, max(min(mirrored_high, length), start + 1)


def _square(matrix: Matrix) -> Matrix:
    return np.vstack([matrix, (0.0, 0.0, 1.0)])


def _resizing(x: float, y: float) -> Matrix:
    """(3, 3): takes positions to those after a resize by these factors, which keeps the picture's borders in place."""
    return np.array([(x, 0, x / 2 - 0.5), (0, y, y / 2 - 0.5), (0, 0, 1)])
