"""Put dlib's face embedding into the package, from its file in the package face_recognition_models of PyPI.

    python tools/convert_dlib_face.py dlib_face_recognition_resnet_model_v1.dat --out FILE.safetensors

The file holds the layers in the order in which they run, each under its name; numbers are float32, and the shape of
a tensor stands before them.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unfade.nets.dlib_face import DlibFace
from unfade.store.checkpoints import save_weights, sha256_of

BEFORE = {b"con_4": 0, b"affine_": 0, b"fc_2": 2}  # numbers between the name of a layer and its tensor
TENSOR = ("version", "samples", "k", "rows", "columns")  # integers before its numbers
NAMED = re.compile(b"|".join(BEFORE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("published", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    net = filled(args.published.read_bytes())
    save_weights(args.out, net, architecture="dlib-face", config=asdict(net.config), dtype=torch.float16)
    print(f"{sha256_of(args.published)} became {sha256_of(args.out)}, {args.out.stat().st_size:,} bytes")


@torch.no_grad()
def filled(data: bytes) -> DlibFace:
    """The network with the numbers of the published file."""
    net, layers = DlibFace().eval(), list(tensors(data))
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    for conv, own, affine in zip(convolutions, layers[:-1:2], layers[1:-1:2], strict=True):
        count = conv.out_channels
        scale, shift = affine[:count], affine[count:]
        conv.weight.copy_(own[:-count].view_as(conv.weight) * scale.view(-1, 1, 1, 1))
        conv.bias.copy_(own[-count:] * scale + shift)
    net.last.weight.copy_(layers[-1].view(net.last.in_features, -1).T)
    return net


def tensors(data: bytes) -> Iterator[Tensor]:
    """The numbers of every convolution (filters, biases), affine layer (scale, shift) and of the last layer."""
    at = 0
    while found := NAMED.search(data, at):
        (*_, samples, k, rows, columns), at = integers(data, found.end(), BEFORE[found[0]] + len(TENSOR))
        count = samples * k * rows * columns
        yield torch.from_numpy(np.frombuffer(data, "<f4", count, at).copy())
        at += 4 * count


def integers(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """So many integers, each its number of bytes and then these, the lowest first; and where the next thing begins."""
    values = []
    for _ in range(count):
        end = at + 1 + data[at]
        values.append(int.from_bytes(data[at + 1 : end], "little"))
        at = end
    return values, at


if __name__ == "__main__":
    main()
