"""Ten thousand small pictures degraded by four shards in one folder, which are killed a hundred times at random.

Asserts that nothing is lost, nothing is there twice, no half-written file is left, and every file equals that of an
undisturbed run; prints the figures. The processes are forked from this one, so that they do not import torch each time.

python benchmarks/shards_killed.py [--items 10000] [--shards 4] [--kills 100]
"""

import argparse
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from PIL import Image

from unfade.atomic import is_temporary
from unfade.cli import main as unfade
from unfade.jobs.gather import gather
from unfade.jobs.runs import JOURNAL
from unfade.stages.degrade import RECORDS

SIDE = 16  # px


def start(truth: Path, out: Path, shard: str) -> BaseProcess:
    """A process that runs the command for a shard."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(truth, out, shard))
    process.start()
    return process


def _run(truth: Path, out: Path, shard: str) -> None:
    own = [str(truth), "--out", str(out), "--kind", "blind", "--workers", "1", "--quiet", "--shard", shard]
    sys.argv = ["unfade", "degrade", *own]
    unfade()


def disturbed(truth: Path, out: Path, shards: int, moments: list[float], rng: random.Random) -> tuple[int, int]:
    """Run all shards to their end, and kill one of them at each of the moments: sizes of all journals together.

    Returns the number of processes that died of it, and of all processes.
    """
    names = [f"{index}/{shards}" for index in range(1, shards + 1)]
    running = {name: start(truth, out, name) for name in names}
    killed, begun = 0, shards
    while running:
        written = sum(path.stat().st_size for path in out.glob("journal-*"))
        at_work = [process for process in running.values() if process.is_alive()]
        if moments and at_work and written >= moments[0]:
            moments.pop(0)
            rng.choice(at_work).kill()
        time.sleep(0.01)
        for name, process in [*running.items()]:
            if process.exitcode is None:
                continue
            del running[name]
            if process.exitcode == -signal.SIGKILL:
                killed, begun = killed + 1, begun + 1
                running[name] = start(truth, out, name)
            else:
                assert process.exitcode == 0, (name, process.exitcode)
    return killed, begun


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
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        truth, whole, out = Path(place, "truth"), Path(place, "whole"), Path(place, "out")
        write_pictures(truth, args.items)
        begin = time.perf_counter()
        disturbed(truth, whole, 1, [], rng)
        alone, begin = time.perf_counter() - begin, time.perf_counter()
        size = (whole / JOURNAL).stat().st_size
        moments = sorted(rng.uniform(0, 0.95 * size) for _ in range(args.kills))
        killed, begun = disturbed(truth, out, args.shards, moments, rng)
        took, found = time.perf_counter() - begin, gather([out])
        expected, there = contents(whole), contents(out)
        lines = sum(path.read_bytes().count(b"\n") for path in out.glob(f"{Path(RECORDS).stem}-*"))
        halves = [path for path in out.iterdir() if is_temporary(path.name)]
    print(f"{args.items} pictures of {SIDE} px, {args.shards} shards, {killed} killed of {begun} processes")
    print(f"undisturbed in one process {alone:.0f} s, disturbed {took:.0f} s")
    lost, equal = expected.keys() - there.keys(), sum(there.get(name) == sha for name, sha in expected.items())
    print(f"{len(lost)} lost, {len(found.doubles)} twice, {len(halves)} half-written files left, {equal} files equal")
    assert found.adds_up
    assert (found.expected, found.counts.done) == (args.items, args.items)
    assert (there == expected, halves, lines) == (True, [], args.items)
    assert killed >= 0.9 * args.kills  # a process may have ended just before it is killed


if __name__ == "__main__":
    main()
