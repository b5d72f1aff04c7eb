"""How much faster two processes are than one: two shards, and a Ray cluster of this machine with two processes.

Small photos with one face each are restored by one shard on one core, by two shards on a core each, and by `--fleet
auto` on both cores. Start-up is left out: time runs from when all processes have written a result until the last one.
Prints photos a second, and the ratios. Nothing else may run on the two cores. Needs Linux and the extra `fleet`.

python benchmarks/fleet_speed.py [--count 400] [--cores 0,1]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fleet import draw

from unfade.jobs.json_lines import JsonLines
from unfade.jobs.runs import JOURNAL, shards_of

SIDES = 480, 640  # height and width of the photos


def started(photos: Path, out: Path, cores: Sequence[int], *more: str) -> "subprocess.Popen[bytes]":
    """A command on these cores, with one thread for sums."""
    words = ["restore", str(photos), "--out", str(out), "--device", "cpu", "--quiet", *more]
    pinned = partial(os.sched_setaffinity, 0, cores)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "unfade", *words], env=environment, preexec_fn=pinned)


def ended(*processes: "subprocess.Popen[bytes]") -> None:
    """Wait for all."""
    for process in processes:
        assert process.wait() == 0


def speed(out: Path, processes: int) -> float:
    """Photos a second, from the times at which results were written."""
    times = []
    for shard in shards_of(out):
        entries = JsonLines(out / shard.named(JOURNAL)).read()
        times.append(sorted((out / e["outputs"][0]).stat().st_ctime for e in entries if e["status"] == "done"))
    spans = sorted((each[0], each[-1]) for each in times if each)
    begin = spans[0][0]
    if processes == 2:  # a shard begins while another is worked on
        begin = next(first for i, (first, _) in enumerate(spans) if any(end > first for _, end in spans[:i]))
    written = [moment for each in times for moment in each if moment > begin]
    return len(written) / (max(written) - begin)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--cores", default="0,1", help="two numbers, from 0")
    args = parser.parse_args()
    first, second = map(int, args.cores.split(","))
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        draw(photos, *SIDES, args.count)
        one, two, fleet = Path(folder, "one"), Path(folder, "two"), Path(folder, "fleet")
        ended(started(photos, one, [first]))
        ended(*(started(photos, two, [core], "--shard", f"{i}/2") for i, core in enumerate((first, second), 1)))
        ended(started(photos, fleet, [first, second], "--fleet", "auto"))
        speeds = speed(one, 1), speed(two, 2), speed(fleet, 2 if first != second else 1)
    print(f"{args.count} photos of {SIDES[1]} x {SIDES[0]} on cores {first} and {second}")
    print("photos a second: one shard {:.2f}, two shards {:.2f}, Ray {:.2f}".format(*speeds))
    print(f"two shards to one: {speeds[1] / speeds[0]:.2f} (expected: 1.9 or more)")
    print(f"Ray to two shards: {speeds[2] / speeds[1]:.2f} (expected: 0.9 or more)")


if __name__ == "__main__":
    main()
