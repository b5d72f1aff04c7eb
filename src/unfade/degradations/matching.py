"""A fitted degradation, corrected until a restorer treats faces degraded by it in the same way as the photos.

A degradation that is fitted to photos and their targets is too mild: noise that a restorer takes for detail of the face
is in the target too, so that the photo seems sharper and less noisy than it is. Clean faces, whose truth is known, show
by how much. They are degraded as fitted, and restored. Where the relation between these faces and their results differs
from that between the photos and theirs, the degradation is changed by the ratio (indirect inference; Gourieroux,
Monfort & Renault 1993). Two curves over spatial frequency are compared: the response that leads from the result to the
photo, and the power of what remains.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.fitted import FittedDegradation
from unfade.degradations.rings import by_ring, filtered, power, spectrum
from unfade.store.seeds import seed_for

CONTRAST = slice(1, 4)  # rings at which results have the contrast of the truth
BRIGHTNESS = 2  # rings below it, at which noise cannot be told from the face, and is left as fitted
CORRECTIONS = 2  # more of them follow the noise of the estimate
LEAST, MOST = 0.2, 3.0  # change of a curve by one correction
FLOOR = 1e-6  # power per pixel, about a tenth of a grey level: less does not count as noise

Attempt = Callable[[Tensor], Tensor]  # of a restorer: (N, 3, S, S) in [-1, 1] to the same


@dataclass(frozen=True)
class Curves:
    """How photos are related to a restorer's results, (3, rings) each."""

    response: Tensor
    rest: Tensor  # power

    @classmethod
    def of(cls, photos: Tensor, results: Tensor) -> "Curves":
        """The curves of photos and their results, both (N, 3, S, S)."""
        seen, restored = spectrum(photos), spectrum(results)
        response = by_ring((seen * restored.conj()).real.mean(0)) / by_ring(power(restored)).clamp_min(1e-12)
        return cls(response, by_ring(power(spectrum(photos - filtered(results, response)))))


def matched(fitted: FittedDegradation, photos: Tensor, clean: Tensor, attempt: Attempt) -> FittedDegradation:
    """Correct a degradation fitted to `photos`, (N, 3, S, S), by means of any `clean` faces, (M, 3, S, S)."""
    results = attempt(photos)
    wanted, faces = Curves.of(photos, results), at_contrast_of(results, clean)
    response, loudness, corrected = torch.ones_like(wanted.response), torch.ones_like(wanted.rest), fitted
    floor = FLOOR * photos.shape[-1] ** 2
    for number in range(CORRECTIONS):
        rngs = [np.random.default_rng(seed_for("matched", number, i)) for i in range(len(faces))]
        made = torch.stack([corrected.damaged(face, rng) for face, rng in zip(faces, rngs, strict=True)])
        found = Curves.of(made, attempt(made))
        response = response * (wanted.response / found.response).nan_to_num(1).clamp(LEAST, MOST)
        louder = ((wanted.rest + floor) / (found.rest + floor)).clamp(LEAST, MOST)
        louder[:, :BRIGHTNESS] = response[:, :1] = 1
        loudness = loudness * louder
        corrected = replace(fitted, response=response, noise=filtered(fitted.noise, loudness.sqrt()))
    return corrected


def at_contrast_of(results: Tensor, clean: Tensor) -> Tensor:
    """Clean faces scaled to the mean contrast of the results, each around its own mean colour."""
    wanted, found = (by_ring(power(spectrum(images)))[:, CONTRAST].sum() for images in (results, clean))
    colour = clean.mean((2, 3), keepdim=True)
    return ((clean - colour) * (wanted / found.clamp_min(1e-12)).sqrt().float() + colour).clamp(-1, 1)
