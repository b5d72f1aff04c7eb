"""The camera degradation of Eq. 10 / Eq. 12: back to RAW, fewer pixels, sensor noise, camera pipeline.

The order is that of the authors' code: the picture is made camera-linear at full size and then downsampled (Eq. 10
prints it the other way round). `draw_camera` draws every parameter, `camera` applies them; each stage is a function
of its own. Inside this file, a picture is (h, w, 3) RGB.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unfade.degradations.demosaic import DEMOSAIC, GRBG
from unfade.degradations.sensor import PHONE, Four, Sensor, Triple, freeze_lists
from unfade.errors import BadInput

Array = npt.NDArray[np.float64]
Array32 = npt.NDArray[np.float32]
Normal = npt.NDArray[np.floating]


def require_scale(scale: int) -> None:
    """Raises BadInput for a ratio of sizes that is not 1, 2, 3, ..."""
    if scale < 1 or scale != int(scale):
        raise BadInput(f"Expected a whole scale of at least 1, got {scale}; the paper has 4 and 8.")


@dataclass(frozen=True)
class CameraSettings:
    """The camera and its setting. The defaults are the paper's moderate setting (Sec. 4.1)."""

    iso: float = 1500  # within the sensor's calibrated range; 1600 in the text, 1500 in the authors' code
    scale: int = 4  # r: size of the face / its size on the sensor; the paper has 4 and 8
    demosaic: str = "edge-aware"  # a key of DEMOSAIC; the authors use "learned", which is 1.2-1.7 dB better
    gamma: float = 2.2  # exponent of the tone curve, a plain power law
    sensor: Sensor = PHONE  # levels, noise tables, illuminants, colour matrix

    def __post_init__(self) -> None:
        self.sensor.noise(self.iso)  # refuses an ISO outside the calibrated range
        require_scale(self.scale)
        if self.demosaic not in DEMOSAIC:
            raise BadInput(f"Expected a demosaicing out of {', '.join(DEMOSAIC)}, got {self.demosaic}; choose one.")


CAMERA_PRESETS: dict[str, CameraSettings] = {
    "mild": CameraSettings(iso=800),
    "moderate": CameraSettings(),
    "severe": CameraSettings(iso=3000),
    "moderate-text": CameraSettings(iso=1600),  # "-text": as in the paper's text; the others follow the authors' code
    "severe-text": CameraSettings(iso=3200),
}


@dataclass(frozen=True)
class CameraDraw:
    """Every parameter of one face's degradation, including the calibration of its sensor.

    JSON through `dataclasses.asdict`, and back through `CameraDraw(**record)`.
    """

    iso: float  # for the record; its noise is in `shot` and `read`
    scale: int  # size / size on the sensor
    demosaic: str  # a key of DEMOSAIC
    gamma: float  # exponent of the tone curve
    black: float  # DN
    white: float  # DN
    shot: Four  # beta1, DN, of Gr, R, B, Gb
    read: Four  # beta2, DN^2, of the same four
    illuminant: Triple  # R/G, 1, B/G of white, camera-linear
    matrix: tuple[Triple, Triple, Triple]  # white-balanced camera RGB (column) to linear sRGB
    noise_seed: int  # of the normal numbers

    def __post_init__(self) -> None:
        freeze_lists(self)


def draw_camera(
    rng: np.random.Generator, *, size: int, settings: CameraSettings = CAMERA_PRESETS["moderate"]
) -> CameraDraw:
    """Draws the light and the noise of one photo of a face whose side is `size` pixels.

    Nothing scales with the size: `scale` is a ratio, and noise belongs to the sensor's pixels. Raises BadInput where
    `size` is too small for the scale.
    """
    sensor_size(size, size, settings.scale)
    sensor = settings.sensor
    shot, read = sensor.noise(settings.iso)
    return CameraDraw(
        iso=settings.iso,
        scale=settings.scale,
        demosaic=settings.demosaic,
        gamma=settings.gamma,
        black=sensor.black,
        white=sensor.white,
        shot=shot,
        read=read,
        illuminant=sensor.draw_illuminant(rng),
        matrix=sensor.matrix,
        noise_seed=int(rng.integers(2**63)),
    )


def camera(truth: Tensor, draw: CameraDraw, *, normal: Normal | None = None) -> Tensor:
    """The photo of a face, enlarged to the face's size: Eq. 10. (3, H, W) float32 in [-1, 1] in and out, 8-bit levels.

    `normal` are the standard normal numbers to use instead of those of the draw's seed: (h, w) of the mosaic (see
    `sensor_size`). Raises BadInput for another shape, or where the picture is too small for the scale.
    """
    picture = _to_rgb(truth)
    height, width = picture.shape[:2]
    linear = downsample(unprocess(picture, draw), draw.scale)
    raw = add_noise(expose(mosaic(linear), draw), draw, normal)
    colours = DEMOSAIC[draw.demosaic](normalise(raw, draw))
    return _from_rgb(enlarge(render(colours, draw), width, height))


