"""The paper's tables, each a short list of ways to make pictures, and the models that they are made with.

Kuai et al., "Towards Unsupervised Blind Face Restoration using Diffusion Prior" (WACV 2025). What is printed in them is
in printed.toml, under the same labels; `pieces` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from unfade.errors import BadInput
from unfade.restorers.code_level import CODE_LOSSES, PARTS, CodeLossSettings

SWINIR, CODEFORMER = "SwinIR", "CodeFormer"  # names of restorers in the paper; each scale has a model for them
OURS = (1.0, 0.1, 0.1)  # weights of L1, LPIPS and GAN in the paper


@dataclass(frozen=True)
class Targets:
    """How pseudo targets are made, in the paper's units; None and "" stand for the paper's usual way."""

    start: int | None = None  # K of 1000
    free_from: int | None = None  # L of 1000; if it equals K, nothing is constrained
    factor: int | None = None  # N in pixels of 512
    begin_with: str | None = None  # "face": without the restorer's first attempt
    method: str = ""  # another method, whose results are used as targets


@dataclass(frozen=True)
class Learning:
    """How a restorer is fine-tuned; the defaults stand for the paper's usual way."""

    targets: Targets = Targets()
    losses: tuple[float, float, float] | CodeLossSettings | None = None  # weights of L1, LPIPS and GAN, or of codes
    photos: int | None = None  # use only the first so many photos; None: all
    on_truth: bool = False  # learn from the truth instead of targets
    start_from: str = ""  # the method whose first stage is fine-tuned, instead of the restorer's own weights


@dataclass(frozen=True)
class Restored:
    """The photos, restored by a restorer."""

    restorer: str  # SWINIR or CODEFORMER
    learning: Learning | None = None  # None: pre-trained
    fidelity: float | None = None  # in 0..1; None: the restorer's own


@dataclass(frozen=True)
class Pseudo:
    """The pseudo targets of the photos themselves."""

    restorer: str
    targets: Targets = Targets()


@dataclass(frozen=True)
class By:
    """The photos, restored by another method, whose first stage may be fine-tuned."""

    method: str  # a key of Scale.methods
    learning: Learning | None = None


@dataclass(frozen=True)
class Share:
    """(after - before) / (upper - before) of the values of three other rows."""

    before: str
    after: str
    upper: str


Way = Restored | Pseudo | By | Share


@dataclass(frozen=True)
class Scale:
    """The models and metrics with which tables are made."""

    restorers: Mapping[str, str]  # part -> model
    prior: str
    methods: Mapping[str, tuple[str, str]]  # method -> name in METHODS and its first stage, or a restorer and ""
    metrics: tuple[str, ...]  # against the truth
    real_metrics: tuple[
        str, ...
    ]  # of photos without a truth; metrics that need a second picture compare with the photo
    codes: bool = False  # whether CODEFORMER learns from codes
    reference: str | None = None  # of fid
    real_reference: str | None = None
    counterparts: Mapping[str, str] = field(default_factory=dict)  # of the paper's metrics, for its claims


SCALES = {
    "builtin": Scale(
        {SWINIR: "small-swinir", CODEFORMER: "small-restorer"},
        "small-prior",
        {"DifFace": ("difface", "small-swinir"), "DR2": ("dr2", "small-swinir")},
        ("psnr_matched", "ssim_matched", "feature_distance", "identity_distance"),
        ("niqe", "identity_distance"),
        counterparts={"lpips": "feature_distance", "deg": "identity_distance", "musiq": "niqe"},
    ),
    "paper": Scale(
        {SWINIR: "swinir-512", CODEFORMER: "codeformer"},
        "ffhq-512",
        {
            "DifFace": ("difface", "swinir-512-l1"),
            "DiffBIR": ("diffbir", "swinir-512-diffbir"),
            "PG-Diff": ("pgdiff", "swinir-512"),
            "DR2": ("dr2", "swinir-512"),
            "GFPGAN": ("gfpgan-1.4", ""),
            "VQFR": ("vqfr-2", ""),
        },
        ("psnr_matched", "ssim_matched", "lpips", "deg", "lmd", "maniqa_pipal", "musiq", "fid"),
        ("maniqa_pipal", "musiq", "fid"),
        True,
        "fid-celeba-test",
        "fid-ffhq-512",
    ),
}

