"""A fitted degradation, corrected until a restorer makes of it what it makes of the photos.

A degradation that is fitted to photos and their targets is too mild: whatever of a photo's noise a restorer takes for a
face's detail is in its target too, so that the photo seems sharper and less noisy than it is. How much that is shows on
clean faces, where the truth is known. They are degraded as fitted, and restored; where the restorer's results and the
photos are related otherwise than its results and those faces, the degradation is changed by the ratio (indirect
inference; Gourieroux, Monfort & Renault 1993). Compared are two curves over spatial frequency: the response, by which
the photo follows from the result, and the power of the rest.
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
FLOOR = 1e-6  # power per pixel, a tenth of a grey level: less is no noise

Attempt = Callable[[Tensor], Tensor]  # of a restorer: (N, 3, S, S) in [-1, 1] to the same


@dataclass(frozen=True)
class Curves:
    """How photos follow from a restorer's results, (3, rings) each."""

    response: Tensor
    rest: Tensor  # power

    @classmethod
    def of(cls, photos: Tensor, results: Tensor) -> "Curves":
        """Of (N, 3, S, S) twice."""
        seen, restored = spectrum(photos), spectrum(results)
        response = by_ring((seen * restored.conj()).real.mean(0)) / by_ring(power(restored)).clamp_min(1e-12)
        return cls(response, by_ring(power(spectrum(photos - filtered(results, response)))))


def matched(fitted: FittedDegradation, photos: Tensor, clean: Tensor, attempt: Attempt) -> FittedDegradation:
    """Corrects a degradation that was fitted to `photos`, (N, 3, S, S), with `clean` faces of anyone, (M, 3, S, S)."""
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
    """Clean faces with the mean contrast of the results, around each one's own colour."""
    wanted, found = (by_ring(power(spectrum(images)))[:, CONTRAST].sum() for images in (results, clean))
    colour = clean.mean((2, 3), keepdim=True)
    return ((clean - colour) * (wanted / found.clamp_min(1e-12)).sqrt().float() + colour).clamp(-1, 1)
