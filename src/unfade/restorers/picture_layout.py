"""The layout in which an exported file takes and returns pictures, to suit the program that runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.restorers.base import Restorer

WORDS = {  # the possible values of each field of a layout
    "colours": ("rgb", "bgr"),
    "values": ("signed", "unit", "bytes"),
    "axes": ("nchw", "nhwc"),
}
MEAN_AND_STD = {"signed": (0.5, 0.5), "unit": (0.0, 1.0), "bytes": (0.0, 1 / 255)}  # of values in [0, 1]


@dataclass(frozen=True)
class Layout:
    """The layout of a file's pictures. The default is that of every network in this package."""

    colours: str = "rgb"  # or bgr
    values: str = "signed"  # float32 in [-1, 1]; unit: float32 in [0, 1]; bytes: uint8 in 0..255
    axes: str = "nchw"  # or nhwc: batch, height, width, channels

    def __post_init__(self) -> None:
        for field, words in WORDS.items():
            if (word := getattr(self, field)) not in words:
                raise BadInput(f"Expected the {field} of a `layout` to be {' or '.join(words)}, got {word}.")

    def __str__(self) -> str:
        return ",".join(getattr(self, field.name) for field in fields(self))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the values."""
        return torch.uint8 if self.values == "bytes" else torch.float32

    def picture_of(self, face: Tensor) -> Tensor:
        """Convert (B, 3, H, W), RGB clamped to [-1, 1], to the layout."""
        mean, std = MEAN_AND_STD[self.values]
        values = face.clamp(-1, 1)
        if self.values != "signed":
            values = ((values + 1) / 2 - mean) / std
        if self.values == "bytes":
            values = values.round().to(torch.uint8)
        values = values.flip(1) if self.colours == "bgr" else values
        return values if self.axes == "nchw" else values.permute(0, 2, 3, 1)

    def face_of(self, picture: Tensor) -> Tensor:
        """The inverse of `picture_of`, except for the rounding of bytes."""
        mean, std = MEAN_AND_STD[self.values]
        values = picture if self.axes == "nchw" else picture.permute(0, 3, 1, 2)
        values = values.flip(1) if self.colours == "bgr" else values
        return values if self.values == "signed" else (values.float() * std + mean) * 2 - 1


PLAIN = Layout()


def layout_of(words: Sequence[str]) -> Layout:
    """A layout from words of WORDS in any order; fields without a word are as in PLAIN.

    Raises BadInput for an unknown word, and for two words of one field.
    """
    layout, given = PLAIN, set()
    for word in words:
        field = next((field for field, known in WORDS.items() if word in known), None)
        if field is None or field in given:
            every = "; ".join(", ".join(known) for known in WORDS.values())
            raise BadInput(f"A `layout` has at most one word of each group: {every}; got {','.join(words)}.")
        given.add(field)
        layout = replace(layout, **{field: word})
    return layout


class InLayout(nn.Module):
    """A restorer that takes and returns pictures in a layout."""

    def __init__(self, restorer: Restorer, layout: Layout) -> None:
        super().__init__()
        self.restorer, self.layout = restorer, layout

    def forward(self, picture: Tensor) -> Tensor:
        restored: Tensor = self.restorer(self.layout.face_of(picture))
        return self.layout.picture_of(restored)
