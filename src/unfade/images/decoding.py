"""Photos from files of many kinds: pixels of 8 or 16 bits whose meaning is known, with the file's metadata."""

import io
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from unfade.images.colours import Colours, apply_colours
from unfade.images.meaning import full_range, lab_levels, levels_of
from unfade.images.metadata import origin_of
from unfade.images.named_colours import of_bmp, of_boxes, of_tiff
from unfade.images.opening import Opened, mode_name, opened, upright
from unfade.images.photo import TO_8_BITS, Levels, Origin, Photo
from unfade.images.spliced import read_at
from unfade.images.tiff_samples import BLACK_IS_ZERO, CIE_LAB, ICC_LAB, INKS, RGB, Samples
from unfade.images.time_limit import within_limit

# Pillow unpacks 16 bits to the upper 8; asked for the other byte order, it gives the lower 8
OTHER_ORDER = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}
LOWER_BYTES = {f"{mode};{old}": f"{mode};{new}" for mode in ("RGB", "RGBA", "RGBX") for old, new in OTHER_ORDER.items()}
ALL_BYTES = {"LA;16B": "RGBA"}  # two samples of two bytes, unpacked as four of one byte
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I")
PLAIN_GREY = ("1", "L", "LA", "La")
MOST = 65_535


def read_photo(path: Path) -> Photo:
    """The photo of a file: 8 or 16 bits, with its alpha, turned upright by its EXIF orientation.

    Palettes, black and white, CMYK and Lab (by a colour profile, if there is one) and the like become RGB or grey of 8
    bits; floating point and integers of other depths become 16 bits. The photo's notes report such conversions. Raises
    UnreadableImage, whose message starts with the path; see `opened` for the limits.
    """
    photo = decode(path)
    kind, written = photo.origin.read_as, photo.origin.kind
    if kind != written:
        photo.notes = (f"{kind} is not written; {written} instead", *photo.notes)
    return photo


def decode(path: Path) -> Photo:
    """`read_photo` without the note on the format that the photo will be written in."""
    return within_limit(path, partial(_decode, path))


def _decode(path: Path) -> Photo:
    notes: list[str] = []
    with opened(path) as found:
        origin = origin_of(found, path, notes)
        notes += found.notes
        levels, icc = _levels(path, found, origin.icc, notes)
        if levels.ndim == 2:
            levels = levels[..., None]
        if found.boxes.bits > 8 and levels.dtype == np.uint8:
            notes.append(f"{found.boxes.bits} bits brought to 8")
        colours, profile = _named(path, found, notes)
        if colours is not None and not icc and not origin.icc:
            levels, profile = apply_colours(levels, colours, notes)
        icc = icc or profile
        if icc[16:20] == b"GRAY" and levels.shape[-1] > 2:
            icc = b""
            notes.append("colour profile for grey left out, as the picture has colours")
        return _photo(upright(levels, found.turn), replace(origin, icc=icc), tuple(notes))


def _named(path: Path, found: Opened, notes: list[str]) -> tuple[Colours | None, bytes]:
    """The colours that the file gives as numbers, and a profile that Pillow did not find."""
    if found.chunks is not None:
        return found.chunks.colours, b""
    if found.page is not None:
        return of_tiff(found.page), b""
    if found.image.format == "BMP":
        with path.open("rb") as file:
            return of_bmp(file, notes)
    return of_boxes(found.boxes, notes), b""


def _levels(path: Path, found: Opened, icc: bytes, notes: list[str]) -> tuple[Levels, bytes]:
    """Levels (H, W) or (H, W, C) with the values of the file, and the colour profile that describes them."""
    samples, image = found.samples, found.image
    if samples is not None and samples.photometric in (INKS, CIE_LAB, ICC_LAB):
        return _from_inks_or_lab(samples, path, icc, notes), b""  # the profile describes the inks, not the result
    if samples is not None:
        return levels_of(samples, path, notes), icc
    if image.mode == "F":
        plain = Samples(np.asarray(image)[..., None], BLACK_IS_ZERO, 32, (), None)
        return levels_of(plain, path, notes), icc
    if image.format == "PPM" and (deep_ppm := _deep_ppm(found, notes)) is not None:
        return levels_of(deep_ppm, path, notes), icc
    deep = _deep_samples(found)
    if deep is not None:
        named = found.chunks is not None and found.chunks.colours is not None  # linear light may well be that dark
        return deep if named else full_range(deep, notes), icc
    if image.mode in ("CMYK", "LAB"):
        return np.array(_to_srgb(image, icc, notes)), b""
    return np.array(_to_8_bits(image, notes)), icc


def _from_inks_or_lab(samples: Samples, path: Path, icc: bytes, notes: list[str]) -> Levels:
    if samples.photometric != INKS:
        return np.array(_to_srgb(_of_mode("LAB", lab_levels(samples, notes)), icc, notes))
    levels = levels_of(samples, path, notes)
    if levels.dtype == np.uint16:
        levels = TO_8_BITS[levels]
        notes.append("16 bits brought to 8")
    colours = np.array(_to_srgb(_of_mode("CMYK", levels[..., :4]), icc, notes))
    return np.concatenate([colours, levels[..., 4:]], axis=-1)


