"""A prior and a restorer of 32 px as files, and degraded faces to adapt to: the whole story in seconds."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from networks import FOLDED32
from recorded import fill_module, picture
from unfade.images.files import write_png
from unfade.nets.swinir import SwinIR, SwinIRConfig
from unfade.nets.unet import UNet
from unfade.restorers.image_level import SwinIRRestorer
from unfade.restorers.load import save_restorer
from unfade.store.checkpoints import save_weights

RESTORER = SwinIRConfig(img_size=16, embed_dim=24, depths=(1, 1), heads=2, unshuffle=2, upscale=2, drop_path=0.1)


def write_models(folder: Path) -> tuple[Path, Path]:
    """(restorer, prior) files with weights that follow from their names."""
    restorer, prior = folder / "tiny-restorer.safetensors", folder / "tiny-prior.safetensors"
    save_restorer(restorer, fill_module(SwinIRRestorer(SwinIR(RESTORER), 32)))
    unet = fill_module(UNet(FOLDED32))
    save_weights(prior, unet, architecture="unet", config=asdict(FOLDED32), dtype=torch.float32)
    return restorer, prior


def write_faces(folder: Path, count: int, *, size: int = 32, first: int = 0) -> list[Path]:
    """`count` small pictures named face00.png, ..."""
    paths = [folder / f"face{i:02d}.png" for i in range(first, first + count)]
    for i, path in enumerate(paths):
        write_png(path, picture(size, size, 100 + first + i)[0])
    return paths


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(restorer, prior) files, written once."""
    return write_models(tmp_path_factory.mktemp("models"))
