"""The meaning of a file's sample values: which is black, which white, and what is transparency.

Integers are black at 0 and white at the largest value of their bits. But cameras and microscopes store 10 or 12 bits in
16, and floating point does not define white. There, white is estimated from the values themselves, and where that is
impossible, the file is refused.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unfade.errors import UnreadableImage
from unfade.images.photo import Levels
from unfade.images.tiff_samples import CIE_LAB, ICC_LAB, PREMULTIPLIED, STRAIGHT, WHITE_IS_ZERO, Samples

MOST = 65_535  # the largest level, for samples of more than 8 bits
FEWER_BITS = (8, 10, 12, 16, 24)  # depths that files store in more bits
DARKEST = 16  # a photo that is not all black has a value above 1 / 16 of the range
DIM = 4  # no value above 1 / 4 of the range: 14 bits in 16, or a dark photo; the two cannot be told apart
OVERSHOOT = 1.05  # how far sharpening and resampling go beyond white, and below black
LIGHT = 16  # floats between OVERSHOOT and this are light brighter than white, or cannot be interpreted
ROWS = 1 << 22  # values that are converted at a time

Numbers = NDArray[Any]


def levels_of(samples: Samples, path: Path, notes: list[str]) -> Levels:
    """(H, W, C) of uint8, or of uint16 for more than 8 bits: the colours and, if there is one, straight alpha.

    Adds to `notes` what had to be guessed, converted or left out. Raises UnreadableImage where black and white cannot
    be determined.
    """
    colours = samples.numbers[..., : samples.colours]
    alpha = _alpha(samples, notes)
    most = 255 if samples.bits <= 8 else MOST
    if samples.bits == 1:
        notes.append("black and white converted to grey")
    if colours.dtype.kind == "f":
        white = _white_of_floats(colours, alpha, path, notes)
        white_alpha = 1.0 if alpha is None or alpha.max() <= 1 else white
    else:
        white = _white_of_whole(colours, samples, notes)
        full = 2**samples.bits - 1
        white_alpha = white if alpha is not None and white < full and alpha.max() <= white else full
    levels = _scaled(colours, white, most, inverted=samples.photometric == WHITE_IS_ZERO)
    if alpha is None:
        return levels
    clear = _scaled(alpha, white_alpha, most)
    if PREMULTIPLIED in samples.extras:
        notes.append("colours divided by the transparency they were multiplied by")
        levels = straightened(levels, clear[..., 0])
    return np.concatenate([levels, clear], axis=-1)


def lab_levels(samples: Samples, notes: list[str]) -> NDArray[np.uint8]:
    """(H, W, 3) of CIE Lab in Pillow's form: L from 0 to 255, a and b from -128 to 127 with an offset of 128."""
    lab = samples.numbers[..., :3]
    _alpha(replace(samples, extras=(0,) * len(samples.extras)), notes)  # only for its note: alpha is left out
    if samples.bits == 16:
        notes.append("16 bits brought to 8")
        brightest = MOST if samples.photometric == CIE_LAB else 0xFF00
        light = np.rint(lab[..., :1] * (255 / brightest)).clip(0, 255)
        signed = lab[..., 1:] if samples.photometric == ICC_LAB else lab[..., 1:] ^ 0x8000
        lab = np.concatenate([light, np.rint(signed / 256).clip(0, 255)], axis=-1)
    elif samples.photometric == CIE_LAB:
        lab = lab ^ np.array([0, 0x80, 0x80], np.uint8)
    return np.ascontiguousarray(lab.astype(np.uint8))


def full_range(levels: Levels, notes: list[str]) -> Levels:
    """Levels of 16 bits that use only 8, 10 or 12, scaled to the full range; all others are returned unchanged."""
    if levels.dtype != np.uint16:
        return levels
    colours = levels[..., : 1 if levels.shape[-1] < 3 else 3]
    white = _white_in(int(colours.max(initial=0)), 16, notes)
    if white == MOST:
        return levels
    scaled = _scaled(colours, white, MOST)
    return np.concatenate([scaled, levels[..., colours.shape[-1] :]], axis=-1)


def straightened(levels: Levels, alpha: Levels) -> Levels:
    """(H, W, C) divided by the alpha, (H, W), that they were multiplied by; fully transparent pixels become black."""
    most = np.iinfo(levels.dtype).max

    def divided(rows: slice) -> Numbers:
        share = alpha[rows, :, None].astype(np.float32)
        return np.where(share > 0, levels[rows] * np.float32(most) / np.maximum(share, 1), 0)

    return _filled(levels.shape, most, divided)