def _of_mode(mode: str, levels: Levels) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(np.ascontiguousarray(levels[..., place])) for place in range(len(mode))])


def _photo(samples: Levels, origin: Origin, notes: tuple[str, ...]) -> Photo:
    """A photo from (H, W, C): 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
    colours = samples[..., :1].repeat(3, -1) if samples.shape[-1] < 3 else np.ascontiguousarray(samples[..., :3])
    alpha = samples[..., -1].copy() if samples.shape[-1] in (2, 4) else None
    return Photo(colours, alpha, replace(origin, grey=samples.shape[-1] < 3), notes)


def _deep_samples(found: Opened) -> Levels | None:
    """The 16-bit samples, (H, W, C), of a picture whose upper bytes are decoded already; None where it has 8 bits."""
    image = found.image
    if image.mode in DEEP_GREY:
        return _with_clear_value(np.asarray(image, np.int64).clip(0, MOST).astype(np.uint16)[..., None], image)
    if image.mode not in ("RGB", "RGBA"):
        return None
    for names in (LOWER_BYTES, ALL_BYTES):
        more = _decoded_otherwise(found, names)
        if more is not None and names is ALL_BYTES:
            return _joined(np.asarray(more)[..., 0::2], np.asarray(more)[..., 1::2])
        if more is not None:
            return _with_clear_value(_joined(np.asarray(image), np.asarray(more)), image)
    return None


def _deep_ppm(found: Opened, notes: list[str]) -> Samples | None:
    """The samples of a PPM in colour of more than 8 bits, which Pillow brings to 8; None for any other."""
    tile, (width, height) = found.again().tile[0], found.image.size
    most = tile.args[1] if isinstance(tile.args, tuple) and found.image.mode == "RGB" else 0
    if most < 256:
        return None
    if tile.codec_name != "ppm":
        notes.append(f"{most.bit_length()} bits brought to 8")
        return None
    assert found.source is not None
    raw = read_at(found.source, tile.offset, 6 * width * height)
    numbers = np.frombuffer(raw, ">u2").astype(np.uint16).reshape(height, width, 3)
    return Samples(numbers, RGB, 16, (), most if most < MOST else None)


def _decoded_otherwise(found: Opened, names: dict[str, str]) -> Image.Image | None:
    """The picture unpacked as `names` says instead of as Pillow chose; None where `names` lacks Pillow's choice."""
    image = found.again()
    tiles = [tile._replace(args=_renamed(tile.args, names)) for tile in image.tile]
    if not tiles or not all(tile.args for tile in tiles):
        return None
    image.tile = tiles
    image.load()
    return image


def _renamed(args: tuple[Any, ...] | str | None, names: dict[str, str]) -> tuple[Any, ...] | str | None:
    """A decoder's arguments, which begin with the name of a packing of samples, with the packing replaced."""
    if isinstance(args, tuple) and args:
        name = names.get(args[0])
        return (name, *args[1:]) if name else None
    return names.get(args) if isinstance(args, str) else None


def _joined(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint16]:
    joined = upper.astype(np.uint16)
    joined <<= 8
    joined |= lower
    return joined


def _with_clear_value(samples: NDArray[np.uint16], image: Image.Image) -> NDArray[np.uint16]:
    """The samples with an alpha channel, if the PNG declares one value to be transparent."""
    clear = image.info.get("transparency")
    if clear is None:
        return samples
    alpha = np.where((samples == clear).all(-1, keepdims=True), 0, MOST).astype(np.uint16)
    return np.concatenate([samples, alpha], axis=-1)


def _to_8_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """An image of any mode, as L, LA, RGB or RGBA."""
    grey, clear = image.mode in PLAIN_GREY, image.has_transparency_data or image.mode in ("La", "RGBa")
    mode = ("LA" if clear else "L") if grey else ("RGBA" if clear else "RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        notes.append(f"{mode_name(image.mode)} converted to {'grey' if grey else 'RGB'}")
    return image if image.mode == mode else image.convert(mode)


def _to_srgb(image: Image.Image, icc: bytes, notes: list[str]) -> Image.Image:
    name = image.mode
    try:
        profile = ImageCms.createProfile("LAB") if name == "LAB" else _profile(icc)
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        converted = None
    if converted is None:
        notes.append(f"{name} converted to RGB without a colour profile")
        return image.convert("RGB")
    notes.append(f"{name} converted to sRGB by its colour profile")
    return converted


def _profile(icc: bytes) -> ImageCms.ImageCmsProfile:
    if not icc:
        raise ImageCms.PyCMSError("no profile")
    return ImageCms.getOpenProfile(io.BytesIO(icc))
