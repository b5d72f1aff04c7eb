#!/usr/bin/env bash
# Pillow reads BigTIFF only where it is little-endian.
#
# BigTIFF (TIFF with 64-bit offsets, version 43) comes in both byte orders, as TIFF does, and Pillow lists the big-endian
# mark "MM\0+" among those that it accepts. One would expect the same pixels from both. Pillow 13.0.0 opens the
# little-endian file; the big-endian one, of the same pixels, is taken for a small TIFF, its offsets are misread, and it
# cannot be identified, which looks like a damaged file. tifffile 2026.3.3 reads both. Written by scanners' archives and
# by libraries on big-endian data; the way out is to rewrite the file little-endian.
#
# Seen with Pillow 13.0.0, tifffile 2026.3.3:
#   < tifffile equal True, Pillow (64, 48) equal True
#   > tifffile equal True, Pillow UnidentifiedImageError
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pillow==13.0.0 tifffile==2026.3.3 numpy
"$place/venv/bin/python" -W ignore - "$place" <<'PY'
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

pixels = (np.arange(64 * 48) % 256).astype(np.uint8).reshape(48, 64)
outcome = {}
for order in "<>":
    path = Path(sys.argv[1]) / "picture.tif"
    tifffile.imwrite(path, pixels, bigtiff=True, byteorder=order)
    same = np.array_equal(tifffile.imread(path), pixels)
    try:
        with Image.open(path) as image:
            told = f"{image.size} equal {np.array_equal(np.asarray(image), pixels)}"
    except UnidentifiedImageError as error:
        told = type(error).__name__
    outcome[order] = (same, told)
    print(f"{order} tifffile equal {same}, Pillow {told}")
assert outcome == {"<": (True, "(64, 48) equal True"), ">": (True, "UnidentifiedImageError")}, "Pillow changed"
PY
