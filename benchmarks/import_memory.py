"""Peak memory of importing the 512 px prior's checkpoint, 640 MB, in ratio to its size: at most 2.2.

    python benchmarks/import_memory.py [--old]     (--old: written in the older, unzipped format of torch)

The checkpoint is generated with random weights. Each step is a process of its own, and this one stays small: a child's
peak begins with what its parent held. Pages of the file that are mapped into memory are counted too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 2.2
PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
IMPORTS = "import sys; from pathlib import Path; from unfade.zoo.convert import import_files"
GENERATE = """
import sys, torch
from unfade.nets.unet import UNet, UNetConfig
torch.save(UNet(UNetConfig()).state_dict(), sys.argv[1], _use_new_zipfile_serialization=sys.argv[2] != "True")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UNFADE_WEIGHTS"] = f"{folder}/weights"
        checkpoint = Path(folder) / "generated.pt"
        run(GENERATE, checkpoint, args.old)
        size = checkpoint.stat().st_size
        bare = int(run(f"{IMPORTS}\n{PEAK}"))
        taken = int(run(f"{IMPORTS}\nimport_files([Path(sys.argv[1])], name='generated')\n{PEAK}", checkpoint))
    print(f"file {size / 1e6:.0f} MB, peak {taken / 1e6:.0f} MB, of these Python and torch {bare / 1e6:.0f} MB")
    print(f"ratio {taken / size:.2f} (without Python and torch {(taken - bare) / size:.2f}), limit {LIMIT}")
    sys.exit(taken > LIMIT * size)


def run(script: str, *args: object) -> str:
    """What a script prints."""
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
