"""Is the training loop kept fed? Pictures a second that the loader delivers, over those that the network learns from.

    python benchmarks/data_loading.py [--device cpu] [--sizes 128 512] [--workers 0 1 2] [--steps 12]

The faces are generated and degraded blindly (Eq. 9); the network is the built-in restorer's. Below 1 the loader would
hold the network up. At last the share of the time that a short training of its own waits for data.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from unfade.images.files import write_png
from unfade.images.filters import resize
from unfade.nets.swinir import SwinIR
from unfade.recipes.pretrain import RestorerBatches, RestorerRecipe
from unfade.restorers.image_level import SwinIRRestorer
from unfade.training.batches import Order, Pictures
from unfade.training.loader import feeding
from unfade.training.loop import train

FACES = 32
BATCHES = {128: 16, 512: 1}  # pictures in a step, by size: as many as two cores get through in seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement of the loader")
    parser.add_argument("--steps", type=int, default=12, help="of the short training; 0: none")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, device {args.device}")
    for size in args.sizes:
        batch = BATCHES[size]
        recipe = RestorerRecipe(size=size)
        recipe = replace(recipe, loop=replace(recipe.loop, batch=batch, micro_batch=batch, steps=args.steps))
        with tempfile.TemporaryDirectory() as folder:
            batches = RestorerBatches(generated(Path(folder), size), Order([1.0] * FACES, seed=0), recipe)
        compare(batches, args)


def compare(batches: RestorerBatches, args: argparse.Namespace) -> None:
    """Print the ratios of one size."""
    size, batch = batches.recipe.size, batches.recipe.loop.batch
    learned = batch / training(batches, args.device, 0, steps=2)[0]
    print(f"\n{size} px, batches of {batch}: the network learns from {learned:.1f} pictures a second")
    for workers in args.workers:
        made = delivered(batches, workers, args.device, args.seconds)
        print(f"  {workers} workers: {made:6.1f} pictures a second, {made / learned:6.1f} times as many")
    if args.steps:
        for workers in args.workers:
            seconds, waiting = training(batches, args.device, workers, steps=args.steps)
            print(f"  {workers} workers: a training of {args.steps} steps, {seconds:.2f} s each, waits {waiting:.2%}")


def training(batches: RestorerBatches, device: str, workers: int, *, steps: int) -> tuple[float, float]:
    """(seconds a step, share of them waited for data) of the built-in restorer's training, from the second step on."""
    recipe = batches.recipe
    restorer = SwinIRRestorer(SwinIR(recipe.network), recipe.size).to(device)
    ends: list[float] = []
    history = train(
        restorer,
        restorer.objective(recipe.losses),
        batches,
        replace(recipe.loop, steps=steps),
        workers=workers,
        progress=Ends(ends),
    )
    return (ends[-1] - ends[0]) / (len(ends) - 1), history.waiting


class Ends:
    """Notes when each step has ended, instead of showing it."""

    def __init__(self, ends: list[float]):
        self.ends = ends

    def __call__(self, label: str, total: int, *, start: int = 0) -> "Ends":
        return self

    def __enter__(self) -> Callable[[float], None]:
        return lambda amount: self.ends.append(time.perf_counter())

    def __exit__(self, *error: object) -> None:
        pass


def delivered(batches: RestorerBatches, workers: int, device: str, seconds: float) -> float:
    """Pictures a second of the loader alone, after those that were made ahead."""
    with feeding(batches, range(10**6), workers=workers, device=device) as feed:
        for _ in range(1 + 2 * workers):
            next(feed)
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            count += len(next(feed)[0])
        return count / (time.perf_counter() - begin)


def generated(folder: Path, size: int) -> Pictures:
    """Smooth pictures, kept decoded."""
    paths = [folder / f"{i:02d}.png" for i in range(FACES)]
    for i, path in enumerate(paths):
        noise = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) * 2 - 1
        write_png(path, resize(noise, size, size))
    return Pictures(paths, size)


if __name__ == "__main__":
    main()
