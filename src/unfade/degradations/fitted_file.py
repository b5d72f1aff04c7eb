"""A fitted degradation as a file, from which no face can be seen.

A residual shows the outlines of the face in its photo. Since a degradation draws new phases for every face, the phases
are not stored, but only the power of each frequency in each channel, and the phase differences between the channels,
which make noise grey or coloured. Photos, their names and targets are not stored either.
"""

from pathlib import Path

import torch
from torch import Tensor

from unfade.degradations.fitted import LEVELS, FittedDegradation
from unfade.degradations.rings import rings_of
from unfade.errors import BadCheckpoint, BadInput
from unfade.own_modes import own_modes
from unfade.store.checkpoints import read_tensors, write_tensors
from unfade.store.foreign import SAFETENSORS, content_of, refuse_text
from unfade.store.headers import FITTED, WIDEST_FACE

DEGRADATION = "degradation.safetensors"  # in a run folder
VERSION = "1"  # of the format FITTED, in the header
LARGEST = 65504.0  # of float16
UNBALANCED = 0.1  # largest deviation of a kernel's sum from 1; rounding to float16 causes less
OPTIONAL = ("response", "blocks")
GREEN, OTHERS = 1, [0, 2]  # the phases of red and blue are those relative to green


def save_degradation(path: Path, fitted: FittedDegradation, *, made_of: str = "") -> None:
    """Write a degradation atomically, most of it as float16. The same degradation gives the same bytes.

    A file takes 86 kB for each photo of 128 px, and 330 kB for each of 256 px. `made_of` is a fingerprint of everything
    that the degradation was made from, by which a run recognises its own file.
    """
    magnitudes, angles = without_phases(fitted.noise)
    count = len(fitted.noise)
    grey = torch.zeros(count, dtype=torch.bool) if fitted.grey is None else fitted.grey
    tensors = {
        "kernels": fitted.kernels.half(),
        "magnitudes": magnitudes.clamp(max=LARGEST).half(),
        "angles": angles.half(),
        "strengths": fitted.strengths.float(),
        "grey": grey.to(torch.uint8),
    }
    tensors |= {} if fitted.response is None else {"response": fitted.response.float()}
    tensors |= {} if fitted.blocks is None else {"blocks": fitted.blocks.float()}
    header = {"format": FITTED, "version": VERSION, "size": str(fitted.size), "photos": str(count), "made_of": made_of}
    write_tensors(path, {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, header)


@own_modes()
def load_degradation(place: str | Path) -> FittedDegradation:
    """The degradation in a file or in a run folder.

    It degrades faces as the saved one did, but the same seed does not give the same noise, since the phases are not
    stored. Raises BadInput if there is none or the file holds something else, and BadCheckpoint if the file is damaged.
    """
    path = degradation_file(place)
    header, found = read_tensors(path)
    if header.get("format") != FITTED:
        raise _foreign(path)
    if header.get("version") != VERSION:
        raise BadInput(f"{path} has the format of another version of unfade; fit the degradation again with this one.")
    _check(found, header, path)
    kernels = found["kernels"].float()
    return FittedDegradation(
        kernels / kernels.sum((2, 3), keepdim=True),
        with_phases(found["magnitudes"].double(), found["angles"].double()),
        found["strengths"],
        found.get("response"),
        found["grey"].bool(),
        found.get("blocks"),
    )


def is_made_of(path: Path, made_of: str) -> bool:
    """Whether a file is the degradation that was made from what has this fingerprint."""
    try:
        header, _ = read_tensors(path)
    except BadCheckpoint:
        return False
    return header.get("format") == FITTED and header.get("made_of") == made_of


def degradation_file(place: str | Path) -> Path:
    """The file of a degradation, given that file or a run folder.

    Raises BadInput where there is none, and BadCheckpoint for an empty file or a text saved in its place.
    """
    path = Path(place)
    if path.is_dir():
        folder, path = path, path / DEGRADATION
        if not path.is_file():
            raise BadInput(
                f"{folder} holds no {DEGRADATION}, which an adaptation with enough faces writes if it learns from "
                "re-degraded ones; name the folder of such a run, or the file of a fitted degradation."
            )
    if not path.is_file():
        raise BadInput(f"There is no file or folder {path}; name a run folder, or the file of a fitted degradation.")
    if content_of(path) != SAFETENSORS:
        refuse_text(path, "fitted degradation")
        raise _foreign(path)
    return path


def without_phases(noise: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, S, S) to magnitudes, (N, 3, S, S / 2 + 1), and to angles of red and blue, (N, 2, S, S / 2 + 1).

    Magnitudes are about 1 for white noise of a standard deviation of 1. Angles are in radians, relative to green.
    """
    spectra = torch.fft.rfft2(noise.double(), norm="ortho")
    return spectra.abs(), (spectra[:, OTHERS] * spectra[:, GREEN : GREEN + 1].conj()).angle()


def with_phases(magnitudes: Tensor, angles: Tensor) -> Tensor:
    """The inverse, except that the phases of green, which are lost, are 0."""
    size = magnitudes.shape[-2]
    phases = torch.stack([angles[:, 0], torch.zeros_like(angles[:, 0]), angles[:, 1]], 1)
    noise: Tensor = torch.fft.irfft2(torch.polar(magnitudes, phases), s=(size, size), norm="ortho")
    return noise.float()


def _check(found: dict[str, Tensor], header: dict[str, str], path: Path) -> None:
    """Raises BadCheckpoint unless the tensors are those of one degradation, of the size that the header says."""
    count, size = _whole(header, "photos"), _whole(header, "size")
    side = found["kernels"].shape[-1] if found.get("kernels", torch.empty(())).ndim else 0
    if not (count and 1 < size <= WIDEST_FACE and side % 2 and side <= size):
        raise _damaged(path, f"it states {count} photos of {size} px, with kernels of {side} px")
    spectra = (size, size // 2 + 1)
    expected = {
        "kernels": (count, 3, side, side),
        "magnitudes": (count, 3, *spectra),
        "angles": (count, 2, *spectra),
        "strengths": (LEVELS,),
        "grey": (count,),
        "response": (3, len(rings_of(size))),
        "blocks": (count,),
    }
    for name, shape in expected.items():
        value = found.get(name)
        if value is None and name not in OPTIONAL:
            raise _damaged(path, f"{name} is missing")
        if value is not None and tuple(value.shape) != shape:
            raise _damaged(path, f"{name} has the shape {tuple(value.shape)}, but {shape} is expected")
        if value is not None and not bool(value.isfinite().all()):
            raise _damaged(path, f"{name} holds infinite values")
    if float((found["kernels"].float().sum((2, 3)) - 1).abs().max()) > UNBALANCED:
        raise _damaged(path, "its kernels do not keep brightness")


def _whole(header: dict[str, str], name: str) -> int:
    text = header.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _damaged(path: Path, reason: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path} is damaged: {reason}; copy it again, or fit the degradation again.")


def _foreign(path: Path) -> BadInput:
    return BadInput(f"{path} holds no fitted degradation; name the {DEGRADATION} of a run, or its folder.")
