#!/usr/bin/env bash
# FFmpeg reads MPEG-1 in AVI with a gap after the first frame.
#
# AVI has no time stamps: a frame is shown when its turn comes. Eight frames of MPEG-1 without B-frames, encoded at
# 0, 1, ..., 7 and written to AVI, would therefore be expected back at these times, as MPEG-4 in AVI comes back. FFmpeg
# in PyAV 18.1.0 gives its packets pts of 0, 2, 3, ..., 8 and dts of 0, 1, ..., 7: the demuxer expects reordering, which
# the codec may use, and delays all but the first. Whoever takes the pts of decoded frames for the truth finds a frame
# missing, and writes one twice or lengthens the film by one. In Matroska the same packets keep their times. The way
# out is to number the frames of AVI in the order of their dts.
#
# Seen with PyAV 18.1.0:
#   mpeg1video in avi: 0 2 3 4 5 6 7 8
#   mpeg4 in avi: 0 1 2 3 4 5 6 7
#   mpeg1video in mkv: 0 1 2 3 4 5 6 7
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet av==18.1.0 numpy
"$place/venv/bin/python" - "$place" <<'PY'
import sys

import av
import numpy as np

RATE = 25


def times(codec: str, ending: str) -> list[int]:
    """The pts of eight frames after a round trip, in frames."""
    path = f"{sys.argv[1]}/{codec}.{ending}"
    with av.open(path, "w") as film:
        stream = film.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 0
        for i in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), format="rgb24")
            frame.pts = i
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    with av.open(path) as film:
        return [round(frame.time * RATE) for frame in film.decode(video=0)]


found = {}
for codec, ending in (("mpeg1video", "avi"), ("mpeg4", "avi"), ("mpeg1video", "mkv")):
    found[codec, ending] = times(codec, ending)
    print(f"{codec} in {ending}: {' '.join(map(str, found[codec, ending]))}")
steady = list(range(8))
assert found["mpeg4", "avi"] == found["mpeg1video", "mkv"] == steady, "FFmpeg changed"
assert found["mpeg1video", "avi"] == [0, *range(2, 9)], "FFmpeg changed"
PY
