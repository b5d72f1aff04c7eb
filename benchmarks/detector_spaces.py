"""Features of two face detectors, in which sets of faces are compared: neither was ever part of a loss here.

RetinaFace (MobileNet 0.25) at stride 16: 128 numbers at each place. YuNet at stride 16: 64 numbers at each place.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from unfade.evaluation.gap import Space
from unfade.nets.retinaface import MOBILENET025, RetinaFace

YUNET_LAYER = "onnx_node!Relu_28"  # the last of the backbone at stride 16


def retinaface_space(weights: Path) -> Space:
    """From the published `mobilenet0.25_Final.pth` (MIT)."""
    network = RetinaFace(MOBILENET025)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)

    def features(image: Tensor) -> np.ndarray:
        bgr = (image.flip(1) + 1) * 127.5 - network.mean
        return network.body(bgr)[1].flatten(2).transpose(1, 2).numpy()

    return features


def yunet_space(weights: Path) -> Space:
    """From OpenCV Zoo's `face_detection_yunet_2023mar.onnx` (MIT)."""
    network = cv2.dnn.readNetFromONNX(str(weights), cv2.dnn.ENGINE_CLASSIC)  # the new engine hides inner layers

    def features(image: Tensor) -> np.ndarray:
        rows = []
        for one in image:
            network.setInput(((one.flip(0) + 1) * 127.5)[None].numpy())
            rows.append(network.forward(YUNET_LAYER)[0].reshape(64, -1).T.copy())
        return np.stack(rows)

    return features
