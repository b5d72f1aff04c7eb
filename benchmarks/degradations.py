"""How fast faces are degraded, on one core, beside the targets and a plain Gaussian blur of the same face.

    python benchmarks/degradations.py [--repeat 5] [--workers 1 2 4] [--pictures 60]

With --workers the whole stage is timed too, files included: the same folder by each number of worker processes.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from unfade.degradations.blind import BLIND_PRESETS
from unfade.degradations.camera import CAMERA_PRESETS
from unfade.images.files import from_bytes, write_png
from unfade.jobs.journal import Journal
from unfade.jobs.runs import Run
from unfade.jobs.workers import one_thread
from unfade.stages.degrade import APPLY, KINDS, camera_degradation, degrade_faces

TARGETS = {("blind", 512): 25.0, ("camera", 512): 15.0}  # faces per second on one core
DRAWS = 12  # faces of which each number is the mean: large kernels and ratios take longer than small ones
PRESETS = {"blind": BLIND_PRESETS, "camera": CAMERA_PRESETS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="passes; the shortest counts")
    parser.add_argument("--workers", type=int, nargs="*", default=[])
    parser.add_argument("--pictures", type=int, default=60, help="in the folder that the workers share")
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':6} {'':24} {'size':>4} {'faces/s':>8} {'of target':>9} {'blurs':>6}")
    with one_thread():
        for kind in KINDS:
            for preset in PRESETS[kind]:
                for size in (128, 512):
                    show(kind, preset, size, args.repeat)
    if args.workers:
        scale(args.workers, args.pictures)


def show(kind: str, preset: str, size: int, repeat: int) -> None:
    """One line: faces per second, that as a share of the target, and the time of a face in Gaussian blurs of it."""
    face = smooth(0, size)
    blurred = np.ascontiguousarray(face.permute(1, 2, 0).numpy())
    degradation = KINDS[kind](preset)

    def work(seed: int) -> None:
        draw = degradation.draw(np.random.default_rng(seed), height=size, width=size)
        APPLY[kind](face, asdict(draw))

    took = seconds(work, repeat)
    blur = seconds(lambda seed: cv2.GaussianBlur(blurred, (41, 41), 7.5), repeat)
    target = TARGETS.get((kind, size))
    share = f"{1 / took / target:9.2f}" if target else f"{'':9}"
    print(f"{kind:6} {preset:24} {size:4} {1 / took:8.1f} {share} {took / blur:6.1f}", flush=True)


def seconds(work: Callable[[int], object], repeat: int) -> float:
    """The mean time of DRAWS draws, each the shortest of `repeat` passes, after one to warm up."""
    times: list[list[float]] = [[] for _ in range(DRAWS)]
    for _ in range(repeat + 1):
        for seed in range(DRAWS):
            begin = time.perf_counter()
            work(seed)
            times[seed].append(time.perf_counter() - begin)
    return statistics.mean(min(passes[1:]) for passes in times)


def scale(workers: list[int], pictures: int) -> None:
    """The camera degradation of a folder, reading and writing 512 px PNG files, by each number of workers.

    The time that this process itself needs for a file is the part that more workers do not shorten.
    """
    with tempfile.TemporaryDirectory() as name:
        truth = [Path(name) / "truth" / f"{number:03}.png" for number in range(pictures)]
        for number, path in enumerate(truth):
            write_png(path, smooth(number, 512))
        degrade_faces(truth[:2], Run(Path(name) / "begin", Journal(Path(name) / "j")), camera_degradation(), workers=2)
        rates: list[float] = []
        for number, count in enumerate(workers):
            out = Path(name) / f"{number}"
            run, begin, own = Run(out, Journal(out / "journal.jsonl")), time.perf_counter(), time.process_time()
            degrade_faces(truth, run, camera_degradation(), workers=count)
            rates.append(pictures / (time.perf_counter() - begin))
            own = (time.process_time() - own) / pictures * 1000
            print(
                f"{count} workers: {rates[-1]:.1f} files/s, {rates[-1] / rates[0]:.2f} times {workers[0]}; "
                f"{own:.1f} ms of this process a file",
                flush=True,
            )


def smooth(seed: int, size: int) -> Tensor:
    """A random smooth picture, (3, size, size) in [-1, 1], on the 8-bit grid."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (16, 16, 3)).astype(np.float32)
    levels = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    return from_bytes(levels.astype(np.uint8))


if __name__ == "__main__":
    main()
