"""Deinterlacing of films, whose frames show two moments in alternating rows.

FFmpeg's bwdif makes one frame for each: the number of frames and their times stay the same. Frames that are marked as
progressive pass unchanged.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from importlib import import_module
from typing import Any

COLOURS = ("color_range", "colorspace", "color_trc", "color_primaries")


class Deinterlacer:
    """Takes decoded frames in order and gives as many, delayed by one frame from the first interlaced frame on."""

    def __init__(self) -> None:
        self.used = False
        self._graph: Any = None

    def __call__(self, frames: Iterable[Any]) -> Iterator[Any]:
        """The deinterlaced frames that are ready after these frames."""
        for frame in frames:
            self.used |= frame.interlaced_frame
            if self.used:
                yield from self._filtered(frame)
            else:
                yield frame

    def rest(self) -> Iterator[Any]:
        """The last frames, after all were given."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pulled()

    def _filtered(self, frame: Any) -> Iterator[Any]:
        if self._graph is None:
            self._graph = _graph_for(frame)
            self._colours = {name: getattr(frame, name) for name in COLOURS}
        if frame.pts is None:
            frame.pts = frame.dts
        self._graph.vpush(frame)
        yield from self._pulled()

    def _pulled(self) -> Iterator[Any]:
        av = import_module("av")
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):  # no more for now, or at all
                return
            for name, value in self._colours.items():
                setattr(frame, name, value)
            yield frame


def _graph_for(frame: Any) -> Any:
    graph = import_module("av.filter").Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph
