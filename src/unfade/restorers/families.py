"""The default settings for adapting each family of restorers, which are the paper's where it has the family."""

from dataclasses import dataclass, field

from unfade.restorers.code_level import CODE_LOOP, CodeFormerSettings, CodeLossSettings
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.one_step import MATCHED
from unfade.training.loop import LoopSettings

Losses = ImageLossSettings | CodeLossSettings


@dataclass(frozen=True)
class Family:
    """Defaults of a family. Those of this class are for restorers that learn from pictures: the paper's SwinIR."""

    losses: Losses = field(default_factory=ImageLossSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    flip: bool = False  # mirror half of the pairs
    factor: int = 16  # N of the low-pass filter, in pixels of 512
    fidelity: float | None = None  # 0..1, for targets and results; None: the family has no fidelity


FAMILIES = {
    "codeformer": Family(
        CodeLossSettings(),
        CODE_LOOP,
        flip=True,
        factor=8,  # the paper's at 4x; at 8x it uses 16
        fidelity=CodeFormerSettings.fidelity,
    ),
    "vqfr": Family(fidelity=1.0),
    "one_step": Family(fidelity=MATCHED),
}


def family_of(architecture: str) -> Family:
    """The defaults of an architecture; those of image-level restorers unless it has its own."""
    return FAMILIES.get(architecture, Family())


def picture_losses(losses: Losses) -> ImageLossSettings | None:
    """The terms that compare pictures; None if the restorer learns from codes only."""
    if isinstance(losses, ImageLossSettings):
        return losses
    return losses.image if losses.fidelity else None
