"""Colours that a file gives as numbers (primaries, white, curve) instead of a profile; and conversion to sRGB.

Code points are those of ITU-T H.273, which PNG's cICP and the nclx of AVIF and HEIC use. Colours that a profile can
describe become a profile; others, and curves that no network was trained on (linear light, PQ, HLG), are converted to
sRGB's curve.
"""

import io
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from unfade.images.photo import Levels

Point = tuple[float, float]  # CIE 1931 x and y
Array = NDArray[np.float64]
D65, C, DCI, E = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351), (1 / 3, 1 / 3)
BT709 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), D65)
PRIMARIES: dict[int, tuple[Point, Point, Point, Point]] = {  # red, green, blue, white
    1: BT709,
    2: BT709,  # "unspecified", as browsers interpret it
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), C),  # NTSC of 1953
    5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), D65),  # BT.601, 625 lines
    6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), D65),  # BT.601, 525 lines
    7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), D65),  # SMPTE 240M
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), C),  # film
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), D65),  # BT.2020
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), E),  # SMPTE 428
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), DCI),  # P3 of cinemas
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), D65),  # P3 of displays
    22: ((0.63, 0.34), (0.295, 0.605), (0.155, 0.077), D65),  # EBU 3213
}
SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # (a v + b) ** g from d on, c v below (ICC.1, Sec. 10.18)
BT709_CURVE = (1 / 0.45, 1 / 1.09929682680944, 0.09929682680944 / 1.09929682680944, 1 / 4.5, 4.5 * 0.018053968510807)
CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 7, 11, 12, 14, 15), BT709_CURVE),
    **dict.fromkeys((2, 13), SRGB),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    17: (2.6,),
}
PQ, HLG = 16, 18
BEYOND = {PQ: "PQ", HLG: "HLG"}
NITS_OF_WHITE, NITS_OF_HDR = 203.0, 1000.0  # ITU-R BT.2408; light above the second is clipped
KNEE = 0.8  # share of white up to which light is kept; above it is compressed
GAMMAS = (1.6, 3.0)  # range of gammas of display-referred pictures, the kind that networks are trained on
MOST_TAGS = 100  # of a profile
SAME = 0.002  # largest difference in x and y of equal chromaticities
ROWS = 1 << 20  # pixels that are converted at a time
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class Colours:
    """The colour space of a file: how its sample values map to light."""

    primaries: tuple[Point, Point, Point, Point] = BT709  # red, green, blue, white
    curve: tuple[float, ...] = SRGB  # a gamma alone, or five numbers as in SRGB
    beyond: int = 0  # PQ or HLG, which `curve` cannot express; 0: neither
    narrow: bool = False  # black is 16 and white 235 of 255

    @property
    def is_srgb(self) -> bool:
        """Whether the colours are sRGB and need no profile."""
        return self.curve == SRGB and not self.beyond and not self.narrow and self.has_srgb_primaries

    @property
    def has_srgb_primaries(self) -> bool:
        """Whether the primaries are sRGB's, within the rounding of chunks and tags."""
        return bool(np.abs(np.subtract(self.primaries, BT709)).max() < SAME)

    @property
    def is_for_displays(self) -> bool:
        """Whether the curve is near enough to sRGB's for networks that were trained on sRGB."""
        return not self.beyond and not self.narrow and (len(self.curve) > 1 or GAMMAS[0] <= self.curve[0] <= GAMMAS[1])


def by_code_points(primaries: int, transfer: int, *, full: bool = True) -> Colours | None:
    """Colours by their code points in H.273; None where one of them is unknown."""
    if primaries not in PRIMARIES or transfer not in (*CURVES, *BEYOND):
        return None
    curve = CURVES.get(transfer, SRGB)
    return Colours(PRIMARIES[primaries], curve, transfer if transfer in BEYOND else 0, narrow=not full)