FREE = {f"free from {step}": Targets(step, step) for step in (180, 360, 600, 900)}
BY_STEPS = {"L 0": Targets(free_from=0), "L 180": Targets(free_from=180), "K 900": Targets(start=900)}
THREE_FREE = {name: FREE[name] for name in ("free from 600", "free from 360", "free from 180")}
SWINIR_TARGETS = {"N 8": Targets(factor=8), "N 16": Targets(), "N 32": Targets(factor=32), **BY_STEPS, **THREE_FREE}
CODEFORMER_TARGETS = {"N 4": Targets(factor=4), "N 8": Targets(), "N 16": Targets(factor=16), **BY_STEPS, **THREE_FREE}
FIDELITY_TARGETS = {**{name: FREE[name] for name in FREE if name != "free from 360"}, "ours": Targets()}
FIRST_ATTEMPT = {"without": Targets(begin_with="face"), "with": Targets()}

METHOD_ROWS: dict[str, Way] = {
    **{name: By(name) for name in ("DifFace", "DiffBIR", "PG-Diff", "DR2")},
    "our targets": Pseudo(CODEFORMER),
    **{name: By(name) for name in ("GFPGAN", "VQFR")},
    "CodeFormer": Restored(CODEFORMER),
    "CodeFormer + ours": Restored(CODEFORMER, Learning()),
}


def tuned(restorer: str, targets: Mapping[str, Targets]) -> dict[str, Way]:
    """The restorer fine-tuned with targets made in these ways."""
    return {label: Restored(restorer, Learning(way)) for label, way in targets.items()}


def pseudo(restorer: str, targets: Mapping[str, Targets]) -> dict[str, Way]:
    """Targets made in these ways, themselves."""
    return {label: Pseudo(restorer, way) for label, way in targets.items()}


def by_photos(restorer: str) -> dict[str, Way]:
    """By the number of photos that it is fine-tuned with."""
    fewer = {f"{n} photos": Restored(restorer, Learning(photos=n)) for n in (20, 100, 500, 1000)}
    return {"pre-trained": Restored(restorer), **fewer, "all photos": Restored(restorer, Learning())}


def by_losses(weights: Mapping[str, tuple[float, float, float]]) -> dict[str, Way]:
    """SwinIR by the weights of L1, LPIPS and GAN."""
    return {label: Restored(SWINIR, Learning(losses=given)) for label, given in weights.items()}


def by_truth(restorer: str) -> dict[str, Way]:
    """Fine-tuned on the truth, and which share of that gain is reached without it."""
    names = (restorer, f"{restorer} + ours", f"{restorer} on the truth")
    learned = Restored(restorer, Learning()), Restored(restorer, Learning(on_truth=True))
    return {**dict(zip(names, (Restored(restorer), *learned), strict=True)), "share of the gap": Share(*names)}


def learning_codes(losses: CodeLossSettings) -> Restored:
    """CodeFormer, fine-tuned with these losses."""
    return Restored(CODEFORMER, Learning(losses=losses))


def only_parts(*parts: str) -> Restored:
    """CodeFormer of which only these parts learn."""
    return learning_codes(CodeLossSettings(frozen=tuple(part for part in PARTS if part not in parts)))


