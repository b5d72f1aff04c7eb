#!/usr/bin/env bash
# torch's gradient of group normalisation is many times slower on a CPU in the channels-last layout, most so in bfloat16.
#
# Channels last is the layout in which convolutions are fastest on a CPU, and torch's documentation recommends it there.
# One would expect the same of what stands between the convolutions. In torch 2.13.0 the forward pass of group_norm takes
# about as long in both layouts; its backward pass takes 16 to 25 times as long in channels last in bfloat16, and 2 to 5
# times in float32, so that a U-Net of a diffusion model trains no faster in that layout although its convolutions do.
# The same gradient written as sums over the pixels and one multiply-add takes about as long as in the plain layout.
#
# Seen with torch 2.13.0, one thread of a Xeon with AMX, (8, 64, 64, 64) in 32 groups, best of 8, channels last : plain:
#   float32 forward 1.4, backward 5.5
#   bfloat16 forward 1.4, backward 19.1
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy
OMP_NUM_THREADS=1 "$place/venv/bin/python" - <<'PY'
import time

import torch

torch.set_num_threads(1)


def best(dtype: torch.dtype, layout: torch.memory_format) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    x, gradient = (torch.randn(8, 64, 64, 64).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    norm, seconds = torch.nn.GroupNorm(32, 64).to(dtype), []
    for _ in range(8):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        begin = time.perf_counter()
        y = norm(given)
        middle = time.perf_counter()
        y.backward(gradient)
        seconds.append((middle - begin, time.perf_counter() - middle))
    return min(one for one, _ in seconds), min(other for _, other in seconds)


ratios = {}
for dtype in (torch.float32, torch.bfloat16):
    plain, last = best(dtype, torch.contiguous_format), best(dtype, torch.channels_last)
    forward, ratios[dtype] = last[0] / plain[0], last[1] / plain[1]
    print(f"{str(dtype).removeprefix('torch.')} forward {forward:.1f}, backward {ratios[dtype]:.1f}")
assert ratios[torch.float32] > 1.5 and ratios[torch.bfloat16] > 6, "torch changed"
PY
