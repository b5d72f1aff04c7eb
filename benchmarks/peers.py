"""This build against an earlier one, side by side: alternating runs, CPU and wall time, peak memory.

    python benchmarks/peers.py --against REVISION [--photos FOLDER] [--counts 10 100] [--repeat 5] [--only NAME ...]

The revision is checked out beside this one for as long as it takes. Each run is a process of its own; what is told is
the median with the lowest and the highest, and the ratio of the medians of both builds, which alone can be compared
between machines. One thread each, unless --threads says otherwise.

    one photo, photos N    `unfade restore` of whole photos: time per photo
    faces                  `unfade restore --aligned` of the sample faces: time per face
    targets                `unfade targets` of four sample faces: time per face
    tuning step            `unfade finetune`: what six more steps take, over six
    doctor, help           the whole command
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SAMPLES = HERE / "src/unfade/samples/photos"
RUN = "import sys; from unfade.cli import start; start()"


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    cpu: float  # s, of user and system
    wall: float  # s
    memory: float  # MiB at most


@dataclass(frozen=True)
class Build:
    """A source tree, and how its command is run."""

    name: str
    root: Path
    threads: int

    def cost(self, *command: object) -> Cost:
        """Run a command of this build. Raises RuntimeError with what it said if it fails."""
        return self.cost_of(RUN, *map(str, command))

    def cost_of(self, code: str, *words: str) -> Cost:
        """Run some Python with this build, in a process of its own. Raises RuntimeError like `cost`."""
        environment = {**os.environ, "PYTHONPATH": str(self.root / "src"), "OMP_NUM_THREADS": str(self.threads)}
        begin = time.perf_counter()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stdout=said, stderr=said)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                raise RuntimeError(f"{self.name}: {' '.join(words)} failed: {said.read().decode()[-500:]}")
        return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - begin, used.ru_maxrss / 1024)


Task = Callable[[Build, Path], Cost]  # what it costs per item, with an empty folder to work in


def restoring(photos: Path, count: int, *flags: str) -> Task:
    """`unfade restore` of so many copies of the photos of a folder."""
    pictures = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))

    def task(build: Build, folder: Path) -> Cost:
        (folder / "photos").mkdir()
        for number, path in zip(range(count), itertools.cycle(pictures), strict=False):
            shutil.copy(path, folder / "photos" / f"{number:04}{path.suffix}")
        whole = build.cost("restore", folder / "photos", "--out", folder / "out", "--quiet", *flags)
        return Cost(whole.cpu / count, whole.wall / count, whole.memory)

    return task


def targets(build: Build, folder: Path) -> Cost:
    """Pseudo targets of four sample faces by the built-in prior."""
    faces, count = sample_faces(folder, 4), 4
    whole = build.cost("targets", faces, "--out", folder / "out", "--quiet")
    return Cost(whole.cpu / count, whole.wall / count, whole.memory)


def tuning_step(build: Build, folder: Path) -> Cost:
    """A longer fine-tuning less a shorter one; what the faces are taught does not change what it costs."""
    faces, more = sample_faces(folder, 8), 6

    def run(steps: int) -> Cost:
        out = folder / f"{steps}.safetensors"
        return build.cost("finetune", faces, faces, "--out", out, "--steps", steps, "--hold-out", 0, "--quiet")

    short, long = run(1), run(1 + more)
    return Cost((long.cpu - short.cpu) / more, (long.wall - short.wall) / more, long.memory)


def sample_faces(folder: Path, count: int) -> Path:
    """The first faces of the samples, in a folder of their own."""
    faces = folder / "faces"
    faces.mkdir()
    for path in sorted(SAMPLES.iterdir())[:count]:
        shutil.copy(path, faces)
    return faces


def tasks(photos: Path, counts: list[int]) -> dict[str, Task]:
    """What is measured, by name."""
    return {
        "help": lambda build, folder: build.cost("--help"),
        "doctor": lambda build, folder: build.cost("doctor", "--quiet"),
        "one photo": restoring(photos, 1),
        "targets": targets,
        "tuning step": tuning_step,
        "faces": restoring(SAMPLES, 16, "--aligned"),
        **{f"photos {count}": restoring(photos, count) for count in counts},
    }


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A revision of this repository in a folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "build"
        subprocess.run(["git", "-C", HERE, "worktree", "add", "--detach", "-q", place, revision], check=True)
        try:
            yield place
        finally:
            subprocess.run(["git", "-C", HERE, "worktree", "remove", "--force", place], check=True)


def measured(task: Task, builds: list[Build], repeat: int) -> list[list[Cost]]:
    """The costs of each build, in turns, after one turn that fills the caches of the disk."""
    costs: list[list[Cost]] = [[] for _ in builds]
    for turn in range(repeat + 1):
        for build, found in zip(builds, costs, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                cost = task(build, Path(folder))
            if turn:
                found.append(cost)
    return costs


def told(name: str, field: str, unit: str, costs: list[list[Cost]]) -> str:
    """A row of the table: both medians with their spread, and how many times as much the earlier build takes."""
    values = [[getattr(cost, field) for cost in found] for found in costs]
    medians = [statistics.median(some) for some in values]
    spread = [
        f"{middle:9.3f} ({min(some):.3f} to {max(some):.3f})" for middle, some in zip(medians, values, strict=True)
    ]
    return f"{name:12} {field + ', ' + unit:12} {spread[0]:32} {spread[1]:32} {medians[0] / medians[1]:6.2f}"


def main() -> None:
    """Print the table, a row for each task and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, metavar="REVISION", help="of this repository")
    parser.add_argument("--photos", type=Path, default=SAMPLES, help="whole photos; default: the sample faces")
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", metavar="NAME")
    args = parser.parse_args()
    chosen = tasks(args.photos, args.counts)
    if unknown := set(args.only or ()) - chosen.keys():
        parser.error(f"there is no {sorted(unknown)[0]}; there are: {', '.join(chosen)}")
    with checked_out(args.against) as earlier:
        builds = [Build(args.against, earlier, args.threads), Build("this", HERE, args.threads)]
        print(f"{'':12} {'':12} {args.against:32} {'this build':32} {'ratio':>6}")
        for name in args.only or chosen:
            costs = measured(chosen[name], builds, args.repeat)
            for field, unit in (("cpu", "s"), ("wall", "s"), ("memory", "MiB")):
                print(told(name, field, unit, costs), flush=True)


if __name__ == "__main__":
    main()