SIDE_BY_SIDE: dict[str, Way] = {
    "SwinIR": Restored(SWINIR),
    "SwinIR + ours": Restored(SWINIR, Learning()),
    "CodeFormer": METHOD_ROWS["CodeFormer"],
    "CodeFormer + ours": METHOD_ROWS["CodeFormer + ours"],
}
TABLES: dict[str, dict[str, Way]] = {
    "1": SIDE_BY_SIDE,
    "2": METHOD_ROWS,
    "3": METHOD_ROWS,
    "4": by_photos(SWINIR),
    "5": {
        "encoder alone": only_parts("encoder"),
        "transformer alone": only_parts("position_emb", "feat_emb", "ft_layers", "idx_pred_layer"),
        "encoder + transformer": Restored(CODEFORMER, Learning()),
        "encoder + transformer + fusion": learning_codes(CODE_LOSSES["fusion"]),
    },
    "6": by_losses(
        {
            "L1": (1, 0, 0),
            "L1 + LPIPS": (1, 0.1, 0),
            "L1 + GAN": (1, 0, 0.1),
            "L1 + LPIPS + GAN": OURS,
        }
    ),
    "7": by_losses(
        {
            f"1, {lpips:g}, {gan:g}": (1.0, lpips, gan)
            for lpips, gan in (
                (1, 1),
                (0.1, 1),
                (1, 0.1),
                (0.1, 0.1),
                (0.01, 1),
                (0.01, 0.1),
                (0.01, 0.01),
                (0.1, 0.01),
                (1, 0.01),
            )
        }
    ),
    "8": {
        "weight 1": learning_codes(CodeLossSettings(code_weight=1.0)),
        "weight 0.5": Restored(CODEFORMER, Learning()),
        "weight 0.1": learning_codes(CodeLossSettings(code_weight=0.1)),
    },
    "9": by_photos(CODEFORMER),
    "10": {
        **{f"{name} from DR2": Restored(name, Learning(Targets(method="DR2"))) for name in (SWINIR, CODEFORMER)},
        **{f"{name} + ours": Restored(name, Learning()) for name in (SWINIR, CODEFORMER)},
    },
    "11": pseudo(CODEFORMER, FIDELITY_TARGETS),
    "12": tuned(CODEFORMER, FIDELITY_TARGETS),
    "13": {
        "DifFace": By("DifFace"),
        "DifFace + ours": By("DifFace", Learning(losses=(1, 0, 0), start_from="DifFace")),
        "DiffBIR": By("DiffBIR"),
        "DiffBIR + ours": By("DiffBIR", Learning(losses=(1, 0, 0), start_from="DiffBIR")),
    },
    "14": {"SwinIR": Restored(SWINIR), "its targets": Pseudo(SWINIR), "SwinIR + ours": Restored(SWINIR, Learning())},
    "15": METHOD_ROWS,
    "16": METHOD_ROWS,
    "17": by_truth(SWINIR),
    "18": by_truth(CODEFORMER),
    "19": pseudo(SWINIR, SWINIR_TARGETS),
    "20": pseudo(CODEFORMER, CODEFORMER_TARGETS),
    "21": tuned(SWINIR, SWINIR_TARGETS),
    "22": tuned(CODEFORMER, CODEFORMER_TARGETS),
    "23": pseudo(CODEFORMER, FIRST_ATTEMPT),
    "24": tuned(CODEFORMER, FIRST_ATTEMPT),
    "25": METHOD_ROWS,
    "26": {name: SIDE_BY_SIDE[name] for name in ("SwinIR", "SwinIR + ours")},
    "fig9": {
        f"{name}, w {w}": Restored(CODEFORMER, learning, w)
        for name, learning in (("pre-trained", None), ("fine-tuned", Learning()))
        for w in (0.0, 0.25, 0.5, 0.75, 1.0)
    },
    "fig15": by_photos(SWINIR),
}
COSTS = "27"  # needs no runs, see `costs`
NAMES = (*(str(n) for n in range(1, 28)), "fig9", "fig15")


def tables_named(name: str) -> tuple[str, ...]:
    """One table, or "all". Raises BadInput."""
    if name == "all":
        return NAMES
    if name not in NAMES:
        raise BadInput(f"There is no table {name}; there are 1 to 27, fig9, fig15 and all.")
    return (name,)


def scale_named(name: str) -> Scale:
    """Raises BadInput."""
    if name not in SCALES:
        raise BadInput(f"There is no scale {name}; there are: {', '.join(SCALES)}.")
    return SCALES[name]


def learning_of(way: Way) -> Learning | None:
    """How the restorer of a way is fine-tuned; None if it is not."""
    return way.learning if isinstance(way, Restored | By) else None


def as_usual(way: Way) -> Way:
    """The same way without losses that are the paper's usual ones, so that equal ways are the same run of the paper."""
    if isinstance(way, Restored) and way.learning is not None and way.learning.losses == OURS:
        return replace(way, learning=replace(way.learning, losses=None))
    return way
