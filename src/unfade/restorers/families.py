"""How each family of restorers is adapted unless told otherwise: what the paper did with it."""

from dataclasses import dataclass, field

from unfade.restorers.code_level import CODE_LOOP, CodeFormerSettings, CodeLossSettings
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.one_step import MATCHED
from unfade.training.loop import LoopSettings

Losses = ImageLossSettings | CodeLossSettings


@dataclass(frozen=True)
class Family:
    """Defaults of a family. Those of the class are for restorers that learn on pictures: the paper's SwinIR."""

    losses: Losses = field(default_factory=ImageLossSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    flip: bool = False  # mirror half of the pairs
    factor: int = 16  # N of the low-pass filter, in pixels of 512
    fidelity: float | None = None  # in 0..1, for targets and results; None: the family has no such choice


FAMILIES = {
    "codeformer": Family(
        CodeLossSettings(),
        CODE_LOOP,
        flip=True,
        factor=8,  # the paper's at 4x; it takes 16 for photos as poor as 8x
        fidelity=CodeFormerSettings.fidelity,
    ),
    "vqfr": Family(fidelity=1.0),
    "one_step": Family(fidelity=MATCHED),
}


def family_of(architecture: str) -> Family:
    """The defaults of an architecture: image level, unless it is known to learn otherwise."""
    return FAMILIES.get(architecture, Family())


def picture_losses(losses: Losses) -> ImageLossSettings | None:
    """The terms that compare pictures; None where only codes are learned from."""
    if isinstance(losses, ImageLossSettings):
        return losses
    return losses.image if losses.fidelity else None
