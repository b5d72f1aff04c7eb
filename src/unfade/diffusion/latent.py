"""A prior over latents, conditioned on a picture: DiffBIR's second stage in the form that the sampling loop needs."""

from torch import Tensor, nn

from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.schedule import scaled_linear_betas
from unfade.nets.diffbir import DiffBIR


class LatentPrior(DiffusionPrior):
    """p(z) over latents (B, 4, h, w) of pictures (B, 3, size, size); `unet` maps (z_t, t_model) to noise.

    The schedule is latent diffusion's; the predicted z0 is not clamped, because a latent has no bounds.
    """

    betas = staticmethod(scaled_linear_betas)

    def within(self, x0: Tensor) -> Tensor:
        """The same."""
        return x0


def prior_given(network: DiffBIR, hint: Tensor, *, spacing: str = "50") -> LatentPrior:
    """p(z | picture) for one batch of pictures; `hint` (B, 4, h, w) are their latents."""
    return LatentPrior(_Hinted(network, hint), network.config.size, spacing=spacing)


class _Hinted(nn.Module):
    def __init__(self, network: DiffBIR, hint: Tensor):
        super().__init__()
        self.network, self.hint = network, hint

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.network(z, t, self.hint)  # type: ignore[no-any-return]
