"""The settings of an adaptation, and their defaults for each family of restorers."""

from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput, refuse_below
from unfade.restorers.base import Restorer
from unfade.restorers.families import Losses, family_of, picture_losses
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import head_of
from unfade.stages.agreement import check_agreement
from unfade.stages.finetune import FinetuneSettings
from unfade.stages.restore import check_strength
from unfade.stages.targets import TargetSettings
from unfade.store.checkpoints import image_size
from unfade.training.loop import LoopSettings
from unfade.zoo.load import Loaded
from unfade.zoo.models import find_weights

SAMPLES = Path(str(files("unfade") / "samples"))
DRAWN = {128: SAMPLES / "drawn", 256: SAMPLES / "drawn-256"}  # by size in px, synthetic faces
SHORT_SIZE = 128  # px of the prior for which the short settings below are given
CLEAN = ("drawn", "targets")  # "drawn": faces that are given, else those in DRAWN, for restorers up to their sizes
BEGUN_WITH = "restorer_sha256"  # key under which the hash of the restorer that made something is recorded


@dataclass(frozen=True)
class AdaptSettings:
    """Everything that the result depends on, besides the photos.

    The defaults are the paper's for restorers that learn from pictures (Sec. 4.1); see `settings_for` for others.
    Raises BadInput for an unknown `clean`, a strength outside 0..1, an agreement between 0 and 1, and less than one
    round.
    """

    restorer: str = "small-restorer"  # name of a model, a file, or a run folder
    prior: str = "small-prior"  # name of a model or a file
    targets: TargetSettings = TargetSettings()
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    losses: Losses = field(default_factory=ImageLossSettings)
    perceptual: str = "prior"  # a key of PERCEPTUALS; for losses that compare pictures
    clean: str = "drawn"  # faces that `finetune.redegraded` degrades, one of CLEAN
    fidelity: float | None = None  # 0..1, for targets, validation and results; None: the family's default, if any
    agreement: float = 0.0  # leave out targets that differ more than this many times the median, or show another person
    refine: int | None = None  # 0..3, for the results only; None: the restorer's own, if it can refine
    strength: float = 1.0  # 0..1: blends the restored photos with the originals
    rounds: int = 1  # of making targets and fine-tuning; later rounds start from the adapted restorer

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_agreement(self.agreement)
        if self.clean not in CLEAN:
            raise BadInput(f"Expected `clean` to be {' or '.join(CLEAN)}, got {self.clean}.")
        refuse_below(1, self, "rounds")

    def identity(self) -> dict[str, object]:
        """The settings that the result depends on: all but the number of faces that are denoised together.

        Newer settings are left out at their defaults, so that runs of versions without them can be resumed.
        """
        values = {**asdict(self), "targets": self.targets.identity()}
        if not self.finetune.redegraded:
            del values["clean"]
        unmade = {"fidelity": None, "refine": None, "agreement": 0.0, "strength": 1.0, "rounds": 1}
        return {name: value for name, value in values.items() if name not in unmade or value != unmade[name]}


# The paper's K = 600 and L = 360 of 1000, with a fifth of its steps; see docs/evidence.md.
SHORT_TARGETS = TargetSettings(spacing="50", start=30, free_from=18, bf16=True)

