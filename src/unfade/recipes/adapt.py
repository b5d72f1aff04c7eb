"""The main job: photos -> faces -> pseudo targets -> adapted restorer -> restored photos -> report."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from unfade.atomic import atomic_write
from unfade.diffusion.features import PriorFeatures
from unfade.diffusion.load import load_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput
from unfade.images.files import list_images
from unfade.nets.discriminator import UNetDiscriminatorSN
from unfade.progress import Progress, silent
from unfade.recipes.adapt_report import report_of
from unfade.recipes.lpips import load_lpips
from unfade.report.page import Report, render
from unfade.restorers.base import Restorer
from unfade.restorers.families import Losses, family_of, picture_losses
from unfade.restorers.image_level import ImageLossSettings, Perceptual
from unfade.restorers.load import head_of, load_restorer, reload_restorer, save_restorer
from unfade.stages.align import take_aligned
from unfade.stages.finetune import FinetuneSettings, Pair, finetune
from unfade.stages.restore import check_strength, restore_faces
from unfade.stages.targets import TargetSettings, make_targets
from unfade.store.checkpoints import check_output, image_size, read_card, sha256_of, write_card
from unfade.store.runs import Counts, Entry, open_run
from unfade.store.seeds import seed_for
from unfade.store.zoo import MODELS, find_weights
from unfade.training.loop import History, LoopSettings
from unfade.training.modes import seeded
from unfade.training.objective import Objective


@dataclass(frozen=True)
class AdaptSettings:
    """Everything that the result depends on, besides the photos.

    The defaults are the paper's for restorers that learn on pictures (Sec. 4.1); see `settings_for` for others. Raises
    BadInput for a strength outside 0..1.
    """

    restorer: str = "small-restorer"  # a name of the table, a file, or a run folder
    prior: str = "small-prior"  # the same
    targets: TargetSettings = TargetSettings()
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    losses: Losses = field(default_factory=ImageLossSettings)
    perceptual: str = "prior"  # a key of PERCEPTUALS; for losses that compare pictures
    fidelity: float | None = None  # in 0..1, of targets, validation and results; None: the family's own, if it has one
    strength: float = 1.0  # in 0..1: blends the restored photos with the photos

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def identity(self) -> dict[str, object]:
        """What the result depends on: everything but how many faces are denoised together.

        Choices that were not made are not mentioned, so that runs begun before there was a choice go on.
        """
        values = {**asdict(self), "targets": self.targets.identity()}
        unmade = {"fidelity": None, "strength": 1.0}
        return {name: value for name, value in values.items() if name not in unmade or value != unmade[name]}


# For the built-in models and tens of photos on a processor: minutes instead of days.
SMALL_ADAPT = AdaptSettings(
    targets=TargetSettings(bf16=True).for_size(128),
    finetune=FinetuneSettings(
        LoopSettings(
            steps=300,
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


@dataclass(frozen=True)
class Adapted:
    """What a run came to."""

    restorer: Path
    report: Path
    counts: Counts  # of the photos
    failures: list[tuple[str, str]]  # (file name, reason), of any stage
    seconds: dict[str, float]  # of each stage, in this call
    history: History
    page: Report  # what the report shows


def adapt(
    photos: Path,
    out: Path,
    settings: AdaptSettings = SMALL_ADAPT,
    *,
    real: Path | None = None,
    truth: Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Adapted:
    """Adapt a restorer to a folder of aligned faces and restore them. Run it again and it goes on where it stopped.

    `real` is a folder of clean faces for the discriminator, `truth` one of clean versions for the report's scores.
    Raises BadInput when no photo can be used or the settings are another family's, OutputConflict when `out` holds
    another run.
    """
    found, clean = list_images(photos), list_images(real) if real else []
    restorer = load_restorer(settings.restorer, fidelity=settings.fidelity, device=device)
    prior = load_prior(settings.prior, device=device)
    settings = _settled(settings, restorer, clean)
    key = weights_key(settings.restorer, settings.prior)
    journal = open_run(out, {"adapt": settings.identity(), **key}, about={"photos": str(photos)}, inputs=[photos])
    clock = _Clock()
    with clock.measure("faces"):
        entries = take_aligned(found, out / "faces", size=restorer.size, journal=journal, progress=progress)
    faces = [out / "faces" / entry.output for entry in entries if entry.status == "done"]
    if not faces:
        raise BadInput(f"None of the {len(found)} pictures in {photos} could be used; the first: {entries[0].reason}")
    with clock.measure("pretrained"):
        restore_faces(
            faces, out / "pretrained", restorer, journal=journal, key=key["restorer_sha256"], stage="pretrained"
        )
    with clock.measure("targets"):
        targets = make_targets(
            faces, out / "targets", restorer, prior,
            size=restorer.size, settings=settings.targets, journal=journal, key=json.dumps(key), progress=progress,
        )  # fmt: skip
    with clock.measure("finetune"):
        pairs = [Pair(out / "faces" / t.item, out / "targets" / t.output) for t in targets if t.status == "done"]
        history = finetune_to_file(
            restorer, prior, pairs, out / "restorer.safetensors", settings,
            clean=clean, replace_older=True, progress=progress,
        )  # fmt: skip
    with clock.measure("restore"):
        adapted_key = sha256_of(out / "restorer.safetensors")
        restored = restore_faces(
            faces, out / "restored", restorer,
            journal=journal, strength=settings.strength, key=adapted_key, progress=progress,
        )  # fmt: skip
    final = _final(entries, restored)
    failures = [(e.item, e.reason) for e in [*final, *targets] if e.status != "done"]
    with clock.measure("report"):
        about, truths = asdict(settings), by_stem(truth)
        page = report_of(out, final, failures, history, about, truth=truths, distance=_distance(prior))
        atomic_write(out / "report.html", render(page))
    return Adapted(
        out / "restorer.safetensors", out / "report.html", Counts.of(final), failures, clock.seconds, history, page
    )


def settings_for(restorer: str, prior: str) -> AdaptSettings:
    """The defaults for these models: the paper's for the restorer's family, or small ones for restorers up to 256 px.

    Only the heads of their files are read. Raises UnknownModel, BadCheckpoint.
    """
    head = head_of(restorer)
    family = family_of(head.architecture)
    paper = AdaptSettings(finetune=FinetuneSettings(family.loop, flip=family.flip), losses=family.losses)
    base = SMALL_ADAPT if head.size <= 256 else paper
    targets = replace(base.targets, factor=family.factor).for_size(image_size(find_weights(prior, "prior")))
    losses = base.losses if isinstance(family.losses, ImageLossSettings) else family.losses
    return replace(base, restorer=restorer, prior=prior, targets=targets, losses=losses, fidelity=family.fidelity)


def _settled(settings: AdaptSettings, restorer: Restorer, clean: list[Path]) -> AdaptSettings:
    """The settings with the fidelity that this restorer runs at.

    Raises BadInput for losses of another family, and for clean faces that nothing would look at.
    """
    restorer.trainable()  # one that cannot learn says so before anything is made
    wanted, got = type(family_of(restorer.architecture).losses), type(settings.losses)
    if got is not wanted:
        name = restorer.architecture
        raise BadInput(f"A {name} learns with {wanted.__name__}, not {got.__name__}: begin with settings_for().")
    pictures = picture_losses(settings.losses)
    if clean and pictures is None:
        raise BadInput(
            "Clean faces teach a discriminator of pictures, but this restorer learns on codes: leave --real out, or "
            "take --code-losses fusion."
        )
    if clean and pictures is not None and not pictures.gan_weight:
        raise BadInput(
            "Clean faces teach a discriminator, but the adversarial term has no weight: leave --real out, or give it "
            "one with --gan-weight."
        )
    return replace(settings, fidelity=restorer.fidelity)


def perceptual_distance(name: str, prior: DiffusionPrior) -> Perceptual | None:
    """The distance that the perceptual term uses. Raises BadInput for an unknown name."""
    if name not in PERCEPTUALS:
        raise BadInput(f"There is no perceptual distance named {name}; there are: {', '.join(PERCEPTUALS)}.")
    return PERCEPTUALS[name](prior)


PERCEPTUALS: dict[str, Callable[[DiffusionPrior], Perceptual | None]] = {
    "prior": lambda prior: PriorFeatures(prior.unet),
    "lpips": lambda prior: load_lpips(device=next(prior.parameters()).device),
    "none": lambda prior: None,
}


def finetune_to_file(
    restorer: Restorer,
    prior: DiffusionPrior,
    pairs: list[Pair],
    out: Path,
    settings: AdaptSettings,
    *,
    clean: list[Path],
    replace_older: bool = False,
    progress: Progress = silent,
) -> History:
    """Fine-tune `restorer` in place and write it to `out` with a card; a killed run goes on.

    Nothing is done if the card says that the file was made from the same pairs in the same way already. Raises
    OutputConflict if a file is there that was made otherwise, unless `replace_older`: the file is the run folder's own.
    """
    settings = _settled(settings, restorer, clean)
    key = weights_key(settings.restorer, settings.prior)
    if not pairs:
        raise BadInput(
            f"No pseudo target could be made, so there is nothing to learn from; see {out.parent}/journal.jsonl."
        )
    fingerprint = _fingerprint(pairs, clean, settings, key)
    checkpoint = out.with_name(f"finetune-{fingerprint}.training")
    card = read_card(out)
    if out.exists() and card.get("fingerprint") == fingerprint:
        checkpoint.unlink(missing_ok=True)  # left by a run that was killed at its very end
        reload_restorer(restorer, out)
        return History(**card["history"])
    if not replace_older:
        check_output(out, checkpoint)
    history = finetune(
        restorer,
        pairs,
        objective=_objective(restorer, prior, settings),
        settings=settings.finetune,
        real=clean,
        distance=PriorFeatures(prior.unet),
        checkpoint=checkpoint,
        progress=progress,
    )
    save_restorer(out, restorer)
    write_card(out, _card(settings, pairs, key, fingerprint, history))
    checkpoint.unlink()
    return history


def _distance(prior: DiffusionPrior) -> Perceptual:
    """The feature distance of pictures wherever they are, computed where the prior is."""
    features, device = PriorFeatures(prior.unet), next(prior.parameters()).device
    return lambda image, other: features(image.to(device), other.to(device)).cpu()


def _objective(restorer: Restorer, prior: DiffusionPrior, settings: AdaptSettings) -> Objective:
    pictures = picture_losses(settings.losses)
    if pictures is None:
        return restorer.objective(settings.losses)
    device = next(restorer.parameters()).device
    loop = settings.finetune.loop
    discriminator = None
    if pictures.gan_weight:
        with seeded(torch.device("cpu"), loop.seed):
            discriminator = UNetDiscriminatorSN(features=pictures.discriminator_features).to(device)
    return restorer.objective(
        settings.losses,
        perceptual=perceptual_distance(settings.perceptual, prior),
        discriminator=discriminator,
        micro_batches=-(-loop.batch // loop.micro_batch),
    )


def _card(
    settings: AdaptSettings, pairs: list[Pair], key: dict[str, str], fingerprint: str, history: History
) -> dict[str, object]:
    model = MODELS.get(settings.restorer)
    return {
        "kind": "restorer",
        "made_by": "unfade adapt",
        "adapted_from": settings.restorer,
        **key,
        "licence": f"as {settings.restorer}" + (f": {model.licence}" if model else ""),
        "settings": settings.identity(),
        "pairs": len(pairs),
        "fingerprint": fingerprint,
        "history": asdict(history),
    }


def weights_key(restorer: str, prior: str) -> dict[str, str]:
    """Hashes of the weights that a name, a file or a run folder stands for."""
    return {
        "restorer_sha256": sha256_of(find_weights(restorer, "restorer")),
        "prior_sha256": sha256_of(find_weights(prior, "prior")),
    }


def _fingerprint(pairs: list[Pair], clean: list[Path], settings: AdaptSettings, key: dict[str, str]) -> str:
    """What the adapted restorer depends on: its pairs, the settings and the weights it starts from."""
    contents = [sha256_of(path) for pair in pairs for path in (pair.face, pair.target)]
    learning = replace(settings, strength=1.0).identity()  # the blend comes after it
    return f"{seed_for(*contents, *map(sha256_of, clean), learning, sorted(key.items())):016x}"


def _final(faces: list[Entry], restored: list[Entry]) -> list[Entry]:
    """One entry for each photo: what stopped it, or its restored picture."""
    by_face = {entry.item: entry for entry in restored}
    return [replace(by_face[face.output], item=face.item) if face.status == "done" else face for face in faces]


def by_stem(folder: Path | None) -> dict[str, Path]:
    """The pictures of a folder by their file names without endings; none of no folder."""
    return {path.stem: path for path in list_images(folder)} if folder else {}


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - begin, 2)
