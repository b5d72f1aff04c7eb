"""Ten thousand small pictures degraded by four shards in one folder, which are killed a hundred times at random.

Asserts that nothing is lost, nothing is there twice, no half-written file is left, and every file equals that of an
undisturbed run; prints the figures.

python benchmarks/shards_killed.py [--items 10000] [--shards 4] [--kills 100]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from unfade.jobs.gather import gather
from unfade.jobs.runs import JOURNAL

SIDE = 16  # px


@dataclass
class Fleet:
    """The processes of all shards, and how many of them were killed."""

    truth: Path
    out: Path
    shards: int
    kills: int
    rng: random.Random
    killed: int = 0
    begun: int = 0
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, index: int) -> list[str]:
        """What a cluster would run."""
        own = [str(self.truth), "--out", str(self.out), "--kind", "blind", "--workers", "1", "--quiet"]
        return [sys.executable, "-m", "unfade", "degrade", *own, "--shard", f"{index}/{self.shards}"]

    def work(self, index: int) -> None:
        """Run a shard, again and again, until it ends of its own accord."""
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            self.begun += 1
            self.running[index] = subprocess.Popen(self.command(index))
            code = self.running[index].wait()
        assert code == 0, code

    def disturb(self, expected: int) -> None:
        """Kill one shard after another, at random moments of the work; `expected` bytes of journals are all of it."""
        for moment in sorted(self.rng.random() * expected for _ in range(self.kills)):
            while sum(path.stat().st_size for path in self.out.glob("journal-*")) < moment * 0.95:
                time.sleep(0.02)
            while not (alive := [process for process in self.running.values() if process.poll() is None]):
                time.sleep(0.02)
            os.kill(self.rng.choice(alive).pid, signal.SIGKILL)
            self.killed += 1


def write_pictures(folder: Path, count: int) -> None:
    """Noise, a different one in each picture."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{i:05d}.png", compress_level=1)


def contents(folder: Path) -> dict[str, str]:
    """The hash of each picture."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("items", 10_000), ("shards", 4), ("kills", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        truth, whole, out = Path(place, "truth"), Path(place, "whole"), Path(place, "out")
        write_pictures(truth, args.items)
        begin = time.perf_counter()
        undisturbed = Fleet(truth, whole, 1, 0, random.Random())
        undisturbed.work(1)
        alone = time.perf_counter() - begin
        fleet = Fleet(truth, out, args.shards, args.kills, random.Random(args.seed))
        begin = time.perf_counter()
        with ThreadPoolExecutor(args.shards + 1) as threads:
            begun = [threads.submit(fleet.work, index) for index in range(1, args.shards + 1)]
            begun.append(threads.submit(fleet.disturb, (whole / JOURNAL).stat().st_size))
            for each in as_completed(begun):
                each.result()
        took, found = time.perf_counter() - begin, gather([out])
        expected, there = contents(whole), contents(out)
        halves = [path.name for path in out.rglob("*.unfade*") if path.is_file() and path.suffix == ".png"]
    print(f"{args.items} pictures of {SIDE} px, {args.shards} shards, {fleet.killed} kills, {fleet.begun} processes")
    print(f"undisturbed in one process {alone:.0f} s, disturbed {took:.0f} s")
    lost, equal = expected.keys() - there.keys(), sum(there[name] == sha for name, sha in expected.items())
    print(f"{len(lost)} lost, {len(found.doubles)} twice, {len(halves)} half-written files left, {equal} files equal")
    assert found.adds_up
    assert (found.expected, found.counts.done) == (args.items, args.items)
    assert (there == expected, halves, fleet.killed) == (True, [], args.kills)


if __name__ == "__main__":
    main()
