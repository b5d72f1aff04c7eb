"""Runs the networks, losses, guidances and trainings on a pretended device, and prints what is wrong with each."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from networks import B32
from pretended import NAME, PLACE, begin, no_waiting, placed, pretended
from tiny_codeformer import TINY as CODEFORMER
from tiny_diffbir import TINY as DIFFBIR
from toys import LOOP
from unfade import devices
from unfade.diffusion.denoising import Denoising
from unfade.diffusion.features import PriorFeatures
from unfade.diffusion.guidance import Guidance
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import UPDATES
from unfade.errors import first_line
from unfade.faces import chips
from unfade.faces.chips import chips_of
from unfade.images import filters
from unfade.metrics.identity import in_levels
from unfade.nets.adaface import AdaFaceConfig
from unfade.nets.arcface import ArcFaceConfig, grey
from unfade.nets.architecture import to_header
from unfade.nets.diffbir import DiffBIR
from unfade.nets.discriminator import UNetDiscriminatorSN
from unfade.nets.dlib_face import DlibFaceConfig
from unfade.nets.fan import FANConfig
from unfade.nets.gfpgan import GFPGANConfig
from unfade.nets.inception import InceptionConfig
from unfade.nets.lpips import LPIPS
from unfade.nets.maniqa import MANIQAConfig
from unfade.nets.musiq import MUSIQConfig
from unfade.nets.parsenet import ParseNetConfig
from unfade.nets.pgdiff_restorer import PGDiffRestorer, PGDiffRestorerConfig
from unfade.nets.retinaface import RetinaFaceConfig
from unfade.nets.stylegan_discriminator import StyleGANDiscriminatorConfig
from unfade.nets.swinir import SwinIRConfig
from unfade.nets.unet import PREDICTS, UNet
from unfade.nets.vqfr import VQFRConfig
from unfade.nets.vqgan import VQGANConfig
from unfade.precision import autocast
from unfade.restorers import one_step
from unfade.restorers.base import Restorer
from unfade.restorers.code_level import CODE_LOSSES
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import RESTORERS
from unfade.restorers.one_step import REFINEMENTS, OneStepRestorer
from unfade.stages.methods import METHODS, walk
from unfade.stages.restore import restore_batch
from unfade.stages.targets import TargetSettings, pseudo_target
from unfade.training.loop import train
from unfade.training.objective import Objective
from unfade.zoo.architectures import ARCHITECTURES

SWINIR = SwinIRConfig(img_size=16, embed_dim=24, depths=(2, 2), heads=2, unshuffle=4, upscale=4)
VQFR = VQFRConfig(size=32, channels=32, channel_mult=(1, 1, 2), codes=16, code_channels=8, input_channels=8)
GFPGAN = GFPGANConfig(size=16, style_features=8, narrow=1 / 64, mapping_layers=2)
FAMILIES = {
    "swinir": {"size": 64, **to_header(SWINIR)},
    "one_step": to_header(B32),
    "gfpgan": to_header(GFPGAN),
    "codeformer": to_header(CODEFORMER),
    "vqfr": to_header(VQFR),
}
CONFIGS = {  # of networks that would take long at their published size
    **{name: config for name, config in FAMILIES.items() if name != "one_step"},
    "unet": to_header(B32),
    "vqgan": to_header(VQGANConfig(32, 32, (1, 1, 2), 1, (8,), 16, 8)),
    "arcface": to_header(ArcFaceConfig(size=32, width=4, blocks=(1, 1, 1, 1), embedding=8)),
    "adaface": to_header(AdaFaceConfig(width=4, blocks=(1, 2, 1, 1), embedding=8)),
    "diffbir": to_header(DIFFBIR),
    "unet-discriminator": {"features": 8},
    "vqgan-discriminator": {"features": 8, "layers": 2},
    "stylegan2-discriminator": to_header(StyleGANDiscriminatorConfig(size=32, narrow=1 / 64)),
    "musiq": to_header(MUSIQConfig(24, 32, 2, 2, 8, 4, (16, 24), 32)),
    "maniqa": to_header(MANIQAConfig(size=64, width=24, heads=3, hidden=32)),
    "pgdiff-restorer": to_header(PGDiffRestorerConfig(16, 8, 2)),
    "demosaicnet": {"depth": 2, "width": 8},
    "inception": to_header(InceptionConfig(width=1 / 16)),
    "parsenet": to_header(ParseNetConfig(width=8, widest=8, halvings=2, blocks=1)),
    "retinaface-resnet50": to_header(RetinaFaceConfig(width=8, features=8)),
    "retinaface-mobilenet": to_header(RetinaFaceConfig(backbone="mobilenet", width=2, features=8)),
    "awing-fan": to_header(FANConfig(landmarks=5, hourglasses=1, depth=1)),
    "dlib-face": to_header(DlibFaceConfig(blocks=(1, 1, 1, 1, 1))),
}
ON_HOST = {"niqe", "statistics"}  # their numbers are float64
T = (2,)
INPUTS: dict[str, tuple[tuple[int, ...], ...]] = {  # shapes; (2,) is a step; 32 px where none is said
    "unet": ((2, 3, 32, 32), T),
    "swinir": ((2, 3, 20, 28),),
    "gfpgan": ((2, 3, 16, 16),),
    "arcface": ((2, 1, 32, 32),),
    "adaface": ((2, 3, 112, 112),),
    "dlib-face": ((2, 3, 150, 150),),
    "inception": ((2, 3, 299, 299),),
    "parsenet": ((2, 3, 64, 64),),
    "retinaface-resnet50": ((2, 3, 64, 96),),
    "retinaface-mobilenet": ((2, 3, 64, 96),),
    "awing-fan": ((2, 3, 256, 256),),
    "pgdiff-restorer": ((2, 3, 32, 32), (2, 3, 32, 32), T),
    "diffbir": ((2, 4, 16, 16), T, (2, 4, 16, 16)),
    "lpips": ((2, 3, 64, 64), (2, 3, 64, 64)),
    "lpips-alex": ((2, 3, 64, 64), (2, 3, 64, 64)),
    "stylegan2-discriminator": ((4, 3, 32, 32),),
    "musiq": ((2, 3, 40, 50),),
    "maniqa": ((2, 3, 64, 64),),
    "damage": ((2, 3, 128, 128),),
}


def there(*shape: int) -> Tensor:
    """A tensor on the pretended device; of one number for each picture, a step."""
    return torch.zeros(shape, device=PLACE, dtype=torch.long) if shape == T else torch.empty(shape, device=PLACE)


def noise(like: Tensor) -> Tensor:
    return torch.empty_like(like)


def prior(predicts: str = "eps", spacing: str = "20") -> DiffusionPrior:
    unet = UNet(replace(B32, predicts=predicts)).eval().requires_grad_(False)
    made: DiffusionPrior = placed(DiffusionPrior(unet, 32, spacing=spacing, predicts=predicts))
    return made


def restorer(family: str = "one_step") -> Restorer:
    made: Restorer = placed(RESTORERS[family](FAMILIES[family])).eval()
    if family == "vqfr":
        made.set_fidelity(0)  # what is above needs torchvision
    return made


def network(name: str) -> None:
    """Forward and backward."""
    net: nn.Module = placed(ARCHITECTURES[name].build(CONFIGS.get(name, {}))).eval()
    given: list[Any] = [there(*shape) for shape in INPUTS.get(name, ((2, 3, 32, 32),))]
    if given[0].dtype == torch.float32:
        given[0].requires_grad_()
    with no_waiting(), autocast(torch.device(PLACE), bf16=True):
        found = net(*given, *([0.0] if name == "vqfr" else []))  # above a fidelity of 0 it needs torchvision
        parts = [found] if isinstance(found, Tensor) else [part for part in found if isinstance(part, Tensor)]
        sum(part.float().sum() for part in parts).backward()  # type: ignore[union-attr]


def restored(family: str) -> None:
    made = restorer(family)
    made.bf16 = True
    face = there(2, 3, made.size, made.size)
    with no_waiting():
        assert restore_batch(face, made, strength=0.5).dtype == torch.float32
        made.matching_step(face)


def refined(evaluations: int) -> None:
    made = restorer()
    assert isinstance(made, OneStepRestorer)
    made.set_refine(evaluations)
    with no_waiting(copies=True), torch.no_grad(), autocast(torch.device(PLACE), bf16=True):  # the seeds are copied
        assert made(there(2, 3, 32, 32)).dtype == torch.float32


def target(update: str, predicts: str) -> None:
    settings = TargetSettings(spacing="20", start=4, free_from=2, factor=4, update=update, bf16=True)
    face, made, own = there(2, 3, 32, 32), restorer(), prior(predicts)
    with no_waiting():
        assert pseudo_target(face, made.attempt, own, noise, settings).dtype == torch.float32


def shortened(guidance: Guidance) -> Guidance:
    """The same guidance, of whose steps only the first two and the last two are taken."""
    kind: Any = type(guidance)

    def ends(self: Guidance, num_steps: int) -> list[int]:
        steps = kind.timesteps(self, num_steps)
        return [*steps[:2], *steps[-2:]]

    short: Guidance = object.__new__(type("Shortened", (kind,), {"timesteps": ends}))
    short.__dict__.update(guidance.__dict__)
    return short


def method(name: str) -> None:
    published = METHODS[name]
    way = replace(published, guide=lambda given: shortened(published.guide(given)))
    owns = {"pgdiff-restorer": (PGDiffRestorer, PGDiffRestorerConfig(16, 8, 2)), "diffbir-face": (DiffBIR, DIFFBIR)}
    kind, config = owns.get(way.own, (None, None))
    own = kind and placed(kind(config)).eval().requires_grad_(False)
    face, made, walked = there(2, 3, 32, 32), restorer(), prior(spacing=way.spacing)
    with no_waiting(), autocast(torch.device(PLACE), bf16=True):
        assert walk(way, face, made, walked, noise, own).dtype == torch.float32


class _Enough(Exception):
    """The steps of a training that read no loss."""


def trained(model: nn.Module, objective: Objective, *inputs: tuple[int, ...]) -> None:
    """Two steps of the loop, whose losses are read after the tenth."""

    def batches(step: int) -> tuple[Tensor, ...]:
        if step == 2:
            raise _Enough
        return tuple(
            torch.zeros(shape, dtype=torch.long) if len(shape) == 1 else torch.zeros(shape) for shape in inputs
        )

    loop = replace(LOOP, steps=100, batch=4, micro_batch=2, clip=1.0, bf16=True, checkpoint_every=50, validate_every=50)
    try:
        with no_waiting():
            train(model, objective, batches, loop)
    except _Enough:
        return


def learned_prior(predicts: str, weighting: str) -> None:
    made = placed(UNet(replace(B32, predicts=predicts)))
    pictures = (4, 3, 32, 32)
    trained(made, placed(Denoising(predicts, weighting)), pictures, (4,), pictures)


def finetuned(family: str, perceptual: str) -> None:
    made = restorer(family)
    made.requires_grad_(False)
    for parameter in made.trainable():
        parameter.requires_grad_(True)
    measures: dict[str, Callable[[], nn.Module]] = {
        "prior": lambda: PriorFeatures(prior().unet, shifted=True),
        "lpips": lambda: placed(LPIPS()),
    }
    losses = ImageLossSettings(perceptual_weight=0.5, texture_weight=0.5 * (made.size >= 32))  # as its windows need
    parts = {"perceptual": measures[perceptual](), "discriminator": placed(UNetDiscriminatorSN(8)), "micro_batches": 2}
    objective = made.objective(CODE_LOSSES["codes"]) if family == "codeformer" else made.objective(losses, **parts)
    side = (4, 3, made.size, made.size)
    trained(made, objective, side, side)


def fusion_tuned() -> None:
    made = restorer("codeformer")
    losses = CODE_LOSSES["fusion"]
    parts = {"perceptual": PriorFeatures(prior().unet, shifted=True), "discriminator": placed(UNetDiscriminatorSN(8))}
    objective = made.objective(losses, **parts)
    made.requires_grad_(False)
    for parameter in made.trainable():
        parameter.requires_grad_(True)
    trained(made, objective, (4, 3, 32, 32), (4, 3, 32, 32))


def seen() -> None:
    """What networks that judge faces are shown."""
    face = there(2, 3, 256, 256)
    with no_waiting(), autocast(torch.device(PLACE), bf16=True):
        for convert in (grey, chips_of, partial(in_levels, size=128)):
            assert convert(face).device.type == NAME


def item_is_noticed() -> None:
    with no_waiting():
        there(1).sum().item()


def copy_is_noticed() -> None:
    with no_waiting():
        torch.zeros(3).to(PLACE)


def mask_is_noticed() -> None:
    with no_waiting():
        face = there(2, 3)
        face[face > 0] = 0


def mixture_is_noticed() -> None:
    with no_waiting():
        there(3) + torch.zeros(3)


def types_are_noticed() -> None:
    with autocast(torch.device(PLACE), bf16=True):
        assert nn.functional.linear(there(2, 3), there(3, 3)).dtype == torch.bfloat16
        torch.lerp(there(2, 3), nn.functional.linear(there(2, 3), there(3, 3)), 0.5)


def cases() -> dict[str, Callable[[], None]]:
    """All in bfloat16: what it is right for, float32 is right for too."""
    return {
        **{f"network {name}": partial(network, name) for name in ARCHITECTURES if name not in ON_HOST},
        **{f"restored by {name}": partial(restored, name) for name in RESTORERS},
        **{f"refined {count} times": partial(refined, count) for count in REFINEMENTS if count},
        **{f"target by {update}": partial(target, update, "eps") for update in UPDATES},
        **{f"target by a prior of {predicts}": partial(target, "ddpm", predicts) for predicts in PREDICTS},
        **{f"method {name}": partial(method, name) for name in METHODS},
        **{f"a prior of {predicts} learns": partial(learned_prior, predicts, "min-snr") for predicts in PREDICTS},
        **{f"{name} learns": partial(finetuned, name, "prior") for name in RESTORERS},
        "swinir learns by lpips": partial(finetuned, "swinir", "lpips"),
        "fusion learns": fusion_tuned,
        "what judges see": seen,
    }


NOTICED = [item_is_noticed, copy_is_noticed, mask_is_noticed, mixture_is_noticed, types_are_noticed]


def wrong_with(case: Callable[[], None]) -> str:
    """The error of a case; empty if there is none."""
    try:
        for kept in (filters._placed, devices._constant, chips._grid):
            kept.cache_clear()  # it is of another pretence
        with pretended(), no_waiting(copies=True):  # while networks are built
            case()
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    begin()
    nn.init.trunc_normal_ = lambda weights, **_: weights  # it draws until it has numbers in range
    one_step.ImageNoise, one_step._seed = lambda seeds, device: noise, lambda image: 0  # a pretence draws no numbers
    every = {**{one.__name__: one for one in NOTICED}, **cases()}
    for name, case in every.items():
        if len(sys.argv) < 2 or sys.argv[1] in name:
            print(json.dumps([name, wrong_with(case)]), flush=True)
