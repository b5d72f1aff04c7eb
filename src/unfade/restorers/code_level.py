"""CodeFormer as a restorer, and how it learns: from features and codes (paper, Eq. 13)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput, refuse_below
from unfade.nets.architecture import Config, to_header
from unfade.nets.codeformer import CodeFormer
from unfade.restorers.base import Restorer
from unfade.restorers.image_level import ImageLossSettings, ImageObjective
from unfade.training.loop import LoopSettings
from unfade.training.objective import Objective

Teacher = Callable[[Tensor], Tensor]  # (B, 3, size, size) in [-1, 1] -> (B, n * n) codes
DECODER = ("quantize", "generator")
FUSION = "fuse_convs_dict"
PARTS = ("encoder", "position_emb", "feat_emb", "ft_layers", "idx_pred_layer", *DECODER, FUSION)

CODE_LOOP = LoopSettings(  # the authors' configuration, which also mirrors pairs at random
    steps=40_000,
    batch=8,
    micro_batch=8,
    learning_rate=1e-4,
    schedule="halving",  # x0.5 at 35,000 and 38,000
    betas=(0.9, 0.99),
    ema=0.995,
)


@dataclass(frozen=True)
class CodeLossSettings:
    """Weights of the terms of Eq. 13, and the frozen parts. Defaults: the paper's fine-tuning of CodeFormer."""

    feature_weight: float = 1.0  # of the mean squared difference between the target's codebook entries and the latent
    code_weight: float = 0.5  # of the cross-entropy between predicted and the target's codes, nats
    frozen: tuple[str, ...] = (*DECODER, FUSION)  # names in PARTS that are not trained
    fidelity: float = 0.0  # w in 0..1 of the decoded picture from which the fusion learns; 0: no picture is decoded
    image: ImageLossSettings = field(default_factory=ImageLossSettings)  # losses on that picture, if there is one

    def __post_init__(self) -> None:
        refuse_below(0, self, "feature_weight", "code_weight")
        if unknown := sorted(set(self.frozen) - set(PARTS)):
            raise BadInput(f"CodeFormer has no parts {unknown}; set `frozen` to some of {PARTS}.")
        if missing := sorted(set(DECODER) - set(self.frozen)):
            raise BadInput(
                f"Codes only have a meaning for a fixed decoder, but {missing} would be trained: freeze {DECODER}."
            )
        if not 0 <= self.fidelity <= 1:
            raise BadInput(f"CodeFormer's fidelity must lie in 0..1, got {self.fidelity}.")
        if (FUSION in self.frozen) != (self.fidelity == 0):
            raise BadInput(
                f"The fusion learns only from pictures at a fidelity above 0, and nothing else does, got fidelity "
                f"{self.fidelity} and frozen {self.frozen}: change both or neither."
            )


CODE_LOSSES = {  # the rows of the paper's Table 5
    "codes": CodeLossSettings(),
    "fusion": CodeLossSettings(frozen=DECODER, fidelity=1.0),  # w=1: CodeFormer's own training of the fusion
}


