"""What ten million photos take, from a few: processor time by steps, bytes moved, operations of the network.

Photos of 2 and of 24 megapixels, each with one face, go through the steps of `unfade restore` one after the other, in
one thread; times are processor times, so that other work on the machine hardly matters. What a process takes to begin,
and the size of its journal, are measured by the command itself.

python benchmarks/fleet.py [--count 4] [--items 10000000]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from unfade.faces.align import crop, to_template
from unfade.faces.detect import find_faces
from unfade.faces.detectors import load_detector
from unfade.faces.identity import likeness, load_embedder, load_judge
from unfade.faces.paste import paste
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo
from unfade.restorers.load import load_restorer
from unfade.stages.restore import restore_batch
from unfade.store.checkpoints import sha256_of

FACES = Path(__file__).parents[1] / "src" / "unfade" / "samples" / "truth"
SIDES = {"2 megapixels": (1224, 1632), "24 megapixels": (4000, 6000)}  # height and width
SHARE = 0.3  # of the photo's height that the face takes


def draw(folder: Path, height: int, width: int, count: int) -> list[Path]:
    """Smooth noise with a face in it, as JPEG of quality 92."""
    chance, faces, paths = np.random.default_rng(0), sorted(FACES.glob("*.png")), []
    side = round(SHARE * height)
    for number in range(count):
        coarse = chance.integers(90, 160, (height // 8, width // 8, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        with Image.open(faces[number % len(faces)]) as face:
            photo.paste(face.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (width // 3, height // 3))
        paths.append(folder / f"{width}-{number:03d}.jpg")
        photo.save(paths[-1], quality=92)
    return paths


@contextmanager
def timed(spent: Counter[str], step: str) -> Iterator[None]:
    """Add the processor time of the block."""
    begin = time.process_time()
    yield
    spent[step] += time.process_time() - begin


def steps_of(paths: list[Path]) -> tuple[Counter[str], int, int]:
    """Processor seconds of each step over all photos but the first, bytes read, and bytes written."""
    detector, restorer = load_detector("yunet"), load_restorer("small-restorer", device="cpu")
    alike = likeness(load_embedder("dlib-face"), load_judge())
    spent, read, written = Counter[str](), 0, 0
    for number, path in enumerate(paths):
        if number == 1:  # the first has warmed up
            spent.clear()
            read = written = 0
        with timed(spent, "hash"):
            sha256_of(path)
        with timed(spent, "decode"):
            photo = read_photo(path)
        with timed(spent, "detect"):
            (found,) = [to_template(face.points, restorer.size) for face in find_faces(photo, detector)][:1]
            face = crop(photo, found, restorer.size)
        with timed(spent, "network"):
            restored = restore_batch(face[None], restorer)[0]
        with timed(spent, "identity"):
            alike.distance(face, restored)
        with timed(spent, "paste"):
            paste(photo, face, restored, found)
        with timed(spent, "encode"):
            content = encode_photo(photo)
        read, written = read + 2 * path.stat().st_size, written + len(content)  # read for its hash, and as a photo
    return spent, read, written


def command_alone() -> tuple[float, int]:
    """Processor seconds of starting `unfade restore` for one small face, and its journal's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        face = next(iter(sorted(FACES.glob("*.png"))))
        out = Path(folder, "out")
        words = [
            "restore",
            str(face),
            "--aligned",
            "--out",
            str(out),
            "--identity",
            "none",
            "--quiet",
            "--device",
            "cpu",
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "unfade", *words], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return spent, (out / "journal.jsonl").stat().st_size


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--items", type=int, default=10_000_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, journal = command_alone()
    print(
        f"a process: {started:.1f} CPU s to begin; a photo: {journal} bytes of journal, written in 2 parts to the disk"
    )
    restorer = load_restorer("small-restorer", device="cpu")
    with FlopCounterMode(display=False) as counter:
        restore_batch(torch.zeros(1, 3, restorer.size, restorer.size), restorer)
    print(f"the network: {counter.get_total_flops() / 1e9:.1f} billion operations for a face")
    for name, (height, width) in SIDES.items():
        with tempfile.TemporaryDirectory() as folder:
            spent, read, written = steps_of(draw(Path(folder), height, width, args.count + 1))
        each = sum(spent.values()) / args.count
        shares = ", ".join(f"{step} {seconds / args.count:.3f}" for step, seconds in spent.items())
        spent["all"] = each * args.count
        hours = {step: args.items * seconds / args.count / 3600 for step, seconds in spent.items()}
        print(f"{name}: {each:.2f} CPU s a photo ({shares})")
        print(f"  {args.items} photos: {hours['all']:,.0f} core hours, {hours['network']:,.0f} of them in the network")
        print(
            f"  {read / args.count / 2e6:.2f} MB a photo, read twice, and {written / args.count / 1e6:.2f} MB written:",
            end=" ",
        )
        print(f"{args.items * (read + written) / args.count / 1e12:.1f} TB moved")


if __name__ == "__main__":
    main()