def sensor_size(width: int, height: int, scale: int) -> tuple[int, int]:
    """(width, height) of the picture on the sensor. Raises BadInput below one tile of the mosaic, 2 x 2 pixels."""
    require_scale(scale)
    if min(width, height) // scale < 2:
        raise BadInput(
            f"Expected a picture of at least {2 * scale} x {2 * scale} pixels for scale {scale}, got "
            f"{width} x {height}; use a larger picture or a smaller scale."
        )
    return int(width // scale), int(height // scale)


def unprocess(picture: Array, draw: CameraDraw) -> Array:
    """(H, W, 3) display RGB in [0, 1] to camera-linear RGB, not clipped.

    Undoes the tone curve, the colour matrix and the white balance. The matrix is inverted with its rows divided by
    their sums, which keeps white white; `render` uses it undivided, as the authors do.
    """
    matrix = np.array(draw.matrix)
    inverse = np.linalg.inv(matrix / matrix.sum(axis=1, keepdims=True))
    linear = cv2.pow(picture, draw.gamma)
    return _float64(cv2.transform(linear, np.array(draw.illuminant)[:, None] * inverse))


def downsample(linear: Array, scale: int) -> Array:
    """(H, W, 3) to (H // scale, W // scale, 3) by the mean of the area under each pixel, clipped to [0, 1]."""
    height, width = linear.shape[:2]
    small = cv2.resize(linear, sensor_size(width, height, scale), interpolation=cv2.INTER_AREA)
    return _float64(small).clip(0, 1)


def mosaic(linear: Array) -> Array:
    """(h, w, 3) to the (h, w) that a sensor sees through its GRBG colour filter."""
    plane = np.empty(linear.shape[:2])
    for row, column, channel in GRBG:
        plane[row::2, column::2] = linear[row::2, column::2, channel]
    return plane


def expose(plane: Array, draw: CameraDraw) -> Array:
    """[0, 1] to DN, black to white, not rounded."""
    return _float64(plane * (draw.white - draw.black) + draw.black)


def add_noise(raw: Array, draw: CameraDraw, normal: Normal | None = None) -> Array:
    """(h, w) in DN plus heteroscedastic Gaussian noise (Eq. 12), clipped to 0..white.

    The variance is beta1 * DN + beta2, with the betas of each colour of the filter and DN including black; it is 0
    where that is negative.
    """
    if normal is None:
        normal = np.random.default_rng(draw.noise_seed).standard_normal(raw.shape)
    if normal.shape != raw.shape:
        raise BadInput(f"Expected normal numbers of shape {raw.shape}, got {normal.shape}; see sensor_size.")
    noisy = np.empty_like(raw)
    for (row, column, _), shot, read in zip(GRBG, draw.shot, draw.read, strict=True):
        place = np.s_[row::2, column::2]
        noisy[place] = raw[place] + np.sqrt(np.maximum(shot * raw[place] + read, 0)) * normal[place]
    return noisy.clip(0, draw.white)


def normalise(raw: Array, draw: CameraDraw) -> Array32:
    """DN to [0, 1], clipped. Inverse of `expose`."""
    return np.asarray(((raw - draw.black) / (draw.white - draw.black)).clip(0, 1), dtype=np.float32)


def render(linear: Array | Array32, draw: CameraDraw) -> Array32:
    """(h, w, 3) camera-linear RGB to display RGB in [0, 1]: white balance, colour matrix, tone curve, each clipped."""
    balanced = (linear / np.array(draw.illuminant)).clip(0, 1)
    colours = _float64(cv2.transform(balanced, np.array(draw.matrix))).clip(0, 1)
    return np.asarray(cv2.pow(colours, 1 / draw.gamma), dtype=np.float32)


def enlarge(photo: Array32, width: int, height: int) -> Array32:
    """(h, w, 3) in [0, 1] to (height, width, 3) by bilinear interpolation, then to 8 bits by truncation."""
    large = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    return np.asarray(np.floor(large * np.float32(255)) / np.float32(255), dtype=np.float32)


def _to_rgb(truth: Tensor) -> Array:
    if truth.ndim != 3 or truth.shape[0] != 3:
        raise BadInput(f"Expected one picture (3, H, W), got {tuple(truth.shape)}; give pictures one by one.")
    rgb = (truth.detach().cpu().double() + 1) / 2
    return np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()).clip(0, 1)


def _from_rgb(picture: Array32) -> Tensor:
    return torch.from_numpy(picture * 2 - 1).permute(2, 0, 1).contiguous()


def _float64(picture: npt.NDArray[np.number]) -> Array:
    return np.asarray(picture, dtype=np.float64)
