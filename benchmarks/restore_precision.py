"""What bfloat16 changes in restored faces, in levels of 0..255, and how much faster it is on this machine.

    python benchmarks/restore_precision.py FACES [FACES ...] [--whole PHOTOS] [--restorer NAME]

With --whole, photos are restored in both precisions and compared where a face was pasted into them. Where the processor
has no bfloat16, the change is computed by an imitation, and the time says nothing.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import unfade
from unfade import precision
from unfade.images.files import read_image
from unfade.images.filters import resize
from unfade.images.finding import list_images
from unfade.restorers.base import Restorer
from unfade.restorers.load import load_restorer
from unfade.stages.restore import restore_batch

BATCH = 8


def main() -> None:
    """Print the distribution of the differences over all faces, and the seconds of CPU time per face."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, nargs="+", help="folders of aligned faces")
    parser.add_argument("--whole", type=Path, metavar="PHOTOS", help="folder of whole photos")
    parser.add_argument("--restorer", default="small-restorer")
    args = parser.parse_args()
    restorer = load_restorer(args.restorer, device="cpu")
    imitated = not precision.has_bf16(torch.device("cpu"))
    precision.has_bf16 = lambda device: True
    changes, seconds = [], {False: 0.0, True: 0.0}
    for folder in args.faces:
        images = [_at_size(read_image(path)[None], restorer.size) for path in list_images(folder)]
        for first in range(0, len(images), BATCH):
            face = torch.cat(images[first : first + BATCH])
            results = {bf16: timed(face, restorer, bf16, seconds) for bf16 in (False, True)}
            changes += list((levels(results[True]) - levels(results[False])).abs())
    every = torch.stack(changes).flatten(1)
    print(f"{len(every)} faces, {args.restorer}, bfloat16 {'imitated' if imitated else 'computed'}")
    print(f"mean change {every.mean():.3f} levels; of the worst face {every.mean(1).max():.3f}")
    for quantile in (0.5, 0.99, 0.999):
        print(
            f"{quantile:6.1%} of the values change by at most {every.quantile(quantile, dim=1).max():.0f}, in any face"
        )
    print(f"largest change of one value: {every.max():.0f}; more than 1 level: {(every > 1).float().mean():.2%}")
    took = {bf16: value / len(every) for bf16, value in seconds.items()}
    print(f"CPU s per face: float32 {took[False]:.3f}, bfloat16 {took[True]:.3f}: {took[False] / took[True]:.2f} times")
    if args.whole:
        compare_photos(args.whole, args.restorer)


def compare_photos(photos: Path, restorer: str) -> None:
    """Print how far the photos that both precisions leave differ, a line for each that has a face."""
    with tempfile.TemporaryDirectory() as folder:
        places = {bf16: Path(folder) / str(bf16) for bf16 in (False, True)}
        for bf16, place in places.items():
            settings = unfade.RestoreSettings(whole=unfade.PhotoSettings(kind="png"), bf16=bf16)
            unfade.restore(photos, place, restorer, settings=settings, device="cpu")
        for path in list_images(places[False]):
            before, after, photo = (
                levels(read_image(p)) for p in (path, places[True] / path.name, original(photos, path))
            )
            changed = (before != photo).any(0)  # where faces were restored
            if changed.any():
                off = (after - before).abs()
                share = (off > 1).any(0)[changed].float().mean()
                print(
                    f"{path.name}: largest change {off.max():.0f}; more than 1 level: {share:.3%} of the faces' pixels"
                )


def original(photos: Path, result: Path) -> Path:
    """The photo that a result was made from."""
    return next(path for path in list_images(photos) if path.stem == result.stem)


def timed(face: Tensor, restorer: Restorer, bf16: bool, seconds: dict[bool, float]) -> Tensor:
    """A batch restored in one precision; its time is added."""
    restorer.bf16 = bf16
    begin = time.process_time()
    restored = restore_batch(face, restorer)
    seconds[bf16] += time.process_time() - begin
    return restored


def levels(image: Tensor) -> Tensor:
    """As a file of 8 bits has them."""
    return image.add(1).mul(127.5).round()


def _at_size(image: Tensor, size: int) -> Tensor:
    return image if image.shape[-1] == size else resize(image, size, size).clamp(-1, 1)


if __name__ == "__main__":
    main()
