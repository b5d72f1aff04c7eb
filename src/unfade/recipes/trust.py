"""The calibrations of trust maps: in the cards of restorers, and carried over by an adaptation."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.fitted import FittedDegradation
from unfade.faces.trust import FEATURES, Calibration, Trust, errors, evidence, transferred
from unfade.images.files import from_bytes, to_bytes
from unfade.images.finding import list_images
from unfade.nets.damage import SIZE, DamageNet
from unfade.recipes.adapt_settings import SAMPLES
from unfade.restorers.base import Restorer
from unfade.restorers.load import each_of
from unfade.stages.restore import choices, restore_batch
from unfade.store.checkpoints import read_card, write_card
from unfade.store.seeds import seed_for
from unfade.training.batches import Pictures
from unfade.zoo.load import Loaded, load_network

KEY = "trust"  # of the calibration in a card
TRUTHS = ("truth", "held_out_truth")  # folders of the samples: clean faces that no restorer learns from


def trust_for(loaded: Loaded[Restorer]) -> Trust:
    """What maps of a restorer, or of several as one, are made by."""
    known, missing = {}, {}
    for part in each_of(loaded):
        found, size = calibration_of(part), part.network.size
        if found is None:
            missing[size] = (
                f"no trust map: {part.path.stem} is not calibrated; use small-restorer, or one that is adapted from it"
            )
        elif found.choices != _made(part.network):
            usual = " and ".join(f"`{name}` {value:g}" for name, value in found.choices.items())
            missing[size] = f"no trust map: {part.path.stem} is calibrated for {usual} only"
        else:
            known[size] = found
    return Trust(load_network("damage", "damage").network, known, missing)


def calibration_of(loaded: Loaded[Restorer]) -> Calibration | None:
    """The calibration in the card of a restorer; None if there is none, or it is that of other weights."""
    try:
        entry = read_card(loaded.path)[KEY]
        found = Calibration(**{**entry, "weights": tuple(entry["weights"])})
    except (KeyError, TypeError):
        return None
    return found if found.restorer == loaded.sha256 and len(found.weights) == FEATURES else None


def calibration_begun(loaded: Loaded[Restorer], damages: str) -> Calibration:
    """A calibration of a restorer as it is, before any numbers are known."""
    return Calibration((), 0.0, _made(loaded.network), loaded.sha256, 0, damages)


def put_in_card(weights: Path, calibration: Calibration) -> None:
    """Add a calibration to the card beside a restorer's weights."""
    write_card(weights, {**read_card(weights), KEY: asdict(calibration)})


class Recalibration:
    """The sample faces, damaged as the photos of a folder are, and a calibrated restorer's errors on them."""

    def __init__(self, restorer: Loaded[Restorer], before: Calibration, *, seed: int) -> None:
        self.network, self.before, self.seed = restorer.network, before, seed
        self.damage: DamageNet = load_network("damage", "damage").network
        self.faces = self.truths = torch.empty(0)

    def begin(self, fitted: FittedDegradation) -> None:
        """Restore the damaged faces, before the restorer learns from the photos that the degradation was fitted to."""
        truths = Pictures([path for name in TRUTHS for path in list_images(SAMPLES / name)], SIZE)
        self.truths = torch.stack([truths[i] for i in range(len(truths))])
        rngs = [np.random.default_rng(seed_for("trust", self.seed, i)) for i in range(len(truths))]
        damaged = [fitted.damaged(truth, rng) for truth, rng in zip(self.truths, rngs, strict=True)]
        self.faces = torch.stack([from_bytes(to_bytes(face)) for face in damaged])
        self.first = self._seen()

    def calibration(self, weights: str) -> Calibration | None:
        """The calibration of the restorer as it is now, whose weights have this SHA-256; None if it was not begun."""
        if not len(self.faces):
            return None
        found = transferred(self.before, self.first, self._seen())
        return replace(found, restorer=weights, damages=f"{self.before.damages}; then as these photos are")

    def _seen(self) -> tuple[Tensor, Tensor]:
        results = torch.cat([restore_batch(face[None], self.network).cpu() for face in self.faces])
        return evidence(self.faces, results, self.damage), errors(results, self.truths)


def recalibration_of(restorer: Loaded[Restorer], *, seed: int) -> Recalibration | None:
    """The recalibration of an adaptation; None where its restorer cannot be calibrated.

    That is one that was not calibrated before, or as it is used now, or whose faces are not of the samples' size.
    """
    before = calibration_of(restorer)
    if before is None or before.choices != _made(restorer.network) or restorer.network.size != SIZE:
        return None
    return Recalibration(restorer, before, seed=seed)


def _made(restorer: Restorer) -> dict[str, float]:
    """Fidelity and refinement; the precision changes no bound."""
    return {name: value for name, value in choices(restorer).items() if name != "bf16"}
