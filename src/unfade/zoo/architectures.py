"""The networks whose files can be read or imported: each network's own file defines how it is recognised and built."""

import torch

from unfade.metrics import distribution, no_reference
from unfade.nets import (
    adaface,
    arcface,
    codeformer,
    damage,
    demosaicnet,
    diffbir,
    discriminator,
    dlib_face,
    fan,
    gfpgan,
    inception,
    lpips,
    maniqa,
    musiq,
    parsenet,
    pgdiff_restorer,
    retinaface,
    stylegan_discriminator,
    swinir,
    unet,
    vqfr,
    vqgan,
)
from unfade.nets.architecture import Architecture, Config, State

ARCHITECTURES: dict[str, Architecture] = {  # a network whose keys include all keys of another comes before it
    "unet": unet.ARCHITECTURE,
    "swinir": swinir.ARCHITECTURE,
    "codeformer": codeformer.ARCHITECTURE,
    "vqgan": vqgan.ARCHITECTURE,
    "gfpgan": gfpgan.ARCHITECTURE,
    "vqfr": vqfr.ARCHITECTURE,
    "arcface": arcface.ARCHITECTURE,
    "adaface": adaface.ARCHITECTURE,
    "dlib-face": dlib_face.ARCHITECTURE,
    "inception": inception.ARCHITECTURE,
    "parsenet": parsenet.ARCHITECTURE,
    "retinaface-resnet50": retinaface.RESNET50_ARCHITECTURE,
    "retinaface-mobilenet": retinaface.MOBILENET025_ARCHITECTURE,
    "awing-fan": fan.ARCHITECTURE,
    "pgdiff-restorer": pgdiff_restorer.ARCHITECTURE,
    "diffbir": diffbir.ARCHITECTURE,
    "lpips": lpips.VGG_ARCHITECTURE,
    "lpips-alex": lpips.ALEX_ARCHITECTURE,
    "unet-discriminator": discriminator.ARCHITECTURE,
    "vqgan-discriminator": vqgan.DISCRIMINATOR_ARCHITECTURE,
    "stylegan2-discriminator": stylegan_discriminator.ARCHITECTURE,
    "musiq": musiq.ARCHITECTURE,
    "maniqa": maniqa.ARCHITECTURE,
    "niqe": no_reference.ARCHITECTURE,
    "statistics": distribution.ARCHITECTURE,
    "damage": damage.ARCHITECTURE,
    "demosaicnet": demosaicnet.ARCHITECTURE,
}


def shapes(architecture: Architecture, config: Config) -> State:
    """The tensors of the network on the meta device, without memory for their values."""
    with torch.device("meta"):
        tensors: State = architecture.build(config).state_dict()
    return tensors
