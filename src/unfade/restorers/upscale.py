"""Networks that restore a photo around its faces: Real-ESRGAN, or another one that spandrel (MIT) can load."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from unfade.devices import device_of
from unfade.errors import BadInput
from unfade.restorers.spandrel import ARCHITECTURE, SpandrelRestorer, restorer_of
from unfade.store.foreign import read_foreign
from unfade.zoo.load import Loaded, Reader, load_network

TILE = 256  # px, side of the tiles that a network gets; Real-ESRGAN needs 0.3 GB for one


class Upscaler(nn.Module):
    """Maps (B, 3, tile, tile) in [-1, 1], on any device, to (B, 3, factor * tile, factor * tile) in [-1, 1].

    It is never trained.
    """

    def __init__(self, restorer: SpandrelRestorer) -> None:
        """`restorer` works on squares of `tile` px; its enlarged result is used, before it is resized."""
        super().__init__()
        self.restorer = restorer
        self.tile: int = restorer.size
        self.factor: int = restorer.scale

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        return self.restorer.enlarged(image.to(device_of(self))).float().clamp(-1, 1)


def loaded_upscaler(spec: str | Path, device: torch.device | str = "cpu", *, tile: int = TILE) -> Loaded[Upscaler]:
    """A network for backgrounds, by the name of a model (realesrgan-x2) or a file that spandrel can load.

    No code in the file is executed. `tile` is in px. Raises UnknownModel, which says how to get the model; BadInput
    without the extra, or for a network that is not a plain function from picture to picture; BadCheckpoint for a file
    that is damaged or that spandrel does not recognise.
    """

    def read(path: Path, device: torch.device | str) -> Upscaler:
        if not find_spec("spandrel"):
            raise BadInput(
                f"{spec} as a background needs spandrel: run `pip install unfade[archs]`, or set `background` to "
                "lanczos."
            )
        return Upscaler(restorer_of(read_foreign(path), size=tile, source=path)).eval().to(device)

    return load_network(spec, "upscaler", device=device, reader_of=lambda path: Reader(ARCHITECTURE, read))
