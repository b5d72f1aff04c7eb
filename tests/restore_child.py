"""Restores marked photos in processes that a test can kill: each line of the input is a place, a fork works on it.

For each it says the fork's number, and its exit status when it has ended. Importing is done once, before any fork.
"""

import os
import sys
from pathlib import Path

import torch

from marked import Place

if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            Place(Path(line.strip())).run(sidecar=True, copy=True)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)
