"""A prior over latents that knows a picture: the second stage of DiffBIR as the one loop walks it."""

from torch import Tensor, nn

from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.schedule import scaled_linear_betas
from unfade.nets.diffbir import DiffBIR


class LatentPrior(DiffusionPrior):
    """p(z) over latents (B, 4, h, w) of pictures (B, 3, size, size); `unet` maps (z_t, t_model) to noise.

    The schedule is latent diffusion's; the predicted z0 is not clamped, for a latent has no bounds.
    """

    betas = staticmethod(scaled_linear_betas)

    def within(self, x0: Tensor) -> Tensor:
        """The same."""
        return x0


def prior_given(network: DiffBIR, hint: Tensor, *, spacing: str = "50") -> LatentPrior:
    """p(z | picture) for one batch of pictures, whose latents are the hint (B, 4, h, w)."""
    return LatentPrior(_Hinted(network, hint), network.config.size, spacing=spacing)


class _Hinted(nn.Module):
    def __init__(self, network: DiffBIR, hint: Tensor):
        super().__init__()
        self.network, self.hint = network, hint

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.network(z, t, self.hint)  # type: ignore[no-any-return]
