#!/usr/bin/env bash
# libx264 writes other bytes each time where a rate limit is set.
#
# The same frames, the same settings, the same machine: one would expect the same stream, and x264 has an option of its own
# (non-deterministic) for giving that up. With `maxrate` and `bufsize` (VBV) and four threads, eight encodings of thirty
# frames come to eight different streams. One thread is better and no promise: on a busy machine one or two of sixteen
# differed there too. So a pipeline that promises equal files, or compares hashes of films, cannot use x264's rate limit.
#
# Seen with PyAV 17.1.0 (libavcodec 62.28.101), two busy cores:
#   threads 1, maxrate: 2 different streams of 8 (other runs: 1)
#   threads 4, maxrate: 8 different streams of 8
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet av==17.1.0 numpy
"$place/venv/bin/python" - <<'PY'
import hashlib
import io

import av
import numpy as np

rng = np.random.default_rng(0)
slope = np.add.outer(np.arange(240), np.arange(320))[..., None] // 3
frames = [
    np.clip(slope + 8 * i + rng.integers(0, 64, (240, 320, 3)), 0, 255).astype(np.uint8) for i in range(30)
]


def stream(threads: int) -> str:
    """The hash of the frames as H.264."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="h264") as container:
        video = container.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        video.options = {"crf": "23", "maxrate": "400k", "bufsize": "400k"}
        video.codec_context.thread_count = threads
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
    return hashlib.sha256(buffer.getvalue()).hexdigest()


found = {threads: len({stream(threads) for _ in range(8)}) for threads in (1, 4)}
for threads, count in found.items():
    print(f"threads {threads}, maxrate: {count} different stream{'s' * (count > 1)} of 8")
assert found[4] > 1, "four threads have become repeatable"
PY
