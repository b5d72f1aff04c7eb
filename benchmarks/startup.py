"""What beginning costs: CPU and wall time of `unfade --help`, `doctor`, and `restore` of one photo, and how many times
the CPU time of a bare Python that does nothing that is.

    python benchmarks/startup.py [--photo FILE] [--repeat 7]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from peers import HERE, RUN, SAMPLES, Build


def main() -> None:
    """Print a row for each command, the medians of alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--photo", type=Path, default=min(SAMPLES.iterdir()), help="default: a sample face")
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    build = Build("this", HERE, threads=1)
    with tempfile.TemporaryDirectory() as folder:

        def restore(turn: int, *flags: str) -> tuple[str, ...]:
            return (RUN, "restore", str(args.photo), "--out", f"{folder}/{turn}{''.join(flags)}", "--quiet", *flags)

        processes = {
            "python -c pass": lambda turn: ("pass",),
            "import unfade": lambda turn: ("import unfade",),
            "import torch": lambda turn: ("import torch",),
            "unfade --help": lambda turn: (RUN, "--help"),
            "unfade doctor": lambda turn: (RUN, "doctor", "--quiet"),
            "unfade restore, one photo": restore,
            "unfade restore, one face": lambda turn: restore(turn, "--aligned"),
        }
        costs = {name: [] for name in processes}
        for turn in range(args.repeat + 1):
            for name, words in processes.items():
                cost = build.cost_of(*words(turn))
                costs[name] += [cost] if turn else []  # the first turn fills the caches of the disk
    bare = statistics.median(cost.cpu for cost in costs["python -c pass"])
    for name, found in costs.items():
        cpu, wall = (statistics.median(getattr(cost, field) for cost in found) for field in ("cpu", "wall"))
        print(f"{name:26} {cpu:.2f} CPU s, {wall:.2f} s, {cpu / bare:.0f} times a bare Python")


if __name__ == "__main__":
    main()
