"""Restorers that learn from pictures, and how: L1 + perceptual + adversarial loss (paper, Eq. 6-8)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadCheckpoint, BadInput, refuse_below
from unfade.nets.architecture import Config, to_header, without_size
from unfade.nets.discriminator import UNetDiscriminatorSN, pass_by
from unfade.nets.gfpgan import GFPGAN, NOT_IN_FORWARD
from unfade.nets.swinir import SwinIR
from unfade.restorers.base import Restorer
from unfade.training.modes import seeded
from unfade.training.objective import Objective
from unfade.training.texture import texture_distance

Perceptual = Callable[[Tensor, Tensor], Tensor]  # (restored, target), both (B, 3, H, W) in [-1, 1] -> (B,) distances


def to_unit(image: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]."""
    return (image + 1) / 2


def from_unit(image: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]."""
    return image * 2 - 1


@dataclass(frozen=True)
class ImageLossSettings:
    """Weights of the terms and the discriminator. Defaults: the paper's fine-tuning of SwinIR."""

    l1_weight: float = 1.0  # of the mean absolute difference, images in [0, 1]
    perceptual_weight: float = 0.4  # of the mean distance per image; published: 0.1 of the sum over a micro-batch of 4
    gan_weight: float = 0.1  # of the generator's cross-entropy
    texture_weight: float = 0.0  # of the mean texture distance per image; not in the paper
    discriminator_lr: float = 2e-5  # of AdamW without decay, constant (authors' configuration)
    discriminator_features: int = 64  # channels of the discriminator's first layer; used by the caller that builds it

    def __post_init__(self) -> None:
        weights = ("l1_weight", "perceptual_weight", "gan_weight", "texture_weight")
        refuse_below(0, self, *weights, "discriminator_lr")


def discriminator_for(losses: ImageLossSettings, seed: int, device: torch.device) -> nn.Module | None:
    """A discriminator with random weights, the same for each seed; None if its term has no weight."""
    if not losses.gan_weight:
        return None
    with seeded(torch.device("cpu"), seed):
        return UNetDiscriminatorSN(features=losses.discriminator_features).to(device)


