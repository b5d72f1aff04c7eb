"""Trainings that one process and several have to do alike; under torchrun each writes its outcomes to FOLDER."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from toys import LOOP, SIZE, Stopped, ToyAdversary, toy_distance, toy_model
from unfade.nets.discriminator import UNetDiscriminatorSN
from unfade.restorers.image_level import ImageLossSettings, ImageObjective
from unfade.training.loop import train
from unfade.training.modes import seeded
from unfade.training.objective import Objective

UNEVEN = 5  # items of a batch, in parts of 2: three parts, the last one smaller


def batches(step: int) -> tuple[Tensor, Tensor]:
    """Faces and targets."""
    face, target = torch.randn(2, UNEVEN, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(step))
    return face, target


def image_objective() -> ImageObjective:
    """With a discriminator with spectral norms, and a perceptual term that draws a shift for every micro-batch."""
    with seeded(torch.device("cpu"), 3):
        discriminator = UNetDiscriminatorSN(features=4)

    def shifted(restored: Tensor, target: Tensor) -> Tensor:
        by = int(torch.randint(SIZE, (1,)))
        return (
            (restored.roll(by, -1)[..., : SIZE // 2] - target.roll(by, -1)[..., : SIZE // 2]).square().mean((1, 2, 3))
        )

    settings = ImageLossSettings(perceptual_weight=0.5, gan_weight=0.5, discriminator_lr=1e-3)
    return ImageObjective(settings, perceptual=shifted, discriminator=discriminator, micro_batches=3)


OBJECTIVES: dict[str, Callable[[], Objective]] = {"toy": ToyAdversary, "image": image_objective}


def outcome(name: str, checkpoint: Path, *, stops: Iterable[int] = ()) -> dict[str, object]:
    """The history and weights of a training, which is stopped before these steps and goes on from its checkpoint."""
    settings = replace(LOOP, batch=UNEVEN, clip=0.5, checkpoint_every=3)
    for stop in (*stops, -1):

        def made(step: int, stop: int = stop) -> tuple[Tensor, Tensor]:
            if step == stop:
                raise Stopped
            return batches(step)

        model, objective = toy_model(), OBJECTIVES[name]()
        try:
            history = train(model, objective, made, settings, checkpoint=checkpoint, validate=toy_distance)
        except Stopped:
            continue
    return {"history": history.as_dict(), "model": model.state_dict(), "objective": objective.state_dict()}


def main(folder: Path) -> None:
    """Whole and resumed trainings."""
    import os

    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    for name in OBJECTIVES:
        for kind, stops in (("whole", ()), ("resumed", (8,))):
            found = outcome(name, folder / f"{name}-{kind}.training", stops=stops)
            torch.save(found, folder / f"{name}-{kind}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
