"""A diffusion prior's own U-Net as a feed-forward restorer: it treats the face as x_t and predicts x_0 once.

Degradation is not the noise that a prior was trained on, but it hides the same octaves of a face as noise of a certain
strength does. The degradation of each face is therefore estimated first, and the face enters the network at the step t
whose noise would hide as much. A clean face enters at t = 0 and is returned unchanged; a badly degraded one enters at a
large t and is largely made up by the network.

    x_t = sqrt(alpha_bar_t) * face                              no noise is added
    x_0 = face - sqrt(1 / alpha_bar_t - 1) * eps(x_t, t)        DDPM, Eq. 9 solved for x_0

Refinement adds noise to that result and denoises it again at decreasing steps (DDIM), which brings back texture that a
single prediction averages away.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unfade.diffusion.prior import as_noise
from unfade.diffusion.sampler import ImageNoise
from unfade.diffusion.schedule import linear_betas, steps_of_noise
from unfade.errors import BadInput
from unfade.images.filters import without_grid
from unfade.nets.architecture import Config, from_header, to_header, without_size
from unfade.nets.damage import SIZE, DamageNet, octaves_drowned_by
from unfade.nets.doubling import doubled as twice_as_large
from unfade.nets.unet import UNet, UNetConfig
from unfade.restorers.image_level import ImageLevelRestorer
from unfade.store.seeds import seed_for

MATCHED = 0.5  # the fidelity at which the noise of the step matches the degradation
LEAST = 0.32  # degradation that every face is assumed to have at least, at a fidelity of 0
REFINEMENTS: dict[int, tuple[float, ...]] = {  # steps of the evaluations after the first, as fractions of its step
    0: (),
    1: (1.0,),
    2: (1.0, 0.4),
    3: (1.0, 0.6, 0.25),
}


@dataclass(frozen=True)
class OneStepSettings:
    """How a face enters the prior's network."""

    highest: int = 340  # largest t of 1000 for any face; above it, too little of the face is visible
    part: float = 0.76  # of the estimated degradation: what the step's noise matches; all of it makes results smoother
    fixed: int | None = None  # t of 1000 for every face; None: from its estimated degradation
    clean: float = 0.04  # faces with at most this degradation are returned exactly as they are
    damaged: float = 0.10  # from this degradation on, the result is the network's; in between, the two are blended
    # 0..1: 1 returns the face itself, 0 enters at twice the step that matches. Below MATCHED, every face is assumed to
    # have some degradation, so that one whose degradation is underestimated is restored too: at 0.3 or less, all are.
    fidelity: float = MATCHED
    refine: int = 0  # evaluations after the first, a key of REFINEMENTS; 0 is the smoothest and most faithful
    matched_at: int | None = None  # px: the size at which a step's noise matches a degradation; None: the network's

    def __post_init__(self) -> None:
        if not 0 <= self.fidelity <= 1:
            raise BadInput(f"The fidelity must lie in 0..1, got {self.fidelity}.")
        if self.refine not in REFINEMENTS:
            raise BadInput(f"The number of refinements must be one of {[*REFINEMENTS]}, got {self.refine}.")
        if not 0 < self.part <= 1:
            raise BadInput(f"The part of the degradation that the step matches must lie in 0..1, got {self.part}.")
        if not self.clean < self.damaged:
            raise BadInput(f"Expected `damaged` to be larger than `clean`, got {self.damaged} and {self.clean}.")
        if not 0 < self.highest < 1000 or not 0 <= (self.fixed or 0) <= self.highest:
            raise BadInput(
                f"Expected `highest` in 1..999 and `fixed` in 0..highest, got {self.highest} and {self.fixed}."
            )


