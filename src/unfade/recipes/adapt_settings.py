"""What an adaptation depends on, and its defaults for each family of restorers."""

from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput
from unfade.restorers.base import Restorer
from unfade.restorers.families import Losses, family_of, picture_losses
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import head_of
from unfade.stages.finetune import FinetuneSettings
from unfade.stages.restore import check_strength
from unfade.stages.targets import TargetSettings
from unfade.store.checkpoints import image_size
from unfade.training.loop import LoopSettings
from unfade.zoo.load import Loaded
from unfade.zoo.models import find_weights

DRAWN = Path(str(files("unfade") / "samples" / "drawn"))  # by the built-in prior, of pure noise
DRAWN_SIZE = 128  # px
CLEAN = ("drawn", "targets")  # faces of nobody that come with the package, for restorers of their size; or the targets
BEGUN_WITH = "restorer_sha256"  # in the key of what was made: the restorer that it was made with


@dataclass(frozen=True)
class AdaptSettings:
    """Everything that the result depends on, besides the photos.

    The defaults are the paper's for restorers that learn on pictures (Sec. 4.1); see `settings_for` for others. Raises
    BadInput for a strength outside 0..1, or less than one round.
    """

    restorer: str = "small-restorer"  # a name of the table, a file, or a run folder
    prior: str = "small-prior"  # the same
    targets: TargetSettings = TargetSettings()
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    losses: Losses = field(default_factory=ImageLossSettings)
    perceptual: str = "prior"  # a key of PERCEPTUALS; for losses that compare pictures
    clean: str = "drawn"  # what `finetune.redegraded` damages: a key of CLEAN; not asked where clean faces are given
    fidelity: float | None = None  # in 0..1, of targets, validation and results; None: the family's own, if it has one
    agreement: float = 0.0  # leave out targets that differ so many times as much as the median one does; 0: none
    refine: int | None = None  # 0..3, of the results alone; None: the restorer's own, if it has such a choice
    strength: float = 1.0  # in 0..1: blends the restored photos with the photos
    rounds: int = 1  # of targets and fine-tuning; later ones begin with what the adapted restorer makes

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if self.clean not in CLEAN:
            raise BadInput(f"Clean faces are {' or '.join(CLEAN)}, got {self.clean}.")
        if self.rounds < 1:
            raise BadInput(f"An adaptation takes one round or more, got {self.rounds}.")

    def identity(self) -> dict[str, object]:
        """What the result depends on: everything but how many faces are denoised together.

        Choices that were not made are not mentioned, so that runs begun before there was a choice go on.
        """
        values = {**asdict(self), "targets": self.targets.identity()}
        if not self.finetune.redegraded:
            del values["clean"]
        unmade = {"fidelity": None, "refine": None, "agreement": 0.0, "strength": 1.0, "rounds": 1}
        return {name: value for name, value in values.items() if name not in unmade or value != unmade[name]}


# The paper's K = 600 and L = 360 of 1000 in a fifth of its steps; see docs/evidence.md.
SHORT_TARGETS = TargetSettings(spacing="50", start=30, free_from=18, bf16=True)

# For small restorers of any family and tens of photos on a processor: minutes instead of days.
SHORT_ADAPT = AdaptSettings(
    targets=SHORT_TARGETS.for_size(128),
    finetune=FinetuneSettings(
        LoopSettings(
            steps=150,
            batch=8,
            micro_batch=8,
            learning_rate=2e-4,
            final_learning_rate=1e-5,
            warmup=20,
            ema=0.98,
            bf16=True,
            checkpoint_every=50,
            validate_every=50,
        ),
        flip=True,
    ),
    losses=ImageLossSettings(perceptual_weight=0.5, gan_weight=0.0),
)

# A restorer of one step begins nearer to the truth: a few evaluations of the prior are enough, from the noise that
# matches each face's damage, and it learns in fewer and smaller steps, from clean faces damaged as the photos are.
FEW_EVALUATIONS = TargetSettings(spacing="20", start=6, free_from=3, update="ddim", by_damage=True, bf16=True)
SMALL_ADAPT = replace(
    SHORT_ADAPT,
    targets=FEW_EVALUATIONS.for_size(128),
    finetune=replace(
        SHORT_ADAPT.finetune,
        loop=replace(SHORT_ADAPT.finetune.loop, steps=80, learning_rate=1e-4, final_learning_rate=5e-6, warmup=10),
        redegraded=1.0,
    ),
    agreement=3.0,
)


def settings_for(restorer: str, prior: str) -> AdaptSettings:
    """The defaults for these models: the paper's for the restorer's family, or short ones for restorers up to 256 px.

    Only the heads of their files are read. Raises UnknownModel, BadCheckpoint.
    """
    head = head_of(restorer)
    family = family_of(head.architecture)
    paper = AdaptSettings(finetune=FinetuneSettings(family.loop, flip=family.flip), losses=family.losses)
    short = SMALL_ADAPT if head.architecture == "one_step" else SHORT_ADAPT
    base = short if head.size <= 256 else paper
    targets = replace(base.targets, factor=family.factor).for_size(image_size(find_weights(prior, "prior")))
    losses = base.losses if isinstance(family.losses, ImageLossSettings) else family.losses
    return replace(base, restorer=restorer, prior=prior, targets=targets, losses=losses, fidelity=family.fidelity)


def as_published(settings: AdaptSettings) -> AdaptSettings:
    """The same by the paper's recipe alone: K and L alike for all faces, and all photos and targets learned from."""
    targets = settings.targets
    if targets.by_damage:
        targets = replace(SHORT_TARGETS, factor=targets.factor)
    return replace(settings, targets=targets, finetune=replace(settings.finetune, redegraded=0.0), agreement=0.0)


def settled(settings: AdaptSettings, restorer: Restorer, clean: list[Path]) -> AdaptSettings:
    """The settings with the fidelity that this restorer runs at.

    Raises BadInput for losses of another family, and for clean faces that nothing would use.
    """
    restorer.trainable()  # one that cannot learn says so before anything is made
    wanted, got = type(family_of(restorer.architecture).losses), type(settings.losses)
    if got is not wanted:
        name = restorer.architecture
        raise BadInput(f"A {name} learns with {wanted.__name__}, not {got.__name__}: begin with settings_for().")
    pictures = picture_losses(settings.losses)
    if clean and pictures is None:
        raise BadInput(
            "Clean faces teach a discriminator of pictures, but this restorer learns on codes: leave `real` out, or "
            "set `losses` to those of fusion."
        )
    if clean and pictures is not None and not pictures.gan_weight and not settings.finetune.redegraded:
        raise BadInput(
            "Clean faces are damaged as the photos are or teach a discriminator, but neither has a weight: "
            "leave `real` out, or raise `redegraded` or `gan_weight`."
        )
    return replace(settings, fidelity=restorer.fidelity)


def to_damage(settings: AdaptSettings, size: int, clean: list[Path]) -> list[Path]:
    """The clean faces that a restorer of `size` px learns from, damaged as the photos are; none: its targets."""
    if not settings.finetune.redegraded or settings.clean == "targets":
        return []
    drawn = sorted(DRAWN.glob("*.png")) if size <= DRAWN_SIZE else []
    return clean or drawn


def weights_key(restorer: Loaded[Restorer], prior: Loaded[DiffusionPrior]) -> dict[str, str]:
    """Which weights the work begins with."""
    return {BEGUN_WITH: restorer.sha256, "prior_sha256": prior.sha256}
