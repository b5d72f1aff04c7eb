#!/usr/bin/env bash
# Pillow and FFmpeg lose the transparency of grey PNGs of few bits.
#
# A grey PNG names its transparent value in the chunk tRNS, in the unit of its samples: 1 of 0..3 in a file of 2 bits.
# Pillow 13.0.0 scales the samples of 2 and 4 bits to 0..255 while it decodes (1 becomes 85), but gives the value of tRNS
# as it was (1). So `convert("LA")` and `convert("RGBA")`, which make that value transparent, compare 85 with 1 and return
# an opaque picture, without a warning. One would expect what files of 1 bit (scaled: 255) and 8 bits give. FFmpeg, in PyAV
# 18.1.0, looks at tRNS in files of 8 bits only. pypng 0.20220715.0 reads all as they are meant. With Pillow, the way out
# is to multiply `info["transparency"]` by 85 or 17.
#
# Seen with Pillow 13.0.0, PyAV 18.1.0, pypng 0.20220715.0:
#   1 bits: transparency 255, transparent pixels of 8: pypng 4, Pillow 4, FFmpeg 0
#   2 bits: transparency 1, transparent pixels of 8: pypng 2, Pillow 0, FFmpeg 0
#   4 bits: transparency 1, transparent pixels of 8: pypng 1, Pillow 0, FFmpeg 0
#   8 bits: transparency 1, transparent pixels of 8: pypng 1, Pillow 1, FFmpeg 1
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pillow==13.0.0 av==18.1.0 pypng==0.20220715.0 numpy
"$place/venv/bin/python" - "$place" <<'PY'
import struct
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import png
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(depth: int, values: list[int], transparent: int) -> bytes:
    """One row of grey samples, most significant bits first."""
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">IIBBBBB", len(values), 1, depth, 0, 0, 0, 0)
    parts = (b"IHDR", head), (b"tRNS", struct.pack(">H", transparent)), (b"IDAT", zlib.compress(row)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


found = {}
for depth in (1, 2, 4, 8):
    path = Path(sys.argv[1]) / f"{depth}.png"
    path.write_bytes(grey_png(depth, [i % 2**depth for i in range(8)], 1))
    rows = png.Reader(filename=str(path)).asRGBA()[2]
    meant = sum(value == 0 for row in rows for value in row[3::4])
    with Image.open(path) as image:
        image.load()
        told = image.info["transparency"]
        pillow = int((np.asarray(image.convert("RGBA"))[..., 3] == 0).sum())
    with av.open(str(path)) as film:
        (frame,) = film.decode(video=0)
        ffmpeg = int((frame.to_ndarray(format="rgba")[..., 3] == 0).sum())
    seen = f"pypng {meant}, Pillow {pillow}, FFmpeg {ffmpeg}"
    print(f"{depth} bits: transparency {told}, transparent pixels of 8: {seen}")
    found[depth] = (told, meant, pillow, ffmpeg)
assert found == {1: (255, 4, 4, 0), 2: (1, 2, 0, 0), 4: (1, 1, 0, 0), 8: (1, 1, 1, 1)}, "Pillow or FFmpeg changed"
PY
