"""What the built-in models take on this machine: a pseudo target, a face restored, and a face of fine-tuning.

    python benchmarks/small_models.py [--threads 2] [--faces 4]

Bfloat16 where the processor has it, random faces. Beside each the operations that it comes to, and how many times as
long a 3x3 convolution of as many operations takes in the same run. At the end, the restorers against each other.
"""

import argparse
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from networks import convolution_rate, seconds
from unfade.diffusion.features import PriorFeatures
from unfade.diffusion.load import load_prior
from unfade.diffusion.sampler import ImageNoise
from unfade.precision import autocast, has_bf16
from unfade.recipes.adapt_settings import FEW_EVALUATIONS, SHORT_TARGETS, SMALL_ADAPT
from unfade.restorers.load import load_restorer
from unfade.stages.targets import TargetSettings, pseudo_target

SETTINGS = {
    "target, 150 steps": replace(TargetSettings(), bf16=True).for_size(128),
    "target, 30 steps": SHORT_TARGETS.for_size(128),
    "target, 6 evaluations": FEW_EVALUATIONS.for_size(128),
}
RESTORERS = ("small-restorer", "small-swinir")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--faces", type=int, default=4, help="denoised together")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rate = convolution_rate(3, "cpu")
    print(f"bfloat16: {has_bf16(torch.device('cpu'))}")
    print(f"3x3 convolution, float32: {rate:.0f} GFLOP/s")
    prior, restorer = load_prior(device="cpu"), load_restorer(device="cpu")
    face = torch.rand(args.faces, 3, 128, 128) * 2 - 1
    for dtype in (torch.float32, torch.bfloat16):  # in hardware or imitated

        def step_of_prior(dtype: torch.dtype = dtype) -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                prior.denoise(face, 100)

        tell(f"step of the prior, {dtype}", step_of_prior, args.faces, rate, repeat=3)
    for name, settings in SETTINGS.items():
        walked = prior.respaced(settings.spacing)

        def target(settings: TargetSettings = settings, walked: object = walked) -> None:
            pseudo_target(face, restorer.attempt, walked, ImageNoise(range(args.faces)), settings)

        tell(name, target, args.faces, rate, repeat=1)
    took = {name: costs(name, PriorFeatures(prior.unet), rate) for name in RESTORERS}
    new, old = (took[name] for name in RESTORERS)
    for what in new:
        print(f"{what}: {RESTORERS[0]} takes {new[what] / old[what]:.2f} times as long as {RESTORERS[1]}")


def costs(name: str, perceptual: PriorFeatures, rate: float) -> dict[str, float]:
    """Seconds a face of one restorer: restored in float32, and learned from in bfloat16."""
    restorer = load_restorer(name, device="cpu")
    batch = torch.rand(SMALL_ADAPT.finetune.loop.batch, 3, 128, 128) * 2 - 1

    @torch.no_grad()
    def restore() -> None:
        restorer(batch)

    def step() -> None:
        with autocast(torch.device("cpu"), bf16=True):
            terms = objective(restorer, batch, batch)
        sum(terms.values()).backward()

    restoring = tell(f"{name}, restoring", restore, len(batch), rate, repeat=5)
    objective = restorer.train().objective(SMALL_ADAPT.losses, perceptual=perceptual)
    return {"restoring": restoring, "fine-tuning": tell(f"{name}, fine-tuning", step, len(batch), rate, repeat=5)}


def tell(name: str, work: object, faces: int, rate: float, *, repeat: int) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    operations = counter.get_total_flops() / 1e9 / faces
    took = seconds(work, repeat, "cpu", warm=True) / faces
    ratio = took * rate / operations
    print(f"{name:28} {took:6.3f} s, {1 / took:5.1f} faces/s, {operations:6.0f} GFLOP, {ratio:.2f} x convolution")
    return took


if __name__ == "__main__":
    main()
