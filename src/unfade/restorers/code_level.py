"""CodeFormer behind the interface of all restorers, and how it learns: on features and codes (paper, Eq. 13)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import Config, to_header
from unfade.nets.codeformer import CodeFormer, Prediction
from unfade.restorers.base import Restorer
from unfade.restorers.image_level import ImageLossSettings, ImageObjective
from unfade.training.loop import LoopSettings
from unfade.training.objective import Objective

Teacher = Callable[[Tensor], Tensor]  # (B, 3, size, size) in [-1, 1] -> (B, n * n) codes
DECODER = ("quantize", "generator")
FUSION = "fuse_convs_dict"
PARTS = ("encoder", "position_emb", "feat_emb", "ft_layers", "idx_pred_layer", *DECODER, FUSION)

CODE_LOOP = LoopSettings(  # the authors' configuration; pairs are mirrored at random beside it
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
    """Weights of the terms of Eq. 13, and what stays as it is. Defaults: the paper's fine-tuning of CodeFormer."""

    feature_weight: float = 1.0  # of the mean squared difference between the target's codebook entries and the latent
    code_weight: float = 0.5  # of the cross-entropy between predicted and the target's codes, nats
    frozen: tuple[str, ...] = (*DECODER, FUSION)  # names in PARTS that do not learn
    fidelity: float = 0.0  # w in 0..1 of the picture that teaches the fusion; 0: no picture is made
    image: ImageLossSettings = field(default_factory=ImageLossSettings)  # of that picture, if there is one

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.frozen) - set(PARTS)):
            raise BadInput(f"The parts of a CodeFormer are {PARTS}, not {unknown}: change frozen.")
        if missing := sorted(set(DECODER) - set(self.frozen)):
            raise BadInput(
                f"Codes only mean something to a fixed decoder, but {missing} would learn: freeze {DECODER}."
            )
        if not 0 <= self.fidelity <= 1:
            raise BadInput(f"CodeFormer's fidelity must lie in 0..1, got {self.fidelity}.")
        if (FUSION in self.frozen) != (self.fidelity == 0):
            raise BadInput(
                f"The fusion learns from pictures of a fidelity above 0 and nothing else does, got fidelity "
                f"{self.fidelity} and frozen {self.frozen}: set both or neither."
            )


CODE_LOSSES = {  # the rows of the paper's Table 5
    "codes": CodeLossSettings(),
    "fusion": CodeLossSettings(frozen=DECODER, fidelity=1.0),  # w=1: CodeFormer's own training of the fusion
}


class CodeObjective(Objective):
    """Feature loss + cross-entropy on codes, and where the fusion learns too, the image-level terms of Eq. 6-8.

    `teacher` names the codes of the target: the pre-trained CodeFormer's own encoder and nearest code, see
    `own_teacher`. It is no submodule, so that a checkpoint of the objective holds only what learns. Training decodes
    without adain, and not at all while the fusion is frozen. The other parts are those of `ImageObjective`.
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

        Where the fusion learns, also those of `ImageObjective`, whose discriminator compares with `real`.
        """
        assert isinstance(restorer, CodeFormerRestorer)
        codes = self.codes_of(target)
        seen = restorer.net.predict_codes(face)
        named = restorer.net.quantize.lookup(codes).detach()
        terms = {  # Eq. 13
            "feature": self.settings.feature_weight * F.mse_loss(seen.lq_feat.float(), named.float()),
            "code": self.settings.code_weight * F.cross_entropy(seen.logits.float().transpose(1, 2), codes),
        }
        if self.image is not None:
            restored = self._decoded(restorer.net, seen)
            terms |= self.image(_Made(restored), face, target, real)
        return terms

    def _decoded(self, net: CodeFormer, seen: Prediction) -> Tensor:
        return net.decode(seen.codes, fidelity=self.settings.fidelity, maps=seen.maps)

    def after_backward(self) -> None:
        """The discriminator's gradients, where there is one."""
        if self.image is not None:
            self.image.after_backward()

    def after_step(self) -> None:
        """The discriminator's own step, where there is one."""
        if self.image is not None:
            self.image.after_step()


class _Made(nn.Module):
    """Stands in for the restorer once its picture is made."""

    def __init__(self, restored: Tensor) -> None:
        super().__init__()
        self.restored = restored

    def forward(self, face: Tensor) -> Tensor:
        return self.restored


def own_teacher(net: CodeFormer) -> Teacher:
    """Names codes by a frozen copy of this network's encoder and codebook, as they are now: before fine-tuning.

    It stays in full precision: rounding would swap neighbouring codes.
    """
    encoder = copy.deepcopy(net.encoder).requires_grad_(False).eval()
    quantize = copy.deepcopy(net.quantize).requires_grad_(False).eval()

    @torch.no_grad()
    def codes_of(target: Tensor) -> Tensor:
        with torch.autocast(target.device.type, enabled=False):
            return quantize.nearest(encoder(target.float()))

    return codes_of


@dataclass(frozen=True)
class CodeFormerSettings:
    """How a CodeFormer restores. Defaults: the paper's, before the prior and in the evaluation."""

    fidelity: float = 0.5  # w in 0..1: 0 for the cleanest face, 1 for the closest to the input
    adain: bool = True  # the codes' features take on the statistics of the input's (published inference)

    def __post_init__(self) -> None:
        if not 0 <= self.fidelity <= 1:
            raise BadInput(f"CodeFormer's fidelity must lie in 0..1, got {self.fidelity}: change `fidelity`.")


class CodeFormerRestorer(Restorer):
    """A CodeFormer behind the interface of all restorers. `settings` may be replaced at any time."""

    architecture = "codeformer"
    frozen = CodeLossSettings.frozen
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
        """w of `settings`."""
        return float(self.settings.fidelity)

    def set_fidelity(self, fidelity: float) -> None:
        """Run at another w from now on. Raises BadInput outside 0..1."""
        self.settings = replace(self.settings, fidelity=fidelity)

    def objective(self, settings: CodeLossSettings | None = None, **parts: Any) -> CodeObjective:
        """Eq. 13, taught by this network as it is now; from here on, `frozen` is what the settings say.

        See `CodeObjective` for the parts: teacher, and those of `ImageObjective` where the fusion learns.
        """
        settings = settings or CodeLossSettings()
        self.frozen = settings.frozen
        return CodeObjective(settings, **{"teacher": own_teacher(self.net)} | parts)

    def trainable(self) -> list[nn.Parameter]:
        """The network's parameters outside the `frozen` parts, in the order of `named_parameters`."""
        return [value for name, value in self.net.named_parameters() if name.split(".")[0] not in self.frozen]

    def config(self) -> Config:
        return to_header(self.net.config)
