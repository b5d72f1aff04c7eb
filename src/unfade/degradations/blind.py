"""The blind degradation of Eq. 9 / Eq. 11: blur, downsample, noise, JPEG, resize back.

It follows the published data sets of GFPGAN, DifFace and CodeFormer. `draw_blind` draws every parameter and
`blind` applies them, so a picture can be made again from its draw, and nothing here keeps state.
The horizontal flip of those data sets is left to the data loader, which flips the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unfade.degradations.colour import COLOUR
from unfade.errors import BadInput

Array = npt.NDArray[np.float32]
Kernel = npt.NDArray[np.float64]
Range = tuple[float, float]

# q is the squared Mahalanobis distance from the centre of the kernel.
PROFILES: dict[str, Callable[[Kernel, float], Kernel]] = {
    "gaussian": lambda q, beta: np.exp(-0.5 * q),
    "generalized": lambda q, beta: np.exp(-0.5 * np.power(q, beta)),
    "plateau": lambda q, beta: np.reciprocal(np.power(q, beta) + 1),
}


@dataclass(frozen=True)
class KernelKind:
    """The two properties behind the name that the papers give a kernel."""

    profile: str  # a key of PROFILES
    round: bool  # one sigma for both axes, no angle


KERNELS: dict[str, KernelKind] = {
    "iso": KernelKind("gaussian", round=True),
    "aniso": KernelKind("gaussian", round=False),
    "generalized_iso": KernelKind("generalized", round=True),
    "generalized_aniso": KernelKind("generalized", round=False),
    "plateau_iso": KernelKind("plateau", round=True),
    "plateau_aniso": KernelKind("plateau", round=False),
}


@dataclass(frozen=True)
class BlindSettings:
    """The ranges to draw from. The defaults are the paper's for SwinIR (Appendix B.1), which are DifFace's.

    Every range is (low, high), drawn uniformly. Ranges in pixels are meant for faces of `reference_size`;
    `draw_blind` scales them to the size at hand.
    """

    kernels: tuple[str, ...] = ("iso", "aniso")  # keys of KERNELS (GFPGAN, Sec. 4.1)
    kernel_probabilities: tuple[float, ...] = (0.5, 0.5)  # one for each kernel, summing to 1
    kernel_size: int = 41  # side of the kernel, odd, in pixels at reference_size
    sigma: Range = (0.1, 15.0)  # blur, in pixels at reference_size; two draws if the kernel is not round
    beta: Range = (0.5, 4.0)  # exponent of the generalized and plateau kernels (Real-ESRGAN); not used by others
    ratio: Range = (0.8, 32.0)  # r, size / downsampled size, at reference_size; below 1 enlarges
    noise: Range = (0.0, 20.0)  # standard deviation of the noise, in levels of 255
    quality: Range = (30.0, 100.0)  # JPEG quality, truncated to an integer
    jitter_probability: float = 0.0  # of shifting the channels (GFPGAN v1: 0.3)
    jitter_shift: float = 20.0  # largest shift of one channel, in levels of 255 (GFPGAN v1)
    colour_probability: float = 0.0  # of changing all four below, in random order (GFPGAN v1: 0.3)
    brightness: Range = (0.5, 1.5)  # factor; 1 changes nothing (this and the next three: GFPGAN v1)
    contrast: Range = (0.5, 1.5)  # factor
    saturation: Range = (0.0, 1.5)  # factor; 0 is grey
    hue: Range = (-0.1, 0.1)  # turns of the colour circle; 0 changes nothing
    grey_probability: float = 0.01  # of a grey face
    grey_truth: bool = True  # whether the truth of a grey face is grey too, so that no restorer learns to colourize
    reference_size: int = 512  # side of the faces that the ranges in pixels are meant for

    def __post_init__(self) -> None:
        unknown = [name for name in self.kernels if name not in KERNELS]
        if unknown or not self.kernels:
            raise BadInput(
                f"Expected kernels out of {', '.join(KERNELS)}, got {list(self.kernels)}; correct the names."
            )
        if len(self.kernels) != len(self.kernel_probabilities) or abs(sum(self.kernel_probabilities) - 1) > 1e-6:
            raise BadInput(
                f"Expected one probability for each of {self.kernels}, summing to 1, got {self.kernel_probabilities}; "
                "correct kernel_probabilities."
            )
        if self.kernel_size % 2 == 0:
            raise BadInput(f"Expected an odd kernel_size, got {self.kernel_size}; use {self.kernel_size + 1}.")
        self._check_ranges()

    def _check_ranges(self) -> None:
        above_zero, open_ended = 1e-6, float("inf")
        limits = {
            "sigma": (above_zero, open_ended),
            "beta": (above_zero, open_ended),
            "ratio": (above_zero, open_ended),
            "noise": (0.0, open_ended),
            "quality": (0.0, 100.0),
            "brightness": (0.0, open_ended),
            "contrast": (0.0, open_ended),
            "saturation": (0.0, open_ended),
            "hue": (-0.5, 0.5),
        }
        for name, (lowest, highest) in limits.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise BadInput(
                    f"Expected {name} as (low, high) within {lowest:g} to {highest:g}, got ({low}, {high}); correct it."
                )


BLIND_PRESETS: dict[str, BlindSettings] = {
    "swinir": BlindSettings(),  # the paper's SwinIR, and DifFace
    "gfpgan": BlindSettings(
        sigma=(0.1, 10),
        ratio=(0.8, 8),
        quality=(60, 100),
        jitter_probability=0.3,
        colour_probability=0.3,
        grey_truth=False,
    ),
    "codeformer": BlindSettings(  # as CodeFormer's paper states it
        sigma=(1, 15), ratio=(1, 30), quality=(30, 90), grey_probability=0
    ),
    "codeformer-stage2": BlindSettings(  # from here on as in CodeFormer's published option files
        sigma=(1, 15), ratio=(4, 30), quality=(30, 80), grey_probability=0
    ),
    "codeformer-stage3-small": BlindSettings(
        sigma=(0.1, 10), ratio=(1, 12), noise=(0, 15), quality=(60, 100), grey_probability=0
    ),
    "codeformer-stage3-large": BlindSettings(sigma=(1, 15), ratio=(4, 30), quality=(30, 80), grey_probability=0),
}


@dataclass(frozen=True)
class BlindDraw:
    """Everything that was drawn for one face, in pixels of that face.

    JSON through `dataclasses.asdict`, and back through `BlindDraw(**record)`.
    """

    kernel: str  # a key of KERNELS
    kernel_size: int  # odd, pixels
    sigma_x: float  # pixels
    sigma_y: float  # pixels
    theta: float  # angle of the kernel, radians
    beta: float  # exponent of generalized and plateau kernels
    ratio: float  # size / downsampled size
    noise: float  # standard deviation, levels of 255
    quality: int  # JPEG
    shift: tuple[float, float, float]  # of R, G and B, levels of 255
    grey: bool  # the face is grey
    grey_truth: bool  # the truth is made grey too
    noise_seed: int  # of the normal numbers
    colour: tuple[tuple[str, float], ...] = ()  # (key of COLOUR, amount), in the order they are applied

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", tuple(self.shift))  # JSON has lists only
        object.__setattr__(self, "colour", tuple((name, amount) for name, amount in self.colour))


def scaled_ratio(ratio: Range, scale: float) -> Range:
    """The range of r for faces `scale` times as large as those that `ratio` is meant for.

    Above 1, r sets how many pixels are left of a face, so it scales with the face: the smallest face keeps its number
    of pixels. At or below 1 no pixels are lost at any size, so r stays; and no end of the range is scaled from above 1
    to below 1. Where faces are so small that the range would be empty, r is its low end.
    """
    low, high = (end if end <= 1 else max(1.0, end * scale) for end in ratio)
    return low, max(low, high)


def scaled_kernel_size(kernel_size: int, scale: float) -> int:
    """The odd kernel size that truncates a kernel at the same multiple of its sigma after the face is scaled.

    At 512 px a sigma of 15 is truncated at 20 pixels, which is why the published kernels are as mild as they are.
    """
    return 2 * max(1, round((kernel_size // 2) * scale)) + 1


def draw_blind(rng: np.random.Generator, *, size: int, settings: BlindSettings = BLIND_PRESETS["swinir"]) -> BlindDraw:
    """Draws the degradation of one face whose side is `size` pixels.

    Sigma and the kernel size scale with size / reference_size, and r as in `scaled_ratio`. Noise and JPEG act on the
    downsampled face, which keeps its number of pixels, so they do not scale.
    Every call takes the same number of draws from `rng`, whatever the result.
    """
    scale = size / settings.reference_size
    kernel = settings.kernels[int(rng.choice(len(settings.kernels), p=settings.kernel_probabilities))]
    sigma_x, sigma_y = (float(s) for s in rng.uniform(*settings.sigma, 2) * scale)
    theta = float(rng.uniform(-np.pi, np.pi))
    if KERNELS[kernel].round:
        sigma_y, theta = sigma_x, 0.0
    beta = float(rng.uniform(*settings.beta))
    ratio = float(rng.uniform(*scaled_ratio(settings.ratio, scale)))
    noise = float(rng.uniform(*settings.noise))
    quality = int(rng.uniform(*settings.quality))
    shift = rng.uniform(-settings.jitter_shift, settings.jitter_shift, 3)
    jitter, grey = rng.uniform(size=2) < (settings.jitter_probability, settings.grey_probability)
    return BlindDraw(
        kernel=kernel,
        kernel_size=scaled_kernel_size(settings.kernel_size, scale),
        sigma_x=sigma_x,
        sigma_y=sigma_y,
        theta=theta,
        beta=beta,
        ratio=ratio,
        noise=noise,
        quality=quality,
        shift=(float(shift[0]), float(shift[1]), float(shift[2])) if jitter else (0.0, 0.0, 0.0),
        grey=bool(grey),
        grey_truth=bool(grey) and settings.grey_truth,
        noise_seed=int(rng.integers(2**63)),
        colour=_draw_colour(rng, settings),  # last, so that the other draws are the same with and without it
    )


def _draw_colour(rng: np.random.Generator, settings: BlindSettings) -> tuple[tuple[str, float], ...]:
    chance = rng.uniform()
    order = np.argsort(rng.uniform(size=len(COLOUR)))  # a shuffle would take a varying number of draws
    amounts = {name: float(rng.uniform(*getattr(settings, name))) for name in COLOUR}
    steps = list(amounts.items())
    return tuple(steps[k] for k in order) if chance < settings.colour_probability else ()


def blind(truth: Tensor, draw: BlindDraw, *, normal: npt.NDArray[np.floating] | None = None) -> Tensor:
    """The degraded face: Eq. 9, y = ((x * k) down r + n, JPEG) up r. (3, H, W) float32 in [-1, 1] in and out.

    The result is on the 8-bit grid. `normal` are the standard normal numbers to use instead of those of the
    draw's seed: (h, w, 3) of the downsampled face (see `downsampled_size`), channels in the order B, G, R.
    Raises BadInput for another shape.
    """
    image = _to_bgr(truth)
    height, width = image.shape[:2]
    image = blur(image, draw)
    image = resize(image, downsampled_size(width, height, draw.ratio))
    image = add_noise(image, draw, normal)
    image = jpeg(image, draw.quality)
    image = resize(image, (width, height))
    image = recolour(image, draw)
    return _from_bgr(np.rint(image.clip(0, 1) * 255) / np.float32(255))


def blind_pair(truth: Tensor, draw: BlindDraw) -> tuple[Tensor, Tensor]:
    """The training pair (degraded face, truth). The truth is made grey where the draw says so.

    Both are (3, H, W) float32 in [-1, 1].
    """
    face = blind(truth, draw)
    return face, _from_bgr(_grey(_to_bgr(truth))) if draw.grey_truth else truth


def blur_kernel(draw: BlindDraw) -> Kernel:
    """(size, size) float64 kernel that sums to 1: the profile at x^T S^-1 x for x on the grid -size//2 .. size//2."""
    profile = PROFILES[KERNELS[draw.kernel].profile]
    cos, sin = np.cos(draw.theta), np.sin(draw.theta)
    x, y = np.meshgrid(*[np.arange(draw.kernel_size) - draw.kernel_size // 2] * 2)
    q = ((cos * x + sin * y) / draw.sigma_x) ** 2 + ((cos * y - sin * x) / draw.sigma_y) ** 2
    kernel = profile(q, draw.beta)
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def blur(image: Array, draw: BlindDraw) -> Array:
    """(H, W, 3) blurred by the draw's kernel, borders mirrored without repeating the edge."""
    kernel = blur_kernel(draw)
    if draw.kernel == "iso":  # the only separable kernel: 41 + 41 products per pixel instead of 41 * 41
        row = kernel.sum(axis=0)
        return _float32(cv2.sepFilter2D(image, -1, row, row, borderType=cv2.BORDER_REFLECT_101))
    return _float32(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def downsampled_size(width: int, height: int, ratio: float) -> tuple[int, int]:
    """(width, height) after downsampling by `ratio`, at least 1 pixel each."""
    return max(1, int(width // ratio)), max(1, int(height // ratio))


def resize(image: Array, size: tuple[int, int]) -> Array:
    """(h, w, 3) to (width, height) pixels, bilinear and, as published, without antialiasing."""
    return _float32(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))


def add_noise(image: Array, draw: BlindDraw, normal: npt.NDArray[np.floating] | None = None) -> Array:
    """(h, w, 3) in [0, 1] plus independent Gaussian noise, clipped and not rounded."""
    if normal is None:
        normal = np.random.default_rng(draw.noise_seed).standard_normal(image.shape, dtype=np.float32)
    if normal.shape != image.shape:
        raise BadInput(f"Expected normal numbers of shape {image.shape}, got {normal.shape}; see downsampled_size.")
    return _float32((image + np.float32(draw.noise / 255) * normal.astype(np.float32)).clip(0, 1))


def jpeg(image: Array, quality: int) -> Array:
    """(h, w, 3) BGR in [0, 1] through a JPEG with 4:2:0 chroma, first rounded to 8 bits, half to even."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    _, coded = cv2.imencode(".jpg", np.rint(image * 255).astype(np.uint8), options)
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.float32) / np.float32(255)


def recolour(image: Array, draw: BlindDraw) -> Array:
    """(H, W, 3) BGR in [0, 1]: shifts the channels, makes grey, changes brightness to hue, each as the draw says.

    The order is GFPGAN's. On a grey face, saturation and hue change nothing.
    """
    if any(draw.shift):
        image = (image + np.asarray(draw.shift[::-1], dtype=np.float32) / np.float32(255)).clip(0, 1)
    if draw.grey:
        image = _grey(image)
    for name, amount in draw.colour:
        image = COLOUR[name](image, amount)
    return image


def _grey(image: Array) -> Array:
    return _float32(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))


def _to_bgr(image: Tensor) -> Array:
    if image.ndim != 3 or image.shape[0] != 3:
        raise BadInput(f"Expected one picture (3, H, W), got {tuple(image.shape)}; give pictures one by one.")
    rgb = (image.detach().cpu().float() + 1) / 2
    return np.ascontiguousarray(rgb.flip(0).permute(1, 2, 0).numpy())


def _from_bgr(image: Array) -> Tensor:
    return torch.from_numpy(image * 2 - 1).permute(2, 0, 1).flip(0).contiguous()


def _float32(image: npt.NDArray[np.number]) -> Array:
    return np.asarray(image, dtype=np.float32)
