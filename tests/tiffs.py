"""TIFF files put together by hand, in layouts that few libraries write."""

import struct
import zlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

LONG = 4
Page = tuple[dict[int, int | Sequence[int]], list[bytes]]  # tags, and strips


def tiff(*pages: Page, order: str = "<") -> bytes:
    """A file of pages, whose tags 273 and 279 are filled in."""
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for number, (tags, strips) in enumerate(pages):
        sizes = [len(strip) for strip in strips]
        filled = {tag: [value] if isinstance(value, int) else list(value) for tag, value in tags.items()}
        filled |= {273: [0] * len(strips), 279: sizes}
        end = len(content) + 2 + 12 * len(filled) + 4
        pixels = end + sum(4 * len(values) for values in filled.values() if len(values) > 1)
        filled[273] = [pixels + before for before in (0, *accumulate(sizes[:-1]))]
        entries, tail = b"", b""
        for tag, values in sorted(filled.items()):
            raw = struct.pack(f"{order}{len(values)}I", *values)
            if len(values) > 1:
                raw, tail = struct.pack(order + "I", end + len(tail)), tail + raw
            entries += struct.pack(order + "HHI", tag, LONG, len(values)) + raw
        following = pixels + sum(sizes) if number + 1 < len(pages) else 0
        content += struct.pack(order + "H", len(filled)) + entries + struct.pack(order + "I", following) + tail
        content += b"".join(strips)
    return content


def page(
    samples: np.ndarray,
    photometric: int,
    *,
    order: str = "<",
    in_planes: bool = False,
    deflate: bool = False,
    **tags: int,
) -> Page:
    """Tags and pixels of (H, W, C) samples; more tags by their numbers, as in t338=1. A plane is one strip."""
    height, width, channels = samples.shape
    bits, kind = samples.itemsize * 8, {"u": 1, "i": 2, "f": 3, "c": 6}[samples.dtype.kind]
    said: dict[int, int | Sequence[int]] = {256: width, 257: height, 258: [bits] * channels, 259: 8 if deflate else 1}
    said |= {262: photometric, 277: channels, 278: height, 284: 2 if in_planes else 1, 339: [kind] * channels}
    said |= {317: 2} if deflate else {}
    said |= {int(name[1:]): value for name, value in tags.items()}
    planes = [samples[..., place : place + 1] for place in range(channels)] if in_planes else [samples]
    return said, [_strip(plane, order, deflate) for plane in planes]


def _strip(plane: np.ndarray, order: str, deflate: bool) -> bytes:
    stored = plane.copy()
    if deflate:
        stored[:, 1:] -= plane[:, :-1]
    raw = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    return zlib.compress(raw) if deflate else raw
