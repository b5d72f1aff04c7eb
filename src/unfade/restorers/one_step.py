"""A diffusion prior's own U-Net as a feed-forward restorer: the face is taken for x_t, and x_0 is predicted once.

Damage is not the noise that a prior was trained on, but it takes the same octaves of a face away as noise of some
strength does. So the damage of each face is estimated first, and the face enters the network at the step t whose noise
would drown as much: a clean face enters at t = 0 and comes back as it was, a ruined one at a large t and is drawn anew.

    x_t = sqrt(alpha_bar_t) * face                              no noise is added
    x_0 = face - sqrt(1 / alpha_bar_t - 1) * eps(x_t, t)        DDPM, Eq. 9 solved for x_0

Refinement noises that result and denoises it again at falling steps (DDIM): texture that one prediction averages away.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unfade.diffusion.prior import noise_from_v
from unfade.diffusion.sampler import ImageNoise
from unfade.diffusion.schedule import linear_betas
from unfade.errors import BadInput
from unfade.images.filters import resize, without_grid
from unfade.nets.architecture import Config, from_header, to_header, without_size
from unfade.nets.damage import DamageNet, octaves_drowned_by
from unfade.nets.unet import UNet, UNetConfig
from unfade.restorers.image_level import ImageLevelRestorer
from unfade.store.seeds import seed_for

MATCHED = 0.5  # the fidelity at which the step's noise matches the damage
DAMAGE_SIZE = 128  # px at which damage is estimated
REFINEMENTS: dict[int, tuple[float, ...]] = {  # steps of the evaluations after the first, in parts of its step
    0: (),
    1: (1.0,),
    2: (1.0, 0.4),
    3: (1.0, 0.6, 0.25),
}


@dataclass(frozen=True)
class OneStepSettings:
    """How a face enters the prior's network."""

    highest: int = 400  # t of 1000 that no face goes beyond: above it too little of the face is seen
    fixed: int | None = None  # t of 1000 for every face; None: by its estimated damage
    clean: float = 0.08  # a face of at most this damage is left exactly as it is
    damaged: float = 0.16  # from this damage on the result is the network's alone; between the two it is a blend
    fidelity: float = MATCHED  # in 0..1: 1 is the face itself, 0 enters at twice the step that matches its damage
    refine: int = 0  # evaluations after the first, a key of REFINEMENTS; none is the smoothest and most faithful end

    def __post_init__(self) -> None:
        if not 0 <= self.fidelity <= 1:
            raise BadInput(f"The fidelity must lie in 0..1, got {self.fidelity}.")
        if self.refine not in REFINEMENTS:
            raise BadInput(f"The number of refinements must be one of {[*REFINEMENTS]}, got {self.refine}.")
        if not self.clean < self.damaged:
            raise BadInput(f"A damaged face has more damage than a clean one, got {self.damaged} and {self.clean}.")
        if not 0 < self.highest < 1000 or not 0 <= (self.fixed or 0) <= self.highest:
            raise BadInput(f"Steps lie in 0..999 and below the highest, got {self.fixed} of at most {self.highest}.")