class OneStepRestorer(ImageLevelRestorer):
    """A prior's U-Net as a restorer. `settings` may be replaced at any time.

    Degradation is estimated at 128 px, which says nothing about the finer octaves that a larger network sees.
    """

    architecture = "one_step"
    frozen = ("damage",)
    net: UNet
    alpha_bars: Tensor
    drowned: Tensor
    at_size: Tensor  # for each step, the one with as much noise as it has at the size of the estimate

    def __init__(self, net: UNet, damage: DamageNet | None = None, settings: OneStepSettings | None = None) -> None:
        """`damage` estimates how degraded a face is; if it is not given, its weights are loaded from a file later."""
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lag
        self.size = net.config.size
        self.damage = (damage or DamageNet()).requires_grad_(False)
        self.settings = settings or OneStepSettings()
        alpha_bars = torch.from_numpy(1 - linear_betas()).cumprod(0)
        own = self.settings.matched_at or self.size
        seen = (1 / alpha_bars - 1).sqrt() * SIZE / own  # the noise that remains at the size of the estimate
        self.register_buffer("at_size", torch.tensor(steps_of_noise(self.size / own)), persistent=False)
        self.register_buffer("alpha_bars", alpha_bars.float(), persistent=False)
        self.register_buffer("drowned", octaves_drowned_by(seen).float(), persistent=False)

    def forward(self, face: Tensor) -> Tensor:
        return self._restored(face, 0 if self.training else self.settings.refine)

    def attempt(self, face: Tensor) -> Tensor:
        return self._restored(face, 0)

    def matching_step(self, face: Tensor) -> Tensor:
        return self.at_size[self.entry(self.estimated_damage(face))]

    def _restored(self, face: Tensor, evaluations: int) -> Tensor:
        damage = self.estimated_damage(face)
        t = self.entry(damage)
        x0 = self.predict(face, t)
        if self.training:
            return x0
        if evaluations:
            x0 = self._refined(x0.clamp(-1, 1), t, face, REFINEMENTS[evaluations])
        return torch.lerp(face, x0, self.share(damage)[:, None, None, None])

    def estimated_damage(self, face: Tensor) -> Tensor:
        """The share of its octaves that each face (B, 3, size, size) has lost, (B,) in 0..1; see `nets.damage`.

        Below a fidelity of MATCHED there is a least degradation, which grows linearly to LEAST at a fidelity of 0.
        """
        return self.damage.estimate(face).clamp(min=LEAST * (1 - self.settings.fidelity / MATCHED))

    def entry(self, damage: Tensor) -> Tensor:
        """The steps at which faces with this degradation, (B,) in 0..1, enter: (B,) integers in 0..highest."""
        matched = (self.drowned < self.settings.part * damage[:, None]).sum(1)
        if self.settings.fixed is not None:
            matched = torch.full_like(matched, self.settings.fixed)
        return (matched * (1 - self.settings.fidelity) / (1 - MATCHED)).long().clamp(max=self.settings.highest)

    def share(self, damage: Tensor) -> Tensor:
        """The share of the network in the result, (B,) in 0..1, for faces with this degradation; the rest is the face.

        It is 1 if the step is fixed, and for networks of other sizes than SIZE, whose finer detail the estimate does
        not see; but not for those that were doubled, as a face that is clean at SIZE is not theirs to repaint.
        """
        if (self.settings.matched_at or self.size) != SIZE or self.settings.fixed is not None:
            return torch.ones_like(damage)
        return ((damage - self.settings.clean) / (self.settings.damaged - self.settings.clean)).clamp(0, 1)

    def predict(self, face: Tensor, t: Tensor) -> Tensor:
        """Predict x_0 from faces (B, 3, size, size), treated as x_t / sqrt(alpha_bar_t), at steps t, (B,)."""
        alpha_bar = self.alpha_bars[t][:, None, None, None]
        x_t = alpha_bar.sqrt() * face
        eps = as_noise(self.net.config.predicts, self.net(x_t, t).float()[:, :3], x_t, alpha_bar)
        return face - (1 / alpha_bar - 1).sqrt() * without_grid(eps, self.net.config.patch)

    def _refined(self, x0: Tensor, t: Tensor, face: Tensor, parts: tuple[float, ...]) -> Tensor:
        """DDIM from the first prediction with added noise, at steps that are these fractions of t; `face` seeds it."""
        eps = ImageNoise([_seed(image) for image in face.cpu()], face.device)(face)
        for part in parts:
            now = (part * t).long()
            alpha_bar = self.alpha_bars[now][:, None, None, None]
            spread = (1 / alpha_bar - 1).sqrt()
            x_t = x0 + spread * eps  # divided by sqrt(alpha_bar)
            x0 = self.predict(x_t, now).clamp(-1, 1)
            eps = (x_t - x0) / spread
        return x0

    @property
    def fidelity(self) -> float:
        """The fidelity of `settings`."""
        return self.settings.fidelity

    def set_fidelity(self, fidelity: float) -> None:
        """Set the fidelity. Raises BadInput outside 0..1."""
        self.settings = replace(self.settings, fidelity=fidelity)

    @property
    def refine(self) -> int:
        """The number of refinements in `settings`."""
        return self.settings.refine

    def set_refine(self, evaluations: int) -> None:
        """Set the number of refinements. Raises BadInput outside 0 to 3."""
        self.settings = replace(self.settings, refine=evaluations)

    def config(self) -> Config:
        return {**without_size(to_header(self.net.config)), "entry": to_header(self.settings)}


def built(config: Config) -> OneStepRestorer:
    """Build the restorer that a header describes, with random weights. Raises BadInput for an unknown field."""
    shape = {name: value for name, value in config.items() if name != "entry"}
    settings = from_header(OneStepSettings, config.get("entry", {}))
    return OneStepRestorer(UNet(from_header(UNetConfig, shape)), settings=settings)


def one_step_of(unet: UNet, damage: DamageNet, settings: OneStepSettings | None = None) -> OneStepRestorer:
    """A restorer with a copy of a prior's network, before any training."""
    return OneStepRestorer(copy.deepcopy(unet).requires_grad_(True), damage, settings)


def doubled(restorer: OneStepRestorer) -> OneStepRestorer:
    """A restorer for faces twice as large, before any training.

    It begins with the changes that `restorer` makes to a face of half the size, enlarged.
    """
    matched_at = restorer.settings.matched_at or restorer.size
    net = twice_as_large(restorer.net)
    return OneStepRestorer(net, restorer.damage, replace(restorer.settings, matched_at=matched_at))


def _seed(image: Tensor) -> int:
    """A seed from the 8-bit values of a face, so that a face read again from its file gets the same noise."""
    return seed_for("refine", image.add(1).mul(127.5).round().to(torch.uint8).numpy().tobytes())
