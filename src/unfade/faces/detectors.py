"""The detectors behind one function: YuNet, which OpenCV runs, and RetinaFace."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfade.devices import device_of
from unfade.errors import BadCheckpoint
from unfade.nets.retinaface import MOBILENET025, RESNET50, RetinaFace, RetinaFaceSettings, detect
from unfade.store.checkpoints import is_own, load_state
from unfade.store.foreign import is_onnx, read_foreign, versions
from unfade.store.onnx_files import refuse_external
from unfade.zoo.load import Loaded, Reader, load_network

Box = tuple[float, float, float, float]  # left, top, right, bottom

LEAST_SCORE = 0.3  # detectors report no face with a lower score
OVERLAP = 0.3  # intersection over union above which YuNet's less probable box is dropped
MOST = 5000  # candidates that YuNet keeps before boxes are dropped
PUBLISHED = {"body.stage1.0.0.weight": MOBILENET025, "body.layer1.0.conv1.weight": RESNET50}  # by a key unique to each


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo. Positions are in px of the photo; a whole number is the centre of a pixel."""

    box: Box  # left, top, right, bottom; may reach beyond the photo
    points: NDArray[np.float64]  # (5, 2): left eye, right eye, nose, left and right corner of the mouth
    score: float  # probability

    @property
    def width(self) -> float:
        """Length of the box's side that is nearer to the line of the eyes, px."""
        return self.box[3] - self.box[1] if self.is_lying else self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Length of the box's other side, px."""
        return self.box[2] - self.box[0] if self.is_lying else self.box[3] - self.box[1]

    @property
    def is_upright(self) -> bool:
        """Whether the face is turned by less than 45 degrees."""
        across, down = (self.points[1] - self.points[0]).tolist()
        return bool(across > abs(down))

    @property
    def is_lying(self) -> bool:
        """Whether one eye is above the other rather than beside it."""
        across, down = np.abs(self.points[1] - self.points[0]).tolist()
        return bool(down > across)


def area(box: Box) -> float:
    """The area of a box; 0 if its sides are in the wrong order."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def common(a: Box, b: Box) -> float:
    """The area that two boxes have in common."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


Detector = Callable[[Tensor], list[Face]]  # from a photo (3, H, W) in [-1, 1]


@dataclass(frozen=True)
class Certainty:
    """The scores of a detector above which the turn of a face is certain."""

    sure: float  # hardly any face reaches this score in a turn other than its own
    turned: float  # hardly any place without a face reaches this score in the best of eight turns


def load_detector(name: str | Path = "yunet", *, device: torch.device | str = "cpu") -> Detector:
    """A detector from a name in the table of weights or a file: ONNX is YuNet, any other file RetinaFace.

    YuNet runs on the CPU whatever the device. Several threads may share a detector. Raises UnknownModel, which says how
    to get the file, or BadCheckpoint for a file that is damaged or holds another network.
    """
    return loaded_detector(name, device=device).network


def loaded_detector(name: str | Path = "yunet", *, device: torch.device | str = "cpu") -> Loaded[Detector]:
    """`load_detector`, together with what is known about its file."""
    loaded = load_network(name, "detector", device=device, reader_of=_reader_of)
    return loaded if isinstance(loaded.network, YuNet) else replace(loaded, network=RetinaFaceDetector(loaded.network))


class YuNet:
    """Wu et al., "YuNet: A Tiny Millisecond-level Face Detector" (2023), from OpenCV's zoo."""

    def __init__(self, path: Path) -> None:
        refuse_external(path)
        try:
            with quiet():
                self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), LEAST_SCORE, OVERLAP, MOST)
        except cv2.error as error:
            raise BadCheckpoint(f"{path} is no YuNet that OpenCV can read ({error.err}); fetch it again.") from error
        self._one_at_a_time = threading.Lock()  # OpenCV keeps the size of the picture in the network

    def __call__(self, photo: Tensor) -> list[Face]:
        levels = photo.float().mul(127.5).add_(128).clamp_(0, 255).byte()  # rounded
        bgr = np.ascontiguousarray(levels.flip(0).permute(1, 2, 0).cpu().numpy())
        with self._one_at_a_time:
            self._net.setInputSize((bgr.shape[1], bgr.shape[0]))
            rows = self._net.detect(bgr)[1]
        return [_face_of(row) for row in ([] if rows is None else rows)]


class RetinaFaceDetector:
    """Deng et al. (2020), see nets/retinaface.py."""

    def __init__(self, net: RetinaFace) -> None:
        self._net = net

    def __call__(self, photo: Tensor) -> list[Face]:
        device = device_of(self._net)
        (faces,) = detect(self._net, photo[None].to(device), settings=RetinaFaceSettings(min_score=LEAST_SCORE))
        rows = zip(faces.boxes.tolist(), faces.points.double().cpu().numpy(), faces.scores.tolist(), strict=True)
        return [Face((box[0], box[1], box[2], box[3]), points, score) for box, points, score in rows]


# Measured on 66 pasted faces of 24 to 160 px, clean and degraded, in eight turns
YUNET_CERTAINTY = Certainty(sure=0.9, turned=0.85)
RETINAFACE_CERTAINTY = Certainty(sure=0.999, turned=0.97)


def certainty_of(detector: Detector) -> Certainty:
    """The limits for a detector: RetinaFace's, whose scores lie nearer to 1, or YuNet's."""
    return RETINAFACE_CERTAINTY if isinstance(detector, RetinaFaceDetector) else YUNET_CERTAINTY


def _face_of(row: Any) -> Face:
    """A face from YuNet's row: left, top, width, height, five points and score."""
    left, top, width, height = row[:4].tolist()
    return Face((left, top, left + width, top + height), row[4:14].reshape(5, 2).astype(np.float64), float(row[14]))


def _reader_of(path: Path) -> Reader | None:
    if is_onnx(path):
        return Reader("yunet", lambda path, device: YuNet(path))
    return None if is_own(path) else PUBLISHED_READER


def _read_published(path: Path, device: torch.device | str) -> RetinaFace:
    for state in versions(read_foreign(path)):
        for key, config in PUBLISHED.items():
            if key in state:
                net = RetinaFace(config)
                load_state(net, state, path)
                return net.eval().to(device)
    raise BadCheckpoint(f"{path} is not one of the published RetinaFaces; give the file of another detector.")


PUBLISHED_READER = Reader("retinaface", _read_published)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences OpenCV 5's log line about its choice of engine."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
