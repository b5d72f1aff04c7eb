"""ONNX files that refer to other files, found by their bytes alone: whoever runs such a file opens the others too."""

import mmap
from collections.abc import Iterator
from pathlib import Path

from unfade.errors import BadCheckpoint

# Where messages lie in others, by the numbers of fields in onnx.proto: message -> field -> message
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's kinds of fields
LOCATION = 14  # the field of a tensor that says where its data are; 0: in the file
LONGEST = 10  # bytes of a varint


def refuse_external(path: Path) -> None:
    """Raises BadCheckpoint for an ONNX file whose tensors lie in other files. No other file is opened here.

    A damaged file is left to whoever reads it.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if _is_external(data):
                raise BadCheckpoint(
                    f"{path} keeps its weights in other files, which are not opened; save it as one file with its "
                    "weights inside."
                )


def _is_external(data: mmap.mmap) -> bool:
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, start, end = waiting.pop()
        for number, first, last in _fields(data, start, end):
            inner = INSIDE[kind].get(number)
            if inner == "external" or (kind == "tensor" and number == LOCATION and _varint(data, first, last)[0]):
                return True
            if inner is not None:
                waiting.append((inner, first, last))
    return False


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field of a message and where its content begins and ends, up to the first damaged one."""
    while at < end:
        tag, at = _varint(data, at, end)
        kind, first = tag & 7, at
        if kind == VARINT:
            _, at = _varint(data, at, end)
        elif kind == BYTES:
            length, first = _varint(data, at, end)
            at = first + length
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            return
        if at > end:
            return
        yield tag >> 3, first, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number and where the next byte is; past the end of the file for a damaged one."""
    value = 0
    for place in range(min(LONGEST, end - at)):
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    return 0, len(data) + 1
