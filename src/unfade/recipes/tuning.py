"""Fine-tune a restorer and write it to a file with its card, unless that has been done already."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from os.path import lexists
from pathlib import Path

import torch

from unfade.degradations.fitted import FittedDegradation
from unfade.degradations.fitted_file import is_made_of, save_degradation
from unfade.devices import device_of
from unfade.diffusion.features import PriorFeatures
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput, OutputConflict
from unfade.processes import leads
from unfade.progress import Progress, silent
from unfade.recipes.adapt_settings import AdaptSettings, settled, to_damage, weights_key
from unfade.recipes.trust import KEY as TRUST
from unfade.recipes.trust import Recalibration, recalibration_of
from unfade.restorers.base import Restorer
from unfade.restorers.families import picture_losses
from unfade.restorers.image_level import Perceptual, discriminator_for
from unfade.restorers.load import reload_restorer, save_restorer
from unfade.stages.finetune import LEAST_FITTED, LEAST_HELD_OUT, Pair, became_worse, finetune
from unfade.store.checkpoints import check_output, read_card, sha256_of, trained_alone, write_card
from unfade.store.seeds import fingerprint
from unfade.training.loop import History
from unfade.training.objective import Objective
from unfade.zoo.load import Loaded, load_network
from unfade.zoo.models import find_weights


def finetune_to_file(
    restorer: Loaded[Restorer],
    prior: Loaded[DiffusionPrior],
    pairs: list[Pair],
    out: Path,
    settings: AdaptSettings,
    *,
    clean: list[Path],
    degradation: Path | None = None,
    key: dict[str, str] | None = None,
    replace_older: bool = False,
    progress: Progress = silent,
) -> History:
    """Fine-tune `restorer` in place and write it to `out` with a card; resumable.

    `degradation` is where the degradation of the photos is written, if one is fitted; otherwise an older file there is
    removed. `key` has the hashes of these networks; it is needed if `restorer` is not the one that the settings
    name. If the card of `out` says that it was made from the same pairs in the same way, it is only loaded. Raises
    BadInput without any pair, and OutputConflict if `out` or `degradation` was made in another way, or is being made by
    another process, unless `replace_older` allows to replace it.
    """
    network, key = restorer.network, key or weights_key(restorer, prior)
    settings = settled(settings, network, clean)
    if not pairs:
        raise BadInput(
            "No pseudo target could be made, so there is nothing to learn from; see the run's journal.jsonl for why."
        )
    damaged = to_damage(settings, network.size, clean)
    made_of = _made_of(pairs, [*clean, *damaged], settings, key)
    checkpoint = out.with_name(f"finetune-{made_of}.training")
    card = read_card(out)
    if out.exists() and card.get("fingerprint") == made_of:
        checkpoint.unlink(missing_ok=True)  # left by a run that was killed at its very end
        reload_restorer(network, out)
        return History(**card["history"])
    if not replace_older:
        check_output(out, checkpoint)
        _check_degradation(degradation, made_of)
    with nullcontext() if replace_older else trained_alone(out):
        if degradation and leads():
            degradation.unlink(missing_ok=True)  # that of other pairs; these may be too few to fit one
        recalibration = recalibration_of(restorer, seed=settings.finetune.loop.seed)
        history = finetune(
            network,
            pairs,
            objective=_objective(network, prior.network, settings),
            settings=settings.finetune,
            real=clean if _learns_by_discriminator(settings) else [],
            clean=damaged,
            distance=PriorFeatures(prior.network.unet),
            on_fitted=_on_fitted(degradation, made_of, recalibration, settings),
            checkpoint=checkpoint,
            progress=progress,
        )
        if leads():
            _write(out, network, _card(settings, restorer.licence, pairs, key, made_of, history), recalibration)
            checkpoint.unlink()
    return history


def _write(out: Path, network: Restorer, card: dict[str, object], recalibration: Recalibration | None) -> None:
    """Write the restorer, and then its card, which says that all is done."""
    save_restorer(out, network)
    calibration = recalibration.calibration(sha256_of(out)) if recalibration else None
    write_card(out, {**card, **({TRUST: asdict(calibration)} if calibration else {})})


def _on_fitted(
    path: Path | None, made_of: str, recalibration: Recalibration | None, settings: AdaptSettings
) -> Callable[[FittedDegradation], None] | None:
    """What is done with the degradation of the photos, before the restorer learns; None if nothing needs one."""

    def on_fitted(fitted: FittedDegradation) -> None:
        if path and leads():
            save_degradation(path, fitted, made_of=made_of)
        if recalibration:
            recalibration.begin(fitted)

    return on_fitted if recalibration or settings.finetune.redegraded else None


def warnings_of(history: History, settings: AdaptSettings, pairs: int, *, fitted: bool) -> list[str]:
    """What whoever uses the restorer should know about its fine-tuning, one sentence each.

    `fitted` says whether a degradation was fitted to the `pairs`.
    """
    kept = ["Adapting made held-out faces worse, so the pre-trained weights were kept."]
    least = LEAST_FITTED + (LEAST_HELD_OUT if settings.finetune.hold_out else 0)
    few = [
        f"How the photos are degraded could not be learned from {pairs} face{'s' * (pairs != 1)} (at least {least} are "
        "needed), so the restorer learned from pseudo targets alone and gained less."
    ]
    return (kept if became_worse(history) else []) + (few if settings.finetune.redegraded and not fitted else [])


def history_so_far(out: Path) -> History:
    """The history of the fine-tuning to `out`: of the finished one, or up to its last checkpoint; maybe empty."""
    if card := read_card(out):
        return History(**card["history"])
    for checkpoint in out.parent.glob("finetune-*.training"):
        with suppress(Exception):  # it may be replaced or removed at this moment
            return History(**torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["history"])
    return History()


def perceptual_distance(name: str, prior: DiffusionPrior) -> Perceptual | None:
    """The distance that the perceptual term uses. Raises as `check_perceptual` does."""
    check_perceptual(name)
    return PERCEPTUALS[name](prior)


def check_perceptual(name: str) -> None:
    """Raises BadInput for an unknown name, UnknownModel if the weights of the distance are missing."""
    if name not in PERCEPTUALS:
        raise BadInput(f"There is no perceptual distance named {name}; there are: {', '.join(PERCEPTUALS)}.")
    if name == "lpips":
        find_weights(LPIPS, "perceptual")


LPIPS = "lpips-vgg"
PERCEPTUALS: dict[str, Callable[[DiffusionPrior], Perceptual | None]] = {
    "prior": lambda prior: PriorFeatures(prior.unet, shifted=True),
    "lpips": lambda prior: load_network(LPIPS, "perceptual", device=device_of(prior)).network,
    "none": lambda prior: None,
}


def _check_degradation(path: Path | None, made_of: str) -> None:
    """Raises OutputConflict for a file that is there already, unless this run wrote it before it was interrupted."""
    if path and lexists(path) and not is_made_of(path, made_of):
        raise OutputConflict(f"{path} is there already and was made in another way; name another file as `out`.")


def _learns_by_discriminator(settings: AdaptSettings) -> bool:
    pictures = picture_losses(settings.losses)
    return pictures is not None and pictures.gan_weight > 0


def _objective(restorer: Restorer, prior: DiffusionPrior, settings: AdaptSettings) -> Objective:
    pictures = picture_losses(settings.losses)
    if pictures is None:
        return restorer.objective(settings.losses)
    loop = settings.finetune.loop
    return restorer.objective(
        settings.losses,
        perceptual=perceptual_distance(settings.perceptual, prior),
        discriminator=discriminator_for(pictures, loop.seed, device_of(restorer)),
        micro_batches=loop.micro_batches,
    )


def _card(
    settings: AdaptSettings, licence: str, pairs: list[Pair], key: dict[str, str], made_of: str, history: History
) -> dict[str, object]:
    return {
        "kind": "restorer",
        "made_by": "unfade adapt",
        "adapted_from": settings.restorer,
        **key,
        "licence": licence,
        "settings": settings.identity(),
        "pairs": len(pairs),
        "fingerprint": made_of,
        "history": history.as_dict(),
    }


def _made_of(pairs: list[Pair], others: list[Path], settings: AdaptSettings, key: dict[str, str]) -> str:
    """A fingerprint of all that the adapted restorer depends on: its pairs, the settings and the initial weights."""
    contents = [sha256_of(path) for pair in pairs for path in (pair.face, pair.target)]
    learning = replace(settings, strength=1.0, rounds=1).identity()  # neither affects this fine-tuning
    return fingerprint(contents, [sha256_of(path) for path in others], learning, key)
