"""Frames for an encoder: in its pixel format, with the range and the colours that the film declares."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unfade.images.film_fields import COLOURS
from unfade.images.film_geometry import Geometry
from unfade.images.film_input import FULL_RANGE, Frame, pyav, range_of, reformatted, space_of
from unfade.images.photo import Photo

LIMITED_RANGE = 1
RGB = {(1, 3): "rgb24", (1, 4): "rgba", (2, 3): "rgb48le", (2, 4): "rgba64le"}  # by bytes per sample and channels


@dataclass(frozen=True)
class Pictures:
    """The form of the frames that are written of one film."""

    geometry: Geometry
    format: str  # FFmpeg's name of the pixel format
    range: int  # FULL_RANGE or LIMITED_RANGE
    converted: bool  # whether the range differs from that of the film that was read
    from_rgb: bool  # whether the film had RGB, which says neither its range nor its matrix, and the result has not
    scale: int  # enlargement of the frames
    squared: bool  # whether pixels are made square because the result cannot store another shape

    def made(self, frame: Frame, photo: Photo | None) -> Any:
        """A frame for the encoder, with the picture of a photo; None: the unchanged frame."""
        if photo is None and not self.squared and not self.from_rgb:
            return self._same(frame.source)
        return self._drawn(frame, frame.photo if photo is None else photo)  # of RGB: swscale darkens 5 bits into YUV

    def coloured(self, made: Any, source: Any) -> Any:
        """A frame with the colour tags of its source, or if they say nothing about these numbers, with their own."""
        for name in COLOURS:
            setattr(made, name, getattr(source, name))
        if self.converted or self.from_rgb:
            made.color_range = self.range
        if self.from_rgb:
            made.colorspace = space_of(source, made.height)
        return made

    def _same(self, source: Any) -> Any:
        if source.format.name == self.format and not self.converted:
            return source
        spaces = dict.fromkeys(("src_colorspace", "dst_colorspace"), space_of(source))
        ranges = {"src_color_range": range_of(source), "dst_color_range": self.range}
        made = reformatted(source, self.format, **spaces, **ranges)
        made.duration = source.duration
        return self.coloured(made, source)

    def _drawn(self, frame: Frame, photo: Photo) -> Any:
        levels = photo.levels if photo.alpha is None else np.dstack([photo.levels, photo.alpha])
        if self.squared or frame.levels is None:
            levels = self.geometry.turn.stored(levels)
        else:
            levels = self.geometry.stored(levels, frame.levels, scale=self.scale)
        made = pyav().VideoFrame.from_ndarray(levels, format=RGB[levels.dtype.itemsize, levels.shape[-1]])
        ranges = {"src_color_range": FULL_RANGE, "dst_color_range": self.range}
        made = reformatted(made, self.format, dst_colorspace=space_of(frame.source, made.height), **ranges)
        made.duration = frame.source.duration
        return self.coloured(made, frame.source)