class ImageObjective(Objective):
    """L1 + perceptual + texture + non-saturating adversarial loss, together with the training of the discriminator.

    The adversarial term is the cross-entropy of the published code, not the log(1 - D) printed as Eq. 6. The
    discriminator gets images in [0, 1] and is trained in `after_backward` (gradients) and `after_step`; the restorer's
    backward pass does not change its gradients (in the published code, those of later micro-batches leak into it).
    `micro_batches` is the number of forward passes per step, by which its gradients are divided, as the loop does with
    the restorer's. A term of weight 0, or whose part is missing, is left out. In eval mode (validation) the
    discriminator does not change.

    `perceptual` must be on the right device and is frozen here; it is not a submodule, so that a checkpoint of the
    objective holds only what is trained. `monitored` holds the last weighted terms and both discriminator losses,
    detached.
    """

    def __init__(
        self,
        settings: ImageLossSettings | None = None,
        *,
        perceptual: Perceptual | None = None,
        discriminator: nn.Module | None = None,
        micro_batches: int = 1,
    ) -> None:
        super().__init__()
        self.settings = settings = settings or ImageLossSettings()
        self.distance: Perceptual | None = as_function(perceptual) if settings.perceptual_weight else None
        self.discriminator = discriminator if settings.gan_weight else None
        self.micro_batches = micro_batches
        self.monitored: dict[str, Tensor] = {}
        self._seen: tuple[Tensor, Tensor] | None = None  # real and restored of the last forward, for after_backward
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.AdamW | None:
        if self.discriminator is None:
            return None
        lr = self.settings.discriminator_lr
        return torch.optim.AdamW(self.discriminator.parameters(), lr=lr, weight_decay=0.0)

    def forward(  # type: ignore[override]  # the loop passes what its data holds: pairs, or pairs and clean faces
        self, restorer: nn.Module, face: Tensor, target: Tensor, real: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted terms "l1", "perceptual", "texture", "gan" of one micro-batch, all images (B, 3, H, W) in [-1, 1].

        `real` are clean faces as real examples for the discriminator; without them it uses the targets.
        """
        restored = restorer(face)
        terms: dict[str, Tensor] = {}
        if self.settings.l1_weight:
            terms["l1"] = self.settings.l1_weight * F.l1_loss(to_unit(restored), to_unit(target))
        if self.distance is not None:
            terms["perceptual"] = self.settings.perceptual_weight * self.distance(restored, target).mean()
        if self.settings.texture_weight:
            terms["texture"] = self.settings.texture_weight * texture_distance(restored, target).mean()
        if self.discriminator is not None:
            terms["gan"] = self.settings.gan_weight * self._fools(restored)
            if self.training:
                self._seen = (to_unit(target if real is None else real), to_unit(restored.detach()))
        self.monitored = {name: term.detach() for name, term in terms.items()}
        return terms

    def _fools(self, restored: Tensor) -> Tensor:
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        return cross_entropy(self.discriminator(to_unit(restored)), real=True)

    def after_backward(self) -> None:
        """Add the discriminator's gradients for the last micro-batch, first for the real, then for restored images."""
        if self.discriminator is None or self._seen is None:
            return
        self.discriminator.requires_grad_(True)
        for name, images, real in zip(("d_real", "d_fake"), self._seen, (True, False), strict=True):
            loss = cross_entropy(self.discriminator(images), real=real)
            (loss / self.micro_batches).backward()  # type: ignore[no-untyped-call]
            self.monitored[name] = loss.detach()
        self._seen = None

    def skip(self) -> None:
        """The discriminator's power iterations of a micro-batch, in which it judges pictures three times."""
        if self.discriminator is not None:
            pass_by(self.discriminator, 3)

    def after_step(self) -> None:
        """Update the discriminator, if there is one."""
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the discriminator's optimiser; empty without one."""
        return {} if self.optimizer is None else {"optimizer": self.optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Raises BadCheckpoint if only one of the two objectives has a discriminator."""
        if (self.optimizer is None) != (not state):
            raise BadCheckpoint(
                "A training with a discriminator cannot be resumed without one, nor the other way round: resume with "
                "the settings of the first run."
            )
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])


def as_function(perceptual: Perceptual | None) -> Perceptual | None:
    """Freeze a network and wrap it as a plain function, so that its weights stay out of checkpoints."""
    if not isinstance(perceptual, nn.Module):
        return perceptual
    measure = perceptual.requires_grad_(False).eval()
    return lambda restored, target: measure(restored, target)


def cross_entropy(logits: Tensor, *, real: bool) -> Tensor:
    """Mean binary cross-entropy of a discriminator's map, with the label real or restored for all of it."""
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, float(real), dtype=torch.float))


class ImageLevelRestorer(Restorer):
    """A restorer that learns from pictures only."""

    def objective(self, settings: ImageLossSettings | None = None, **parts: Any) -> ImageObjective:
        """See `ImageObjective` for the parts: perceptual, discriminator, micro_batches."""
        return ImageObjective(settings, **parts)


class SwinIRRestorer(ImageLevelRestorer):
    """A SwinIR that keeps the picture's size, as a restorer."""

    architecture = "swinir"
    net: SwinIR

    def __init__(self, net: SwinIR, size: int) -> None:
        super().__init__()
        if net.config.upscale != net.config.unshuffle:
            raise BadInput(
                f"A SwinIR restorer must keep the picture's size, but its upscale is {net.config.upscale} "
                f"and its unshuffle {net.config.unshuffle}: make them equal."
            )
        self.net = net
        self.size = size

    def forward(self, face: Tensor) -> Tensor:
        return from_unit(self.net(to_unit(face)))

    def config(self) -> Config:
        return to_header(self.net.config)


class GFPGANRestorer(ImageLevelRestorer):
    """GFPGAN v1 clean as a restorer.

    It uses the noise stored with the weights, so that the same face always gives the same result.
    """

    architecture = "gfpgan"
    frozen = tuple(f"net.{name}" for name in NOT_IN_FORWARD)
    published = True
    net: GFPGAN

    def __init__(self, net: GFPGAN) -> None:
        super().__init__()
        self.net = net
        self.size = net.config.size

    def forward(self, face: Tensor) -> Tensor:
        restored: Tensor = self.net(face)
        return restored

    def config(self) -> Config:
        return without_size(to_header(self.net.config))
