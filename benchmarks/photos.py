"""What whole photos cost beyond the network, and whether memory stays flat over a folder of them.

    python benchmarks/photos.py FACES --detector FILE [--restorer small-restorer] [--count 100]

FACES is a folder of face pictures or one of them; they are enlarged and pasted into noise. First a JPEG of 24
megapixels with one face: at most 1.2 s and 700 MB on two cores. Then COUNT photos of 2 megapixels: their time by
steps, one after the other, in ratio to the network's; and all at once as `restore_photos` does it, with the peak memory
of the first and of the last fifth, which may be 5 % higher. Each part is a process of its own, so that none begins with
the memory of another; imports and loading are not counted in the seconds, but in the memory.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SIDES = {"one": (4000, 6000), "many": (1224, 1632)}  # px, height and width
FACE = 0.3  # of the photo's height
MOST_SECONDS, MOST_MEGABYTES, MOST_GROWTH = 1.2, 700, 1.05
STEPS = ("decode", "detect", "crop", "network", "paste", "encode")
SPLIT = 10  # photos whose time is taken apart
EVERY = 0.01  # seconds between two looks at the memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--detector", default="yunet", help="a name of the table or a file")
    parser.add_argument("--restorer", default="small-restorer")
    parser.add_argument("--count", type=int, default=100, help="photos of 2 megapixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # what a child does
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        PARTS[args.part](args)
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--folder", folder]
            subprocess.run(command, check=True)


# --- the parts, each in a process of its own


def draw(args: argparse.Namespace) -> None:
    """The photos."""
    import numpy as np
    from PIL import Image

    paths = [args.faces] if args.faces.is_file() else sorted(p for p in args.faces.rglob("*.*") if p.suffix != ".csv")
    chance = np.random.default_rng(0)
    for kind, (height, width) in SIDES.items():
        (args.folder / kind).mkdir()
        coarse = chance.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        noise = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        side = round(FACE * height)
        for number in range(1 if kind == "one" else args.count):
            with Image.open(paths[number % len(paths)]) as face:
                enlarged = face.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            photo = noise.copy()
            photo.paste(enlarged, (int(chance.integers(width - side)), int(chance.integers(height - side))))
            photo.save(args.folder / kind / f"{number:05d}.jpg", quality=92)


def one(args: argparse.Namespace) -> None:
    """The large photo."""
    restore = loaded(args, "one")
    before = peak()
    begin = time.perf_counter()
    restore(lambda amount: None)
    seconds = time.perf_counter() - begin
    print(f"24 megapixels: {seconds:.2f} s (at most {MOST_SECONDS}), {seconds / MOST_SECONDS:.2f} of it")
    print(f"  peak {peak():.0f} MB (at most {MOST_MEGABYTES}), of these {before:.0f} MB before it was begun")


def split(args: argparse.Namespace) -> None:
    """The time of a few photos, step by step in one thread; the network may use all threads."""
    from unfade.faces.align import crop, to_template
    from unfade.faces.detect import find_faces
    from unfade.faces.detectors import load_detector
    from unfade.faces.paste import paste
    from unfade.images.decoding import read_photo
    from unfade.images.encoding import encode_photo
    from unfade.images.tone import tone_of
    from unfade.restorers.load import load_restorer
    from unfade.stages.restore import restore_batch

    threads(args)
    detector, restorer = load_detector(args.detector), load_restorer(args.restorer, device="cpu")
    spent: Counter[str] = Counter()
    taken = sorted((args.folder / "many").iterdir())[: SPLIT + 1]
    for number, path in enumerate(taken):
        if number == 1:
            spent.clear()  # the first has warmed up
        with timed(spent, "decode"):
            photo = read_photo(path)
        with timed(spent, "detect"):
            matrices = [to_template(face.points, restorer.size) for face in find_faces(photo, detector)]
        for matrix in matrices:
            with timed(spent, "crop"):
                face = crop(photo, matrix, restorer.size)
            with timed(spent, "network"):
                restored = restore_batch(face[None], restorer)[0]
            with timed(spent, "paste"):
                tone_of(photo)
                paste(photo, face, restored, matrix)
        with timed(spent, "encode"):
            encode_photo(photo)
    whole = sum(spent.values())
    print(f"2 megapixels, one after the other: {1000 * whole / max(1, len(taken) - 1):.0f} ms each")
    for step in STEPS:
        print(f"  {step:8} {spent[step] / whole:6.1%} {spent[step] / spent['network']:6.2f} x network")


def many(args: argparse.Namespace) -> None:
    """All photos as the stage works on them."""
    restore = loaded(args, "many")
    with watched() as memory:
        marks = [0]
        begin = time.perf_counter()
        done = restore(lambda amount: marks.extend([len(memory)] * int(amount)))
        seconds = time.perf_counter() - begin
    fifth = max(1, done // 5)
    first, last = max(memory[: marks[fifth] + 1]), max(memory[marks[-1 - fifth] :])
    print(f"{done} of {args.count} photos restored, {1000 * seconds / args.count:.0f} ms each, all threads at work")
    print(f"  peak of the first fifth {first:.0f} MB, of the last {last:.0f} MB: {last / first:.2f} of it", end=" ")
    print(f"(at most {MOST_GROWTH})")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {"draw": draw, "one": one, "split": split, "many": many}


def loaded(args: argparse.Namespace, kind: str) -> Callable[[Callable[[float], None]], int]:
    """What restores all photos of a kind, tells how many it is done with, and says how many were restored."""
    from unfade.faces.detect import DetectSettings
    from unfade.faces.detectors import load_detector
    from unfade.images.finding import find_photos
    from unfade.jobs.journal import Journal
    from unfade.jobs.runs import Run
    from unfade.memory import few_arenas, return_large
    from unfade.restorers.load import load_restorer
    from unfade.stages.photos import Choice, Searching
    from unfade.stages.restore_photos import restore_photos

    few_arenas()  # as the command does
    return_large()
    threads(args)
    restorer, out = load_restorer(args.restorer, device="cpu"), args.folder / f"{kind}-restored"
    find = Searching(load_detector(args.detector), DetectSettings(), Choice(), restorer.size)

    def restore(advance: Callable[[float], None]) -> int:
        @contextmanager
        def progress(label: str, total: int, *, start: int = 0) -> Iterator[Callable[[float], None]]:
            yield advance

        run = Run(out, Journal(out / "journal.jsonl"), progress)
        entries = restore_photos(find_photos(args.folder / kind), run, restorer, find)
        return sum(entry.status == "done" for entry in entries)

    return restore


def threads(args: argparse.Namespace) -> None:
    import cv2
    import torch

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)


# --- time and memory


@contextmanager
def timed(spent: "Counter[str]", step: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    spent[step] += time.perf_counter() - begin  # type: ignore[assignment]


@contextmanager
def watched() -> Iterator[list[float]]:
    """The memory that this process holds, MB, again and again."""
    memory, ended = [resident()], threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY):
            memory.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield memory
    ended.set()
    watcher.join()


def resident() -> float:
    """MB, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def peak() -> float:
    """MB since this process began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
