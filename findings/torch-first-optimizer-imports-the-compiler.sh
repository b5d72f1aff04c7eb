#!/usr/bin/env bash
# The first optimizer of a process imports PyTorch's compiler, though nothing is compiled.
#
# `torch.optim.SGD([parameter], lr=0.1)` only stores a list and a number, and one would expect it to take microseconds. The
# method that adds its parameters is kept from the compiler by a decorator, which imports torch._dynamo when the method is
# first called: more than 500 modules, sympy among them, and seconds instead of microseconds. A process that trains for a few
# steps spends most of its time there; so does every worker that builds an optimizer of its own. Nothing is wrong with the
# result. Import torch._dynamo before forking workers, or measure from the second optimizer on.
#
# Seen with torch 2.13.0 (CPU):
#   before the first optimizer: torch._dynamo False
#   after it: torch._dynamo True, more than 500 modules more
#   the first takes more than 100 times as long as the second
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$place/venv/bin/python" - <<'PY'
import sys
import time

import torch

parameter = torch.nn.Parameter(torch.zeros(1))
before, seconds = set(sys.modules), []
print("before the first optimizer: torch._dynamo", "torch._dynamo" in before)
for _ in range(2):
    begin = time.perf_counter()
    torch.optim.SGD([parameter], lr=0.1)
    seconds.append(time.perf_counter() - begin)
more = len(set(sys.modules) - before)
print(f"after it: torch._dynamo {'torch._dynamo' in sys.modules}, {more} modules more")
print(f"the first took {seconds[0] / seconds[1]:.0f} times as long as the second")
assert "torch._dynamo" not in before, "torch imports its compiler at once now"
assert "torch._dynamo" in sys.modules and more > 500 and seconds[0] > 100 * seconds[1], "the first optimizer is quick now"
PY
