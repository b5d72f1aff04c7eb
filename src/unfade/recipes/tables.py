"""The paper's tables, each a short list of settings over rehearsals and comparisons; `table_runs` makes them.

Kuai et al., "Towards Unsupervised Blind Face Restoration using Diffusion Prior" (WACV 2025). What each table is about,
what was printed in it and which of it is wrong is in docs/paper.md. Experiments of the paper whose table's number is
not known here have a name alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from unfade.diffusion.schedule import respaced
from unfade.errors import BadInput
from unfade.recipes.adapt_settings import as_published, settings_for
from unfade.recipes.compare import FIRST
from unfade.recipes.rehearse import RehearseSettings
from unfade.restorers.code_level import CODE_LOSSES
from unfade.stages.degrade import CameraDegradation, camera_degradation
from unfade.stages.methods import METHODS
from unfade.store.checkpoints import image_size
from unfade.zoo.models import find_weights

CAMERAS: dict[str, CameraDegradation] = {
    f"{factor}x {name}": camera_degradation(name, factor)
    for factor in (4, 8)
    for name in ("mild", "moderate", "severe")
}
BASE = "4x moderate"  # on which settings and methods are compared
SHARE = "share of the gap"

Variants = Callable[[RehearseSettings], Mapping[str, RehearseSettings]]


@dataclass(frozen=True)
class Scale:
    """With which models and metrics tables are made."""

    restorer: str
    prior: str
    metrics: tuple[str, ...]  # names of evaluation.evaluate.NAMES
    reference: str | None  # of fid
    methods: tuple[str, ...]  # side by side: names of METHODS, or restorers


SCALES = {
    "builtin": Scale(
        "small-restorer", "small-prior", ("psnr", "ssim", "feature_distance", "identity_distance"), None,
        (FIRST, "ours-short", "difface", "ilvr", "dda", "dr2"),
    ),
    "paper": Scale(
        "swinir-512", "ffhq-512",
        ("psnr_matched", "ssim_matched", "lpips", "deg", "lmd", "maniqa_pipal", "musiq", "fid"), "fid-celeba-test",
        (FIRST, "codeformer", "gfpgan-1.4", "vqfr-2", "ours", "difface", "ilvr", "dda", "dr2", "pgdiff", "diffbir"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """What all tables have."""

    caption: str
    numbers: tuple[int, ...] = ()  # in the paper; none: not known


@dataclass(frozen=True)
class Rehearsals(Table):
    """A rehearsal for each camera and variant of the settings, and which of its rows are shown."""

    varied: str = ""  # what the variants differ in: the head of their column
    variants: Variants = lambda base: {"": base}
    rows: tuple[str, ...] = ("targets", "adapted", SHARE)
    cameras: tuple[str, ...] = (BASE,)
    restorer: str | None = None  # in place of the scale's


@dataclass(frozen=True)
class Comparison(Table):
    """Methods on the same degraded faces."""

    restorers: tuple[str, ...] = ("pre-trained",)  # first stages of every method; "adapted": after a rehearsal
    methods: tuple[str, ...] | None = None  # in place of the scale's
    costs: bool = False  # True: parameters, time and memory of a few faces, in place of scores


def with_targets(
    base: RehearseSettings, *, start: int | None = None, free_from: int | None = None, factor: int | None = None,
    begin_with: str | None = None,
) -> RehearseSettings:  # fmt: skip
    """Other targets, in the paper's units: K and L of 1000 steps, N in pixels of 512."""
    targets = base.adapt.targets
    steps = len(respaced(targets.spacing))
    size = image_size(find_weights(base.adapt.prior, "prior"))
    given = {
        "start": None if start is None else start * steps // 1000,
        "free_from": None if free_from is None else free_from * steps // 1000,
        "factor": None if factor is None else replace(targets, factor=factor).for_size(size).factor,
        "begin_with": begin_with,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(base, adapt=replace(base.adapt, targets=replace(targets, **changes)))  # type: ignore[arg-type]


def numbers_of_photos(base: RehearseSettings) -> dict[str, RehearseSettings]:
    """As many as there are, and fewer."""
    return {**{str(most): replace(base, most=most) for most in (20, 100, 500, 1000)}, "all": base}


def lowest_constrained(base: RehearseSettings) -> dict[str, RehearseSettings]:
    """L, from constrained to the last step to not at all, which is to let go at K = 600."""
    constrained = {str(step): with_targets(base, free_from=step) for step in (0, 180, 360)}
    return {**constrained, "unconstrained": with_targets(base, free_from=600)}


def factors(base: RehearseSettings) -> dict[str, RehearseSettings]:
    """N of the low-pass filter."""
    return {str(factor): with_targets(base, factor=factor) for factor in (4, 8, 16, 32)}


def starts(base: RehearseSettings) -> dict[str, RehearseSettings]:
    """K. Where it lies below the usual L, half as many steps are constrained."""
    return {
        "300": with_targets(base, start=300, free_from=180),
        "600": with_targets(base, start=600),
        "900": with_targets(base, start=900),
    }


def beginnings(base: RehearseSettings) -> dict[str, RehearseSettings]:
    """With the restorer's first attempt, and without it."""
    return {name: with_targets(base, begin_with=name) for name in ("restored", "face")}


def parts_of_codeformer(base: RehearseSettings) -> dict[str, RehearseSettings]:
    """Which parts learn."""
    return {name: replace(base, adapt=replace(base.adapt, losses=losses)) for name, losses in CODE_LOSSES.items()}


TABLES: dict[str, Table] = {
    "cameras": Rehearsals(
        "The pre-trained and the adapted restorer on cameras that neither was trained for", (1, 4, 14),
        rows=("pre-trained", "adapted"), cameras=tuple(CAMERAS),
    ),
    "supervised": Rehearsals(
        "What fine-tuning on the truth gives, and the share of it that is recovered without", (17, 18),
        rows=("pre-trained", "adapted", "supervised", SHARE), cameras=tuple(CAMERAS),
    ),
    "codeformer": Rehearsals(
        "Which parts of CodeFormer are fine-tuned", (5,), "parts", parts_of_codeformer, ("adapted",),
        restorer="codeformer",
    ),
    "first-stages": Comparison(
        "Other methods, begun with the pre-trained and with the adapted restorer", (13,), ("pre-trained", "adapted"),
        (FIRST, "difface", "dr2"),
    ),
    "N": Rehearsals("N of the low-pass filter", (21,), "N", factors),
    "methods": Comparison("All methods on one camera", (25,)),
    "costs": Comparison("Parameters, time and memory of each method on this machine", (27,), costs=True),
    "photos": Rehearsals("How many photos there are to adapt to", (), "photos", numbers_of_photos),
    "L": Rehearsals("L: the last step that is constrained", (), "L", lowest_constrained),
    "K": Rehearsals("K: the step that the prior begins with", (), "K", starts),
    "begin-with": Rehearsals("Targets with and without the restorer's first attempt", (), "begin with", beginnings),
}  # fmt: skip


def named(name: str) -> str:
    """The name of a table, from it or from its number in the paper. Raises BadInput."""
    if name in TABLES:
        return name
    by_number = {str(number): known for known, table in TABLES.items() for number in table.numbers}
    if name not in by_number:
        raise BadInput(
            f"There is no table {name}; there are {', '.join(TABLES)}, and of the paper's numbers "
            f"{', '.join(sorted(by_number, key=int))}: `unfade table --list` says what they are."
        )
    return by_number[name]


def scale_named(name: str) -> Scale:
    """Raises BadInput."""
    if name not in SCALES:
        raise BadInput(f"There is no scale {name}; there are: {', '.join(SCALES)}.")
    return SCALES[name]


def base_settings(scale: Scale, restorer: str | None = None) -> RehearseSettings:
    """What the rows of a table vary: the paper's recipe. Raises UnknownModel, which says how to get the weights."""
    return RehearseSettings(as_published(settings_for(restorer or scale.restorer, scale.prior)))


def needs(table: Table, scale: Scale) -> tuple[str, ...]:
    """The models that a table asks for, besides what metrics do."""
    if isinstance(table, Rehearsals):
        return (table.restorer or scale.restorer, scale.prior)
    assert isinstance(table, Comparison)
    methods = [name for name in table.methods or scale.methods if name != FIRST]
    return (scale.restorer, scale.prior, *filter(None, (METHODS[n].own if n in METHODS else n for n in methods)))
