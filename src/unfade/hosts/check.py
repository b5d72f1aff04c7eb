"""Random pictures on which an exported file must agree with the network that it was made from."""

import torch
from torch import Tensor

from unfade.images.filters import resize
from unfade.store.seeds import seed_for


def random_faces(count: int, size: int, *, seed: int) -> Tensor:
    """(count, 3, size, size) in [-1, 1]: smooth colours and a little noise, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed_for("random faces", seed))
    smooth = resize(torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1, size, size)
    return (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(-1, 1)
