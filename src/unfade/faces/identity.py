"""Whether a restored face still shows the same person: the distance between two embeddings.

The embedders are dlib's (see nets/dlib_face.py), which comes with the package; SFace (Zhong et al., "SFace:
Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", 2021), which OpenCV runs; and the networks of
nets/arcface.py and nets/adaface.py.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unfade.devices import device_of
from unfade.errors import BadCheckpoint, BadInput
from unfade.faces.align import TEMPLATE, TEMPLATE_SIZE, Matrix, antialiased, least_squares, scaled, to_array
from unfade.faces.chips import chips_of
from unfade.faces.detectors import quiet
from unfade.nets.adaface import AdaFace
from unfade.nets.arcface import ArcFace, grey
from unfade.nets.dlib_face import DlibFace
from unfade.store.foreign import is_onnx
from unfade.store.onnx_files import refuse_external
from unfade.zoo.load import Reader, load_network

SEEN = 112  # px, side of SFace's input
SEEN_TEMPLATE: Matrix = np.array(  # ArcFace's, in px of that input: left eye, right eye, nose, corners of the mouth
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
SHRUNK = 150  # px: faces of this side are within 1 % of SFace's scale, so rotating them needs no antialiasing

# The largest distance between faces of one person. dlib's is its author's; SFace's, between vectors of length 1, is
# from OpenCV's tutorial "DNN-based Face Detection And Recognition". It also serves ArcFace-18 and AdaFace, for which
# none was published.
DLIB_LIMIT, UNIT_LIMIT = 0.6, 1.128
# The most damage (nets/damage.py) with which a face is compared. Of 40 clean faces and dlib's embedding, 8 % were
# farther than the limit from themselves degraded to a damage of 0.25 to 0.3, 42 % at 0.3 to 0.35, and 80 % above 0.5.
JUDGED = 0.3
USUAL_EMBEDDER = "dlib-face"  # comes with the package


class Embedder(Protocol):
    """FFHQ-aligned faces (B, 3, S, S) in [-1, 1] -> embeddings (B, D), whose Euclidean distance tells people apart."""

    @property
    def limit(self) -> float:
        """The largest distance at which two faces are taken to show the same person."""

    def __call__(self, faces: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Likeness:
    """A comparison of the persons of two faces, (3, S, S) in [-1, 1] and FFHQ-aligned."""

    distance: Callable[[Tensor, Tensor], float]  # the identity distance; 0 for the same picture
    limit: float  # the largest distance at which both faces are taken to show the same person
    judges: Callable[[Tensor], bool] = lambda face: True  # whether a face shows enough of a person to be compared

    def tells_apart(self, face: Tensor, distance: float) -> bool:
        """Whether a face and its result at this distance are taken to show different persons."""
        return not distance <= self.limit and self.judges(face)


def load_embedder(spec: str | Path = USUAL_EMBEDDER, *, device: torch.device | str = "cpu") -> Embedder:
    """An embedder from a name in the table of weights or a file: ONNX is SFace, others are dlib, ArcFace or AdaFace.

    SFace runs on the CPU whatever the device. Several threads may share an embedder. Raises UnknownModel, which says
    how to get the file, or BadCheckpoint for a file that is damaged or holds another network.
    """
    loaded = load_network(spec, "identity", device=device, reader_of=_reader_of)
    return EMBEDDERS[loaded.architecture](loaded.network)


def identity_distance(embedder: Embedder, faces: Tensor, others: Tensor) -> Tensor:
    """The identity distance between FFHQ-aligned faces (B, 3, S, S) and (B, 3, S, S), pair by pair: (B,).

    Raises BadInput for pictures that are not square.
    """
    for picture in (faces, others):
        if picture.shape[-1] != picture.shape[-2]:
            size = f"{picture.shape[-1]} x {picture.shape[-2]}"
            raise BadInput(f"Identities are compared on aligned faces, which are square, not {size} pixels.")
    result: Tensor = (embedder(faces) - embedder(others)).norm(dim=1)
    return result


def load_identity_distance(*, device: torch.device | str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
    """`identity_distance` by the embedder that comes with the package."""
    return partial(identity_distance, load_embedder(device=device))


def likeness(embedder: Embedder, judges: Callable[[Tensor], bool] = lambda face: True) -> Likeness:
    """The comparison of two faces by an embedder; `judges` as in `Likeness`."""
    return Likeness(
        lambda face, result: float(identity_distance(embedder, face[None], result[None])[0]), embedder.limit, judges
    )


def load_judge(*, device: torch.device | str = "cpu") -> Callable[[Tensor], bool]:
    """Whether a face (3, S, S) in [-1, 1] has an estimated damage of at most JUDGED."""
    net = load_network("damage", "damage", device=device).network
    return lambda face: float(net.estimate(face[None].to(device_of(net)))[0]) <= JUDGED


def to_sface(size: int) -> Matrix:
    """The similarity, (2, 3), that takes an FFHQ-aligned face of `size` px to SFace's input, by least squares."""
    return least_squares(TEMPLATE * (size / TEMPLATE_SIZE), SEEN_TEMPLATE)