class OneStepRestorer(ImageLevelRestorer):
    """A prior's U-Net behind the interface of all restorers. `settings` may be replaced at any time.

    Damage is estimated at 128 px. A larger network sees the octaves above that too, about which nothing is known then:
    it never takes a face for clean.
    """

    architecture = "one_step"
    frozen = ("damage",)
    net: UNet
    alpha_bars: Tensor
    drowned: Tensor

    def __init__(self, net: UNet, damage: DamageNet | None = None, settings: OneStepSettings | None = None) -> None:
        """`damage` estimates how damaged a face is; without weights of its own it is filled from a file."""
        super().__init__()
        self.net = net
        self.size = net.config.size
        self.damage = (damage or DamageNet()).requires_grad_(False)
        self.settings = settings or OneStepSettings()
        alpha_bars = torch.from_numpy(1 - linear_betas()).cumprod(0)
        seen = (1 / alpha_bars - 1).sqrt() * DAMAGE_SIZE / self.size  # noise that is left at the size of the estimate
        self.register_buffer("alpha_bars", alpha_bars.float(), persistent=False)
        self.register_buffer("drowned", octaves_drowned_by(seen).float(), persistent=False)

    def forward(self, face: Tensor) -> Tensor:
        return self._restored(face, 0 if self.training else self.settings.refine)

    def attempt(self, face: Tensor) -> Tensor:
        return self._restored(face, 0)

    def matching_step(self, face: Tensor) -> Tensor:
        return self.entry(self.estimated_damage(face))

    def _restored(self, face: Tensor, evaluations: int) -> Tensor:
        damage = self.estimated_damage(face)
        t = self.entry(damage)
        x0 = self.predict(face, t)
        if self.training:
            return x0
        if evaluations:
            x0 = self._refined(x0.clamp(-1, 1), t, face, REFINEMENTS[evaluations])
        return torch.lerp(face, x0, self.share(damage)[:, None, None, None])

    @torch.no_grad()
    def estimated_damage(self, face: Tensor) -> Tensor:
        """(B, 3, size, size) to (B,): the share of its octaves that a face has lost, 0..1, see `nets.damage`."""
        seen = face if face.shape[-1] == DAMAGE_SIZE else resize(face, DAMAGE_SIZE, DAMAGE_SIZE)
        return self.damage(seen)  # type: ignore[no-any-return]

    def entry(self, damage: Tensor) -> Tensor:
        """The step at which faces of such damage, (B,) in 0..1, enter: (B,) whole numbers in 0..highest."""
        matched = (self.drowned < damage[:, None]).sum(1)
        if self.settings.fixed is not None:
            matched = torch.full_like(matched, self.settings.fixed)
        return (matched * (1 - self.settings.fidelity) / (1 - MATCHED)).long().clamp(max=self.settings.highest)

    def share(self, damage: Tensor) -> Tensor:
        """How much of a result is the network's, (B,) in 0..1, for faces of such damage; the rest is the face's own.

        All of it where the step is fixed, and at other sizes than DAMAGE_SIZE, about whose detail nothing is known.
        """
        if self.size != DAMAGE_SIZE or self.settings.fixed is not None:
            return torch.ones_like(damage)
        return ((damage - self.settings.clean) / (self.settings.damaged - self.settings.clean)).clamp(0, 1)

    def predict(self, face: Tensor, t: Tensor) -> Tensor:
        """x_0 of faces (B, 3, size, size) that are taken for x_t / sqrt(alpha_bar_t), at steps t, (B,)."""
        alpha_bar = self.alpha_bars[t][:, None, None, None]
        x_t = alpha_bar.sqrt() * face
        predicted = self.net(x_t, t).float()[:, :3]
        eps = predicted if self.net.config.predicts == "eps" else noise_from_v(predicted, x_t, alpha_bar)
        return face - (1 / alpha_bar - 1).sqrt() * without_grid(eps, self.net.config.patch)

    def _refined(self, x0: Tensor, t: Tensor, face: Tensor, parts: tuple[float, ...]) -> Tensor:
        """DDIM from the first prediction, noised, through steps that are these parts of t; `face` seeds the noise."""
        eps = ImageNoise([_seed(image) for image in face.cpu()], face.device)(face)
        for part in parts:
            now = (part * t).long()
            alpha_bar = self.alpha_bars[now][:, None, None, None]
            spread = (1 / alpha_bar - 1).sqrt()
            x_t = x0 + spread * eps  # over sqrt(alpha_bar)
            x0 = self.predict(x_t, now).clamp(-1, 1)
            eps = (x_t - x0) / spread
        return x0

    @property
    def fidelity(self) -> float:
        """Of `settings`."""
        return self.settings.fidelity

    def set_fidelity(self, fidelity: float) -> None:
        """Run at another fidelity from now on. Raises BadInput outside 0..1."""
        self.settings = replace(self.settings, fidelity=fidelity)

    @property
    def refine(self) -> int:
        """Of `settings`."""
        return self.settings.refine

    def set_refine(self, evaluations: int) -> None:
        """Refine so many times from now on. Raises BadInput for another number than 0 to 3."""
        self.settings = replace(self.settings, refine=evaluations)

    def config(self) -> Config:
        return {**without_size(to_header(self.net.config)), "entry": to_header(self.settings)}


def built(config: Config) -> OneStepRestorer:
    """The restorer of a header, with fresh weights. Raises BadInput on an unknown field."""
    shape = {name: value for name, value in config.items() if name != "entry"}
    settings = from_header(OneStepSettings, config.get("entry", {}))
    return OneStepRestorer(UNet(from_header(UNetConfig, shape)), settings=settings)


def one_step_of(unet: UNet, damage: DamageNet, settings: OneStepSettings | None = None) -> OneStepRestorer:
    """A prior as a restorer, before any training; the prior itself is left as it is."""
    return OneStepRestorer(copy.deepcopy(unet).requires_grad_(True), damage, settings)


def _seed(image: Tensor) -> int:
    """From what a face looks like in 8 bits, so that a file read again draws the same noise."""
    return seed_for("refine", image.add(1).mul(127.5).round().to(torch.uint8).numpy().tobytes())
