"""Groups of flags, and the settings they become. None stands for a flag that was not given."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from unfade.cli import flags as f
from unfade.cli.command import Flags
from unfade.errors import BadInput

if TYPE_CHECKING:
    from unfade.jobs.shards import Portion
    from unfade.recipes.adapt_settings import AdaptSettings
    from unfade.recipes.restore import RestoreSettings
    from unfade.recipes.sources import FindSettings
    from unfade.recipes.suiting import Settings
    from unfade.restorers.families import Losses
    from unfade.stages.degrade import BlindDegradation, CameraDegradation, FittedKind

S = TypeVar("S")
# flags of `Results` that are called as the settings are
SAME = ("size", "background", "mask", "report", "refine", "strength", "output_layout", "trust")

OF_KINDS = {  # flags of `Damage` and the kinds of degradation that they are for
    **dict.fromkeys(("preset", "scale"), ("blind", "camera")),
    **dict.fromkeys(("iso", "demosaic", "sensor"), ("camera",)),
    "fitted": ("fitted",),
}


def changed(settings: S, **values: Any) -> S:
    """The settings with every value replaced that is not None."""
    return replace(settings, **{k: v for k, v in values.items() if v is not None})  # type: ignore[type-var]


def named(flags: Flags, *names: str) -> dict[str, Any]:
    """The values of the flags whose settings have the same names."""
    return {name: getattr(flags, name) for name in names}


def names_in(text: str | None) -> list[str]:
    """The names in a list that is separated by commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def is_bf16(precision: str | None) -> bool | None:
    """Whether a precision is bfloat16; None stays None. Raises BadInput for an unknown one."""
    known = {"float32": False, "bfloat16": True, None: None}
    if precision not in known:
        raise BadInput(f"There is no precision {precision}; use float32 or bfloat16.")
    return known[precision]


@dataclass(frozen=True)
class Share(Flags):
    """Which of the items are worked on."""

    shard: f.Shard = None
    manifest: f.Manifest = None

    def portion(self) -> "Portion":
        """Raises BadInput for a shard that is none."""
        from unfade.jobs.shards import Portion, Shard

        return Portion(Shard.parse(self.shard), self.manifest)


@dataclass(frozen=True)
class Find(Flags):
    """Which faces of whole photos are used."""

    which: f.Faces = None
    min_face: f.MinFace = None
    max_face: f.MaxFace = None
    min_score: f.MinScore = None
    detector: f.Detector = None

    def settings(self, *, aligned: bool) -> "FindSettings":
        """Raises BadInput for flags that have no effect on aligned faces."""
        from unfade.recipes.sources import FindSettings
        from unfade.stages.photos import Choice

        if aligned:
            _unused(asdict(self))
        usual = FindSettings()
        numbers = named(self, "min_face", "max_face", "min_score")
        choice = None if self.which is None else Choice(self.which)
        return changed(usual, detector=self.detector, detect=changed(usual.detect, **numbers), choice=choice)


@dataclass(frozen=True)
class Results(Flags):
    """How photos are restored and written."""

    refine: f.Refine = None
    strength: f.Strength = 1.0
    precision: f.Precision = "float32"
    size: f.Size = "photo"
    paste: f.Paste = None
    match_colour: f.MatchColour = False
    colour: f.Colour = False
    format: f.Format = None
    quality: f.Quality = None
    copy: f.Copy = False
    background: f.Background = None
    scale: f.Scale = None
    identity: f.Identity = None
    mask: f.Mask = None
    sidecar: f.Sidecar = False
    no_provenance: f.NoProvenance = False
    report: f.Report = False
    trust: f.Trust = False
    output_layout: f.Layout = "names"

    def settings(self, find: Find, *, aligned: bool, **own: Any) -> "RestoreSettings":
        """`own` are further settings by name. Raises BadInput for flags that have no effect on aligned faces."""
        from unfade.recipes.restore import RestoreSettings

        found = find.settings(aligned=aligned)
        if aligned:
            _unused(named(self, "paste", "match_colour", "copy", "scale", "background", "mask"))
        usual = RestoreSettings()
        paste = changed(usual.whole.paste, way=self.paste, colour="ring" if self.match_colour else None)
        same = named(self, "colour", "quality", "copy", "sidecar", "scale")
        own |= {"find": found, "whole": changed(usual.whole, paste=paste, kind=self.format, **same)}
        own |= {"embedder": self.identity, "provenance": not self.no_provenance, "bf16": is_bf16(self.precision)}
        return changed(usual, **own, **named(self, *SAME))


def _unused(given: dict[str, Any]) -> None:
    names = {"which": "faces"}
    for name, value in given.items():
        if value not in (None, False):
            flag = names.get(name, name).replace("_", "-")
            raise BadInput(
                f"--{flag} is for whole photos, but --aligned says that these are faces: leave out one of them."
            )


@dataclass(frozen=True)
class Schedule(Flags):
    """How targets are sampled: the part of the flags that a rehearsal has too."""

    start: f.Start = None
    free_from: f.FreeFrom = None
    factor: f.Factor = None
    spacing: f.Spacing = None


