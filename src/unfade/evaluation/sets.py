"""FID and KID of a folder of pictures against a reference set, with the protocol needed to compare such numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfade.errors import BadInput, UnreadableImage
from unfade.images.files import read_picture
from unfade.images.finding import list_images
from unfade.metrics.distribution import FeatureStatistics, Moments, StoredStatistics, frechet_distance, kernel_distance
from unfade.nets.inception import Inception, seen
from unfade.progress import Progress, silent
from unfade.zoo.load import load_network

SET_METRICS = ("fid", "kid")
FEATURES = "inception-fid"
NETWORK = f"{FEATURES}: Inception v3 of the TensorFlow graph of 2015-12-05, 2048 features, 299 px bilinear"
ENOUGH = 2048  # pictures: with fewer, the covariance of as many features is singular and FID far too large
BATCH = 16

Embed = Callable[[Tensor], Tensor]  # (B, 3, 299, 299), RGB in [-1, 1] -> (B, D) features


@dataclass(frozen=True)
class PictureSet:
    """One of the two sets that are compared."""

    name: str  # the folder, or the model of the published statistics
    moments: FeatureStatistics | Moments
    count: int | None = None  # number of pictures; None: not published
    features: NDArray[np.float32] | None = None  # (N, D); None: only the moments are known
    failed: Sequence[tuple[str, str]] = ()  # (file, why it could not be read)
    notes: Sequence[tuple[str, str]] = ()  # (file, what had to be converted)


@dataclass(frozen=True)
class SetScores:
    """The result of `compare_sets`."""

    values: Mapping[str, float]  # fid, kid
    found: int  # number of pictures in the results
    count: int  # number of those that could be read
    reference: str
    reference_count: int | None  # None: not published
    failed: Sequence[tuple[str, str]] = ()
    notes: Sequence[tuple[str, str]] = ()  # (file, what had to be converted)

    @property
    def warnings(self) -> list[str]:
        """Reasons why the values are unreliable, one sentence each."""
        few = min(self.count, self.reference_count or ENOUGH)
        if few >= ENOUGH or "fid" not in self.values:
            return []
        too_large = f"FID of {few} pictures is far too large (from {ENOUGH} on it is less biased)"
        return [f"{too_large}: compare it only with values of as many pictures against the same reference."]

    @property
    def lines(self) -> list[str]:
        """The values as lines of text, each with its protocol, then the warnings."""
        of = f" of {self.reference_count} pictures" if self.reference_count else ""
        protocol = f"{self.count} pictures against {self.reference}{of}; {NETWORK}"
        return [*(f"{name} {value:.4g}: {protocol}" for name, value in self.values.items()), *self.warnings]

    def as_dict(self) -> dict[str, object]:
        """For JSON: the values and the protocol."""
        return {
            **self.values,
            "pictures": self.count,
            "reference": self.reference,
            "reference_pictures": self.reference_count,
            "network": NETWORK,
            "warnings": self.warnings,
        }


def compare_sets(names: Sequence[str], results: PictureSet, reference: PictureSet) -> SetScores:
    """FID, KID or both, by `names`. Raises BadInput for KID if only moments are known, or if features differ."""
    if results.moments.dimensions != reference.moments.dimensions:
        raise BadInput(
            f"{reference.name} has {reference.moments.dimensions} features a picture, but {results.name} has "
            f"{results.moments.dimensions}; take statistics of {FEATURES}."
        )
    values = {}
    if "fid" in names:
        values["fid"] = frechet_distance(results.moments, reference.moments)
    if "kid" in names:
        values["kid"] = kernel_distance(*(_features_of(side) for side in (results, reference)))
    failed, notes = (
        (*ours, *((f"{reference.name}/{name}", text) for name, text in theirs))
        for ours, theirs in ((results.failed, reference.failed), (results.notes, reference.notes))
    )
    count = results.count or 0
    return SetScores(values, count + len(results.failed), count, reference.name, reference.count, failed, notes)


def embed_folder(folder: Path, embed: Embed, *, progress: Progress = silent) -> PictureSet:
    """The features of all pictures in a folder, and their moments, accumulated in float64 batch by batch.

    Pictures are resized to the network's size one by one, so they may differ in size. Files that cannot be read are
    listed. Raises BadInput if fewer than two can be read.
    """
    failed: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    parts, moments = [], None
    for batch in _batches(list_images(folder), failed, notes, progress):
        with torch.no_grad():
            part = embed(batch).float().cpu().numpy()
        moments = moments or FeatureStatistics(part.shape[1])
        moments.add(part)
        parts.append(part)
    if moments is None or moments.count < 2:
        why = f"; {failed[0][1]}" if failed else ""
        raise BadInput(f"FID and KID need two pictures or more, but {folder} holds {len(parts)} that can be read{why}.")
    return PictureSet(str(folder), moments, moments.count, np.concatenate(parts), failed, notes)


def published_statistics(spec: str) -> PictureSet:
    """Published mean and covariance, by name or file. Raises UnknownModel, which says how to get it, BadCheckpoint."""
    known: StoredStatistics = load_network(spec, "statistics").network
    return PictureSet(spec, Moments(known.mean.numpy(), known.cov.numpy()))


def load_embed(*, device: torch.device | str = "cpu") -> Embed:
    """The published network. Raises UnknownModel, which says how to get it."""
    network: Inception = load_network(FEATURES, "features", device=device).network
    return lambda batch: network(batch.to(device))


def _batches(
    paths: Sequence[Path], failed: list[tuple[str, str]], notes: list[tuple[str, str]], progress: Progress
) -> Iterator[Tensor]:
    batch: list[Tensor] = []
    with progress("features", len(paths)) as advance:
        for path in paths:
            try:
                picture = read_picture(path)
                batch.append(seen(picture.pixels[None]))
                notes += [(path.name, note) for note in picture.notes]
            except UnreadableImage as error:
                failed.append((path.name, str(error)))
            if len(batch) == BATCH:
                yield torch.cat(batch)
                batch = []
            advance(1)
        if batch:
            yield torch.cat(batch)


def _features_of(side: PictureSet) -> NDArray[np.float32]:
    if side.features is None:
        raise BadInput(f"kid needs the pictures of the reference, but {side.name} has only moments; give a folder.")
    return side.features