class DlibEmbedder:
    """King (2017), see nets/dlib_face.py. Its input is dlib's chip in colour; its vectors are not normalized."""

    limit = DLIB_LIMIT

    def __init__(self, net: DlibFace) -> None:
        self._net = net

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        vectors: Tensor = self._net(chips_of(faces.float().to(device_of(self._net))))
        return vectors.cpu()


class SFace:
    """OpenCV's FaceRecognizerSF on aligned faces. Its input is 112 px, BGR, 0..255; vectors of length 1."""

    limit = UNIT_LIMIT

    def __init__(self, path: Path) -> None:
        refuse_external(path)
        self._one_at_a_time = threading.Lock()  # a network of OpenCV stores its input, so calls must not overlap
        try:
            with quiet():
                self._net = cv2.FaceRecognizerSF.create(str(path), "")
            self._feature(np.zeros((SEEN, SEEN, 3), np.uint8))
        except cv2.error as error:
            raise BadCheckpoint(f"{path} is no SFace that OpenCV can run ({error.err}); fetch it again.") from error

    def __call__(self, faces: Tensor) -> Tensor:
        vectors = [torch.from_numpy(self._feature(seen_by_sface(face))) for face in faces]
        return F.normalize(torch.stack(vectors))

    def _feature(self, bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._one_at_a_time:
            return np.array(self._net.feature(bgr), np.float32).ravel()  # a copy: the next call overwrites the result


def seen_by_sface(face: Tensor) -> NDArray[np.uint8]:
    """(3, S, S) in [-1, 1] -> (112, 112, 3), BGR."""
    matrix = scaled(to_sface(face.shape[-1]), SHRUNK / face.shape[-1])
    pixels = to_array(antialiased(face.float().cpu(), SHRUNK))
    warped = cv2.warpAffine(pixels, matrix, (SEEN, SEEN), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    levels = np.rint((warped + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels[..., ::-1])


class ArcFaceEmbedder:
    """Deng et al. (2019), see nets/arcface.py. Its input is the whole FFHQ-aligned face in grey; unit vectors."""

    limit = UNIT_LIMIT

    def __init__(self, net: ArcFace) -> None:
        self._net = net

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        seen = grey(faces.float().to(device_of(self._net)), self._net.config.size)
        return F.normalize(self._net(seen)).cpu()


class AdaFaceEmbedder:
    """Kim et al. (2022), see nets/adaface.py. Its input is SFace's, 112 px in colour; vectors of length 1."""

    limit = UNIT_LIMIT

    def __init__(self, net: AdaFace) -> None:
        self._net = net

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        seen = torch.stack([torch.from_numpy(seen_by_sface(face)) for face in faces])
        bgr = seen.permute(0, 3, 1, 2).float() / 127.5 - 1
        return F.normalize(self._net(bgr.to(device_of(self._net)))).cpu()


EMBEDDERS: dict[str, Callable[[Any], Embedder]] = {  # the embedder that wraps a network, by the network's architecture
    "sface": lambda sface: sface,
    "dlib-face": DlibEmbedder,
    "arcface": ArcFaceEmbedder,
    "adaface": AdaFaceEmbedder,
}
SFACE_READER = Reader("sface", lambda path, device: SFace(path))


def _reader_of(path: Path) -> Reader | None:
    return SFACE_READER if is_onnx(path) else None
