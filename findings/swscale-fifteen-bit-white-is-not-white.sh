#!/usr/bin/env bash
# White of 15 or 16 bits per pixel is white in RGB, and light grey in YUV: FFmpeg's swscale expands 5 bits in two ways.
#
# In `rgb555le` and `rgb565le` the largest value of a channel is 31. Converted to `rgb24`, it becomes 255, so white stays white.
# One would expect the luma of white, 235 in the limited range, of the same picture converted to `yuv444p`. But that conversion
# shifts 5 bits to 248 without filling the lowest bits, so that white has a luma of 229, and all colours are 3 % darker. With
# 6 bits of green, white even gets a cast. Flags for exact rounding change nothing. Old films and emulators write such pixels
# (Microsoft Video 1, screen recorders): whoever transcodes them gets a darker film, and whoever edits some frames in RGB and
# converts the others directly gets one that flickers. Convert to `rgb24` first, then to YUV.
#
# Seen with PyAV 18.1.0 (libswscale 9.5.102):
#   rgb555le: to RGB [255, 255, 255], to YUV 229 128 128, by way of rgb24 235 128 128
#   rgb565le: to RGB [255, 255, 255], to YUV 231 127 127, by way of rgb24 235 128 128
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet av==18.1.0 numpy==2.3.5
"$place/venv/bin/python" - <<'PY'
import av
import numpy as np
from av.video.reformatter import Interpolation

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def white(name, largest):
    frame = av.VideoFrame(64, 64, name)
    plane = frame.planes[0]
    plane.update(np.full(plane.buffer_size // 2, largest, np.uint16).tobytes())
    return frame


def yuv(frame):
    made = frame.reformat(format="yuv444p", dst_color_range=1, interpolation=EXACT)
    return [bytes(made.planes[i])[0] for i in range(3)]


print("libswscale", *av.library_versions["libswscale"])
for name, largest, seen in (("rgb555le", 0x7FFF, [229, 128, 128]), ("rgb565le", 0xFFFF, [231, 127, 127])):
    frame = white(name, largest)
    rgb = frame.reformat(format="rgb24", interpolation=EXACT)
    direct, by_way, shown = yuv(frame), yuv(rgb), rgb.to_ndarray()[0, 0].tolist()
    print(f"{name}: to RGB {shown}, to YUV {direct}, by way of rgb24 {by_way}")
    assert shown == [255, 255, 255] and by_way == [235, 128, 128], "white is not white in RGB"
    assert direct == seen, "the direct conversion has changed"
PY