@dataclass(frozen=True)
class Targets(Schedule):
    """How targets are made."""

    update: f.Update = None
    begin_with: f.BeginWith = None
    by_damage: f.ByDamage = None


@dataclass(frozen=True)
class Learning(Flags):
    """How long and how fast a restorer learns, and what from."""

    steps: f.Steps = None
    batch: f.Batch = None
    micro_batch: f.MicroBatch = None
    learning_rate: f.LearningRate = None
    flip: f.Flip = None
    hold_out: f.HoldOut = None
    redegraded: f.Redegraded = None
    clean: f.Clean = None
    perceptual: f.Perceptual = None
    perceptual_weight: f.PerceptualWeight = None
    gan_weight: f.GanWeight = None
    texture_weight: f.TextureWeight = None
    code_losses: f.CodeLosses = None


def adapt_settings(
    restorer: str,
    prior: str | None,
    seed: int,
    targets: Schedule,
    learning: Learning,
    precision: str | None,
    **own: Any,
) -> "AdaptSettings":
    """The defaults for this restorer and prior, with every flag that was given; `own` are further settings by name.

    Raises BadInput for flags of another family of restorers.
    """
    from unfade.recipes.adapt_settings import settings_for

    base, bf16 = settings_for(restorer, prior), is_bf16(precision)
    weights = named(learning, "perceptual_weight", "gan_weight", "texture_weight")
    pace = named(learning, "steps", "batch", "micro_batch", "learning_rate")
    loop = changed(base.finetune.loop, seed=seed, bf16=bf16, **pace)
    return changed(
        base,
        targets=changed(base.targets, seed=seed, bf16=bf16, **asdict(targets)),
        finetune=changed(base.finetune, loop=loop, **named(learning, "flip", "hold_out", "redegraded")),
        losses=_losses(_kind_of(base.losses, learning.code_losses), weights, learning.perceptual),
        perceptual=learning.perceptual,
        clean=learning.clean,
        **own,
    )


def suited_settings(restorer: str | None, *given: Any, **own: Any) -> "Settings":
    """`adapt_settings`; without a restorer, a function that gives those of the one that will suit the faces."""

    def settings(name: str) -> "AdaptSettings":
        return adapt_settings(name, *given, **own)

    return settings if restorer is None else settings(restorer)


@dataclass(frozen=True)
class Damage(Flags):
    """How clean faces are degraded, besides the kind of degradation."""

    preset: f.Preset = None
    scale: f.Downsampling = None
    iso: f.Iso = None
    demosaic: f.Demosaic = None
    sensor: f.SensorFile = None
    fitted: f.Fitted = None

    def of_kind(self, kind: str) -> "BlindDegradation | CameraDegradation | FittedKind":
        """Raises BadInput for an unknown kind, a flag that would have no effect, and a kind without its file."""
        from unfade.degradations.sensor import load_sensor
        from unfade.stages.degrade import KINDS

        if kind not in KINDS:
            raise BadInput(f"There is no degradation named {kind}; there are: {', '.join(KINDS)}.")
        given = {name: value for name, value in asdict(self).items() if value is not None}
        for name in given:
            if kind not in OF_KINDS[name]:
                others = " or ".join(OF_KINDS[name])
                raise BadInput(f"--{name} has no effect with --kind {kind}; leave it out, or choose --kind {others}.")
        if kind == "fitted" and self.fitted is None:
            raise BadInput("--kind fitted needs --fitted with a run folder, or the file of a fitted degradation.")
        if self.sensor is not None:
            given["sensor"] = load_sensor(self.sensor)
        return KINDS[kind](**given)


def _kind_of(base: "Losses", code_losses: str | None) -> "Losses":
    """The losses that --code-losses names; those of the family if it was not given."""
    from unfade.restorers.code_level import CODE_LOSSES, CodeLossSettings

    if code_losses is None:
        return base
    if not isinstance(base, CodeLossSettings):
        raise BadInput("--code-losses is for CodeFormer, but this restorer learns from pictures: leave it out.")
    if code_losses not in CODE_LOSSES:
        raise BadInput(f"There are no code losses named {code_losses}; there are: {', '.join(CODE_LOSSES)}.")
    return CODE_LOSSES[code_losses]


def _losses(base: "Losses", weights: dict[str, float | None], perceptual: str | None) -> "Losses":
    """The losses, with the given weights of the terms that compare pictures."""
    from unfade.restorers.families import picture_losses
    from unfade.restorers.image_level import ImageLossSettings

    given = [name for name, value in {**weights, "perceptual": perceptual}.items() if value is not None]
    pictures = picture_losses(base)
    if pictures is None:
        if given:
            raise BadInput(
                f"--{given[0].replace('_', '-')} is for losses on pictures, but this restorer learns from codes: "
                "leave it out, or add --code-losses fusion."
            )
        return base
    if isinstance(base, ImageLossSettings):
        return changed(base, **weights)
    return changed(base, image=changed(pictures, **weights))