# For small restorers of any family and dozens of photos on a CPU: minutes instead of days.
SHORT_ADAPT = AdaptSettings(
    targets=SHORT_TARGETS.for_size(SHORT_SIZE),
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

# A one-step restorer starts closer to the truth. A few evaluations of the prior are enough, from the noise level that
# matches each face's degradation, and it learns in fewer, smaller steps, from clean faces degraded like the photos.
FEW_EVALUATIONS = TargetSettings(spacing="20", start=6, free_from=3, update="ddim", by_damage=True, bf16=True)
SMALL_ADAPT = replace(
    SHORT_ADAPT,
    targets=FEW_EVALUATIONS.for_size(SHORT_SIZE),
    finetune=replace(
        SHORT_ADAPT.finetune,
        loop=replace(SHORT_ADAPT.finetune.loop, steps=80, learning_rate=1e-4, final_learning_rate=5e-6, warmup=10),
        redegraded=1.0,
    ),
    losses=ImageLossSettings(perceptual_weight=0.5, gan_weight=0.0, texture_weight=0.4),
    agreement=3.0,
)


def prior_for(size: int) -> str:
    """The built-in prior for a restorer of `size` px."""
    return "small-prior-256" if size == 256 else "small-prior"


def settings_for(restorer: str, prior: str | None = None) -> AdaptSettings:
    """The defaults for these models: the paper's for the restorer's family, or shorter ones for restorers up to 256 px.

    Without a `prior`, the built-in one for the restorer's size is used. Only the headers of their files are read.
    Raises UnknownModel, BadCheckpoint.
    """
    head = head_of(restorer)
    prior = prior or prior_for(head.size)
    family = family_of(head.architecture)
    paper = AdaptSettings(finetune=FinetuneSettings(family.loop, flip=family.flip), losses=family.losses)
    short = SMALL_ADAPT if head.architecture == "one_step" else SHORT_ADAPT
    base = short if head.size <= 256 else paper
    size = image_size(find_weights(prior, "prior"))
    targets = replace(base.targets, factor=family.factor).for_size(size)
    if targets.by_damage:
        targets = targets.for_noise(size / SHORT_SIZE)
    losses = base.losses if isinstance(family.losses, ImageLossSettings) else family.losses
    return replace(base, restorer=restorer, prior=prior, targets=targets, losses=losses, fidelity=family.fidelity)


def as_published(settings: AdaptSettings) -> AdaptSettings:
    """The settings without our additions to the paper: the same K and L for all faces, learning from all targets."""
    targets = settings.targets
    if targets.by_damage:
        targets = replace(SHORT_TARGETS, factor=targets.factor)
    losses = settings.losses
    if isinstance(losses, ImageLossSettings):
        losses = replace(losses, texture_weight=0.0)
    finetune = replace(settings.finetune, redegraded=0.0)
    return replace(settings, targets=targets, finetune=finetune, losses=losses, agreement=0.0)


def settled(settings: AdaptSettings, restorer: Restorer, clean: list[Path]) -> AdaptSettings:
    """The settings, with the fidelity that this restorer runs at.

    Raises BadInput for losses of another family, and for clean faces that would not be used.
    """
    restorer.trainable()  # raises, before any work, for a restorer that cannot learn
    wanted, got = type(family_of(restorer.architecture).losses), type(settings.losses)
    if got is not wanted:
        name = restorer.architecture
        raise BadInput(f"A {name} learns with {wanted.__name__}, not {got.__name__}: start from settings_for().")
    pictures = picture_losses(settings.losses)
    if clean and pictures is None:
        raise BadInput(
            "Clean faces are for a discriminator of pictures, but this restorer learns from codes: leave `real` out, "
            "or set `losses` to fusion."
        )
    damaged = settings.finetune.redegraded and settings.clean != "targets"
    if clean and pictures is not None and not pictures.gan_weight and not damaged:
        raise BadInput(
            "Clean faces are used by a discriminator, or re-degraded unless `clean` is targets, but here neither is "
            "so: leave `real` out, set `clean` to drawn, or raise `redegraded` or `gan_weight`."
        )
    return replace(settings, fidelity=restorer.fidelity)


def to_damage(settings: AdaptSettings, size: int, clean: list[Path]) -> list[Path]:
    """The clean faces to degrade like the photos, for a restorer of `size` px; none: its targets are used instead."""
    if not settings.finetune.redegraded or settings.clean == "targets":
        return []
    large_enough = [folder for side, folder in DRAWN.items() if size <= side]
    return clean or (sorted(large_enough[0].glob("*.*")) if large_enough else [])


def weights_key(restorer: Loaded[Restorer], prior: Loaded[DiffusionPrior]) -> dict[str, str]:
    """The hashes of the weights that the work starts with."""
    return {BEGUN_WITH: restorer.sha256, "prior_sha256": prior.sha256}
