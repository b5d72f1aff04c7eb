"""Whether a restored face is still the same person's: the angle between two embeddings.

SFace (Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", 2021), which OpenCV
runs, or the networks of nets/arcface.py and nets/adaface.py.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unfade.errors import BadCheckpoint
from unfade.faces.align import TEMPLATE, TEMPLATE_SIZE, Matrix, antialiased, scaled, to_array
from unfade.faces.detectors import quiet
from unfade.nets.adaface import AdaFace, AdaFaceConfig
from unfade.nets.arcface import ArcFace, ArcFaceConfig, grey
from unfade.store.checkpoints import load_state, read_weights
from unfade.store.foreign import without_prefix
from unfade.store.zoo import find_weights

SEEN = 112  # px, side of what SFace sees
SEEN_TEMPLATE: Matrix = np.array(  # ArcFace's, in it: left eye, right eye, nose, left and right corner of the mouth
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
SHRUNK = 150  # px: faces of this side have SFace's scale within 1 %, so turning and moving them needs no antialiasing

Embedder = Callable[[Tensor], Tensor]  # an FFHQ-aligned face (3, S, S) in [-1, 1] -> a vector (D,) of any length
Likeness = Callable[[Tensor, Tensor], float]  # of two such faces, in -1..1


@dataclass(frozen=True)
class IdentitySettings:
    """When a result is said to be of another person."""

    # Cosine from which on two pictures are one person's: SFace's on LFW, by OpenCV's tutorial "DNN-based Face Detection
    # And Recognition". For ArcFace-18 none was published, and the same serves.
    least: float = 0.363

    def tells_apart(self, similarity: float) -> bool:
        """Whether two faces of this similarity are not taken for one person's."""
        return not similarity >= self.least


def load_embedder(spec: str | Path = "sface", *, device: torch.device | str = "cpu") -> Embedder:
    """An embedder from a name of the table or a file: .onnx is SFace, .safetensors an imported ArcFace or AdaFace.

    SFace runs on the CPU whatever the device. Several threads may call the same embedder. Raises UnknownModel, which
    says how to get it, or BadCheckpoint for a file that is damaged or another network.
    """
    path = find_weights(spec, "identity")
    return SFace(path) if path.suffix == ".onnx" else _from_weights(path, device)


def similarity(a: Tensor, b: Tensor) -> float:
    """The cosine of the angle between two vectors (D,), in -1..1; 0 where one of them is zero."""
    return float(F.cosine_similarity(a.double(), b.double(), dim=0))


def likeness(embedder: Embedder) -> Likeness:
    """The similarity of two faces by this embedder."""
    return lambda one, other: similarity(embedder(one), embedder(other))


def to_sface(size: int) -> Matrix:
    """The similarity that takes an FFHQ-aligned face of `size` px to what SFace sees, by least squares: (2, 3)."""
    (x, y), (u, v) = (TEMPLATE * (size / TEMPLATE_SIZE)).T, SEEN_TEMPLATE.T
    ours, theirs = x + 1j * y, u + 1j * v  # a similarity is one complex factor and one complex shift
    off = ours - ours.mean()
    turn = np.vdot(off, theirs - theirs.mean()) / np.vdot(off, off)
    shift = theirs.mean() - turn * ours.mean()
    return np.array([(turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag)])


class SFace:
    """OpenCV's FaceRecognizerSF on faces that are aligned already. Wants 112 px, BGR, 0..255."""

    def __init__(self, path: Path) -> None:
        self._one_at_a_time = threading.Lock()  # a network of OpenCV keeps what it was given
        try:
            with quiet():
                self._net = cv2.FaceRecognizerSF.create(str(path), "")
            self._feature(np.zeros((SEEN, SEEN, 3), np.uint8))
        except cv2.error as error:
            raise BadCheckpoint(f"{path} is no SFace that OpenCV can run ({error.err}); fetch it again.") from error

    def __call__(self, face: Tensor) -> Tensor:
        return torch.from_numpy(self._feature(seen_by_sface(face)))

    def _feature(self, bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._one_at_a_time:
            return np.array(self._net.feature(bgr), np.float32).ravel()  # a copy: the next face goes to the same place


def seen_by_sface(face: Tensor) -> NDArray[np.uint8]:
    """(3, S, S) in [-1, 1] -> (112, 112, 3), BGR."""
    matrix = scaled(to_sface(face.shape[-1]), SHRUNK / face.shape[-1])
    pixels = to_array(antialiased(face.float().cpu(), SHRUNK))
    warped = cv2.warpAffine(pixels, matrix, (SEEN, SEEN), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    levels = np.rint((warped + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels[..., ::-1])


class ArcFaceEmbedder:
    """Deng et al. (2019), see nets/arcface.py: the whole FFHQ-aligned face in grey."""

    def __init__(self, net: ArcFace) -> None:
        self._net = net

    @torch.no_grad()
    def __call__(self, face: Tensor) -> Tensor:
        seen = face[None].float().to(next(self._net.parameters()).device)
        vector: Tensor = self._net(grey(seen, self._net.config.size))[0]
        return vector.cpu()


class AdaFaceEmbedder:
    """Kim et al. (2022), see nets/adaface.py: the face in colour, brought to 112 px as for SFace."""

    def __init__(self, net: AdaFace) -> None:
        self._net = net

    @torch.no_grad()
    def __call__(self, face: Tensor) -> Tensor:
        bgr = torch.from_numpy(seen_by_sface(face)).permute(2, 0, 1)[None].float() / 127.5 - 1
        vector: Tensor = self._net(bgr.to(next(self._net.parameters()).device))[0]
        return vector.cpu()


def _from_weights(path: Path, device: torch.device | str) -> Embedder:
    weights = read_weights(path)
    if weights.architecture not in ("arcface", "adaface"):
        raise BadCheckpoint(f"{path} holds a {weights.architecture}, not an embedding of faces; name another model.")
    try:
        settings = {**weights.config, "blocks": tuple(weights.config["blocks"])}
        net = AdaFace(AdaFaceConfig(**settings)) if weights.architecture == "adaface" else ArcFace(
            ArcFaceConfig(**settings)
        )  # fmt: skip
    except (TypeError, ValueError, KeyError) as error:
        reason = f"{path} describes an {weights.architecture} that cannot be built ({error})"
        raise BadCheckpoint(f"{reason}; import it again with this version.") from error
    load_state(net, without_prefix(weights.state), path)
    net.eval().to(device)
    return AdaFaceEmbedder(net) if isinstance(net, AdaFace) else ArcFaceEmbedder(net)