def _alpha(samples: Samples, notes: list[str]) -> Numbers | None:
    """The first extra channel that is marked as alpha, (H, W, 1), or None."""
    found = [place for place, kind in enumerate(samples.extras) if kind in (PREMULTIPLIED, STRAIGHT)]
    others = len(samples.extras) - len(found[:1])
    if others:
        notes.append(f"{others} channel{'s' if others > 1 else ''} besides the colours left out")
    if not found:
        return None
    place = samples.colours + found[0]
    return samples.numbers[..., place : place + 1]


def _white_of_whole(colours: Numbers, samples: Samples, notes: list[str]) -> int:
    largest = int(colours.max(initial=0))
    if samples.most is not None and largest <= samples.most:
        notes.append(f"{samples.most.bit_length()} bits in {samples.bits} brought to the full range")
        return samples.most
    if samples.bits > 16:
        notes.append(f"{samples.bits} bits brought to 16")
    return _white_in(largest, samples.bits, notes)


def _white_in(largest: int, bits: int, notes: list[str]) -> int:
    """White for integers with a known largest value, estimated from how much of their range they use."""
    full = (1 << bits) - 1
    if bits <= 8 or not largest or largest > full // DIM:
        return full
    if largest > full // DARKEST:
        notes.append(f"no value above a quarter of the range: a dark photo, or undeclared samples below {bits} bits")
        return full
    used = min(few for few in (*FEWER_BITS, bits) if largest < 1 << few)
    if used < bits:
        notes.append(f"{used} bits in {bits} brought to the full range")
    return (1 << used) - 1


def _white_of_floats(colours: Numbers, alpha: Numbers | None, path: Path, notes: list[str]) -> float:
    lowest, highest = float(colours.min()), float(colours.max())
    if not np.isfinite((lowest, highest)).all() or (alpha is not None and not np.isfinite(alpha).all()):
        raise UnreadableImage(f"{path} holds NaN or infinite values; save it again with 16 bits.")
    white = _float_white(colours, highest)
    if white is None or lowest < (1 - OVERSHOOT) * white:
        raise UnreadableImage(
            f"{path} holds floating-point values from {lowest:.6g} to {highest:.6g}, and does not define which is "
            "black and which is white; save it with 16 bits, or with values from 0 to 1."
        )
    notes.append(f"floating-point values of 0 to {white:g} brought to 16 bits")
    if highest < white / DIM:
        notes.append(f"no value above a quarter of the range: a dark photo, or white is below {white:g}")
    if lowest < 0 or highest > white:
        notes.append("values beyond black or white clipped")
    return white


def _float_white(colours: Numbers, highest: float) -> float | None:
    if highest <= OVERSHOOT:
        return 1.0
    if highest < LIGHT or float(np.median(colours[::7, ::7])) < 1 < highest != round(highest):
        return None  # light brighter than white, as in renderings
    if highest <= OVERSHOOT * 255:
        return 255.0
    if highest <= 4095:
        return float(1023 if highest <= 1023 else 4095) if highest == round(highest) else None
    return float(MOST) if MOST / DIM < highest <= OVERSHOOT * MOST else None


def _scaled(numbers: Numbers, white: float, most: int, *, inverted: bool = False) -> Levels:
    """Values 0..`white` scaled to 0..`most` and rounded; with `inverted`, 0 becomes `most`."""
    kind = np.uint8 if most == 255 else np.uint16
    if white == most and numbers.dtype == kind:
        return cast(Levels, most - numbers if inverted else np.ascontiguousarray(numbers))

    def brought(rows: slice) -> Numbers:
        share = numbers[rows].astype(np.float64) * (most / white)
        return most - share if inverted else share

    return _filled(numbers.shape, most, brought)


def _filled(shape: tuple[int, ...], most: int, rows_of: Callable[[slice], Numbers]) -> Levels:
    """Levels filled some rows at a time, as a photo of 100 megapixels would take gigabytes in floating point."""
    levels = np.empty(shape, np.uint8 if most == 255 else np.uint16)
    step = max(1, ROWS // max(1, int(np.prod(shape[1:]))))
    for top in range(0, shape[0], step):
        rows = slice(top, top + step)
        levels[rows] = np.rint(rows_of(rows)).clip(0, most)
    return levels