def apply_colours(levels: Levels, colours: Colours, notes: list[str]) -> tuple[Levels, bytes]:
    """Levels (H, W, 1 to 4) and the profile that describes them now (b"" for sRGB), with the same colours as before.

    Where a profile can describe the colours, the levels are unchanged. Grey levels get no profile.
    """
    if colours.is_srgb:
        return levels, b""
    grey = levels.shape[-1] < 3
    what = BEYOND.get(colours.beyond) or ("linear light" if colours.curve == (1.0,) else "another curve")
    if colours.is_for_displays and not (grey and colours.curve != SRGB):
        if grey:
            return levels, b""  # primaries do not matter for grey
        notes.append("colours named by numbers kept as a colour profile")
        return levels, profile_of(colours)
    count = 1 if grey else 3
    notes.append(f"{what} brought to sRGB's curve" + (", light beyond white compressed" if colours.beyond else ""))
    brought = _to_srgb_curve(levels[..., :count], colours)
    plain = Colours(BT709 if grey else colours.primaries)
    return np.concatenate([brought, levels[..., count:]], axis=-1), b"" if plain.is_srgb else profile_of(plain)


@lru_cache
def profile_of(colours: Colours) -> bytes:
    """An ICC profile (version 4) of colours with a curve."""
    numbers = colours.curve
    kind = 0 if len(numbers) == 1 else 3
    curve = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(_fixed(number) for number in numbers)
    return _profile("Colours named by numbers", colours.primaries, curve)


def profile_as_of_grey(icc: bytes) -> bytes:
    """An RGB profile by which equal channels look as by a profile for grey; b"" where that has no curve."""
    (count,) = struct.unpack_from(">I", icc, 128)
    tags = [struct.unpack_from(">4sII", icc, 132 + 12 * place) for place in range(min(count, MOST_TAGS))]
    curve = next((icc[start : start + size] for name, start, size in tags if name == b"kTRC"), b"")
    return _profile("Curve of a grey profile", BT709, curve) if curve else b""