class CodeObjective(Objective):
    """Feature loss + cross-entropy on codes; if the fusion is trained too, also the image-level terms of Eq. 6-8.

    `teacher` gives the codes of a target: by the pre-trained CodeFormer's encoder and codebook, see `own_teacher`.
    It is not a submodule, so that a checkpoint of the objective holds only what is trained. Training decodes without
    adain, and not at all while the fusion is frozen. The other parts are those of `ImageObjective`.
    """

    def __init__(self, settings: CodeLossSettings | None = None, *, teacher: Teacher, **image_parts: Any) -> None:
        super().__init__()
        self.settings = settings = settings or CodeLossSettings()
        self.codes_of = teacher
        self.image = ImageObjective(settings.image, **image_parts) if settings.fidelity else None

    def forward(  # type: ignore[override]  # the loop passes what its data holds: pairs, or pairs and clean faces
        self, restorer: nn.Module, face: Tensor, target: Tensor, real: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted terms "feature" and "code" of one micro-batch, all images (B, 3, size, size) in [-1, 1].

        If the fusion is trained, also the terms of `ImageObjective`, whose real examples are `real`. Raises BadInput
        for a compiled restorer, since the network's parts are called one by one here.
        """
        if not isinstance(restorer, CodeFormerRestorer):
            raise BadInput("CodeFormer learns by parts of its network, which `compile` does not reach; leave it out.")
        codes = self.codes_of(target)
        seen = restorer.net.predict_codes(face)
        named = restorer.net.quantize.lookup(codes).detach()
        terms = {  # Eq. 13
            "feature": self.settings.feature_weight * F.mse_loss(seen.lq_feat.float(), named.float()),
            "code": self.settings.code_weight * F.cross_entropy(seen.logits.float().transpose(1, 2), codes),
        }
        if self.image is not None:
            restored = restorer.net.decode(seen.codes, fidelity=self.settings.fidelity, maps=seen.maps)
            terms |= self.image(_Made(restored), face, target, real)
        return terms

    def after_backward(self) -> None:
        """Compute the discriminator's gradients, if there is one."""
        if self.image is not None:
            self.image.after_backward()

    def skip(self) -> None:
        if self.image is not None:
            self.image.skip()

    def after_step(self) -> None:
        """Update the discriminator, if there is one."""
        if self.image is not None:
            self.image.after_step()


class _Made(nn.Module):
    """Stands in for the restorer when its picture has already been decoded."""

    def __init__(self, restored: Tensor) -> None:
        super().__init__()
        self.restored = restored

    def forward(self, face: Tensor) -> Tensor:
        return self.restored


def own_teacher(net: CodeFormer) -> Teacher:
    """A teacher that uses a frozen copy of this network's encoder and codebook, as they are before fine-tuning.

    It always computes in float32, since rounding would swap neighbouring codes.
    """
    encoder = copy.deepcopy(net.encoder).requires_grad_(False).eval()
    quantize = copy.deepcopy(net.quantize).requires_grad_(False).eval()

    @torch.no_grad()
    def codes_of(target: Tensor) -> Tensor:
        with torch.autocast(target.device.type, enabled=False):
            return quantize.nearest(encoder(target.float()))

    return codes_of


def _in_restorer(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a restorer of parts of its network."""
    return tuple(f"net.{part}" for part in parts)


@dataclass(frozen=True)
class CodeFormerSettings:
    """How CodeFormer restores. Defaults: the paper's, both for first attempts and in the evaluation."""

    fidelity: float = 0.5  # w in 0..1: 0 for the cleanest face, 1 for the closest to the input
    adain: bool = True  # give the codes' features the statistics of the input's (published inference)

    def __post_init__(self) -> None:
        if not 0 <= self.fidelity <= 1:
            raise BadInput(f"CodeFormer's fidelity must lie in 0..1, got {self.fidelity}: change `fidelity`.")


class CodeFormerRestorer(Restorer):
    """CodeFormer as a restorer. `settings` may be replaced at any time."""

    architecture = "codeformer"
    frozen = _in_restorer(CodeLossSettings.frozen)
    published = True
    net: CodeFormer

    def __init__(self, net: CodeFormer, settings: CodeFormerSettings | None = None) -> None:
        super().__init__()
        self.net = net
        self.size = net.config.autoencoder.size
        self.settings = settings or CodeFormerSettings()

    def forward(self, face: Tensor) -> Tensor:
        restored: Tensor = self.net(face, self.settings.fidelity, adain=self.settings.adain)
        return restored

    @property
    def fidelity(self) -> float:
        """The fidelity w of `settings`."""
        return float(self.settings.fidelity)

    def set_fidelity(self, fidelity: float) -> None:
        """Set the fidelity w. Raises BadInput outside 0..1."""
        self.settings = replace(self.settings, fidelity=fidelity)

    def objective(self, settings: CodeLossSettings | None = None, **parts: Any) -> CodeObjective:
        """Eq. 13 with this network, as it is now, as the teacher. Freezes what the settings say.

        See `CodeObjective` for the parts: teacher, and those of `ImageObjective` if the fusion is trained.
        """
        settings = settings or CodeLossSettings()
        self.frozen = _in_restorer(settings.frozen)
        return CodeObjective(settings, **{"teacher": own_teacher(self.net)} | parts)

    def config(self) -> Config:
        return to_header(self.net.config)