def _profile(name: str, primaries: tuple[Point, Point, Point, Point], curve: bytes) -> bytes:
    """A profile (version 4) of primaries and the content of a curve's tag."""
    matrix, adapted = _to_xyz(primaries)
    columns = [b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in matrix[:, place]) for place in range(3)]
    tags = [(b"desc", _text(name)), (b"cprt", _text("No copyright"))]
    tags += [(b"wtpt", b"XYZ \0\0\0\0" + b"".join(map(_fixed, D50)))]
    tags += [(b"chad", b"sf32\0\0\0\0" + b"".join(map(_fixed, adapted.ravel())))]
    tags += [(tag, column) for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)]
    tags += [(tag, curve) for tag in (b"rTRC", b"gTRC", b"bTRC")]
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, content in tags:
        content += b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", start + len(data), len(content))
        data += content
    head = (
        struct.pack(">I4xI", start + len(data), 0x04200000) + b"mntrRGB XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    )
    head += b"acsp" + bytes(28) + b"".join(map(_fixed, D50)) + bytes(48)
    return head + table + data


def to_srgb(levels: Levels, icc: bytes, notes: list[str]) -> Levels:
    """(H, W, 3) of 8 bits converted to sRGB by its RGB or grey profile; unchanged if that is sRGB's or missing."""
    if not icc:
        return levels
    try:
        transform = _transform(icc)
    except (ImageCms.PyCMSError, OSError):
        notes.append("colour profile that cannot be used left out")
        return levels
    if transform is None:
        return levels
    notes.append("converted to sRGB by its colour profile")
    grey = icc[16:20] == b"GRAY"
    image = Image.fromarray(np.ascontiguousarray(levels[..., 0]) if grey else levels)
    converted = np.array(ImageCms.applyTransform(image, transform))
    return converted[..., None].repeat(3, -1) if grey else converted


@lru_cache(maxsize=16)
def _transform(icc: bytes) -> ImageCms.ImageCmsTransform | None:
    """The conversion to sRGB; None for a profile that changes no colour by more than a level."""
    profile, srgb = ImageCms.getOpenProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    if icc[16:20] == b"GRAY":
        every = np.arange(256, dtype=np.uint8)[None]
        to_grey = ImageCms.buildTransform(profile, srgb, "L", "RGB")
        turned = np.array(ImageCms.applyTransform(Image.fromarray(every), to_grey))[..., 0]
        if np.abs(turned.astype(int) - every).max() <= 1:
            return None
        return ImageCms.buildTransform(profile, srgb, "L", "RGB")
    some = np.stack(np.meshgrid(*[np.linspace(0, 255, 9).round()] * 3), -1).reshape(27, 27, 3).astype(np.uint8)
    transform = ImageCms.buildTransform(profile, srgb, "RGB", "RGB")
    turned = np.array(ImageCms.applyTransform(Image.fromarray(some), transform))
    return None if np.abs(turned.astype(int) - some).max() <= 1 else transform


def _to_srgb_curve(levels: Levels, colours: Colours) -> Levels:
    most = np.iinfo(levels.dtype).max
    brought = np.empty_like(levels)
    step = max(1, ROWS // levels.shape[1])
    weights = _to_xyz(colours.primaries)[0][1] if levels.shape[-1] == 3 else np.ones(1)
    linear_of = _linear(np.arange(most + 1) / most, colours)
    for top in range(0, len(levels), step):
        light = linear_of[levels[top : top + step]]
        if colours.beyond == HLG:  # BT.2100: the display's own gamma, on the luminance
            light = light * np.maximum(light @ weights, 1e-6)[..., None] ** 0.2 * (NITS_OF_HDR / NITS_OF_WHITE)
        if colours.beyond:
            light = light * _compressed(light.max(-1, keepdims=True))
        brought[top : top + step] = np.rint(_encoded(light.clip(0, 1)) * most)
    return brought


def _linear(values: Array, colours: Colours) -> Array:
    """Signal, 0 to 1, to linear light, where 1 is white; for HLG, to scene light."""
    if colours.narrow:
        values = ((values * 255 - 16) / 219).clip(0, 1)
    if colours.beyond == PQ:  # SMPTE ST 2084
        power = values ** (1 / 78.84375)
        return np.asarray(
            (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        ) * (10_000 / NITS_OF_WHITE)
    if colours.beyond == HLG:  # ITU-R BT.2100
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    if len(colours.curve) == 1:
        return np.asarray(values ** colours.curve[0])
    gamma, a, b, c, d = colours.curve
    return np.where(values >= d, (a * values + b).clip(0) ** gamma, c * values)


def _encoded(light: Array) -> Array:
    """Linear light, 0 to 1, encoded by sRGB's curve."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _compressed(brightest: Array) -> Array:
    """The factor that brings light within 1, given the largest of each pixel's channels.

    It is 1 below the knee; above, light up to HDR's peak is compressed smoothly into the range up to white.
    """
    top = NITS_OF_HDR / NITS_OF_WHITE
    share = ((brightest - KNEE) / (top - KNEE)).clip(0, 1)
    slope = (top - KNEE) / (1 - KNEE)
    bent = KNEE + (1 - KNEE) * share * slope / (1 + share * (slope - 1))
    return np.where(brightest > KNEE, bent / np.maximum(brightest, KNEE), 1.0)


def _to_xyz(primaries: tuple[Point, Point, Point, Point]) -> tuple[Array, Array]:
    """The matrix from linear RGB to XYZ under D50, and the matrix of its chromatic adaptation."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] if y else [1, 0, 0] for x, y in primaries[:3]]).T
    if primaries is PRIMARIES[10]:
        columns = np.eye(3)
    x, y = primaries[3]
    white = np.array([x / y, 1, (1 - x - y) / y])
    matrix = columns * np.linalg.solve(columns, white)
    adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    return adapted @ matrix, adapted


def _fixed(number: float) -> bytes:
    return struct.pack(">i", round(number * 65_536))


def _text(text: str) -> bytes:
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 2 * len(text), 28) + text.encode("utf-16-be")
