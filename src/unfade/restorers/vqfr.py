"""VQFR v2 behind the interface of all restorers; it learns from pictures."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from unfade.errors import BadInput
from unfade.nets.vqfr import NOT_IN_FORWARD, VQFR, VQFRConfig
from unfade.restorers.image_level import ImageLevelRestorer
from unfade.restorers.shapes import as_lists, as_tuples


class VQFRRestorer(ImageLevelRestorer):
    """A VQFR v2; its fidelity weighs the main branch, which needs torchvision, against the textures alone (0)."""

    architecture = "vqfr"
    frozen = tuple(f"net.{name}" for name in NOT_IN_FORWARD)
    published = True
    net: VQFR

    def __init__(self, net: VQFR, fidelity: float = 1.0) -> None:
        super().__init__()
        self.net = net
        self.size = net.config.size
        self._fidelity = fidelity

    def forward(self, face: Tensor) -> Tensor:
        restored: Tensor = self.net(face, self._fidelity)
        return restored

    @property
    def fidelity(self) -> float:
        """In 0..1; 1, the whole main branch, unless chosen."""
        return self._fidelity

    def set_fidelity(self, fidelity: float) -> None:
        """Run at another fidelity from now on. Raises BadInput outside 0..1."""
        if not 0 <= fidelity <= 1:
            raise BadInput(f"VQFR's fidelity must lie in 0..1, got {fidelity}: change `fidelity`.")
        self._fidelity = fidelity

    def config(self) -> dict[str, object]:
        return {name: value for name, value in as_lists(asdict(self.net.config)).items() if name != "size"}


def build_vqfr_restorer(config: dict[str, Any], size: int) -> VQFRRestorer:
    """The restorer that `VQFRRestorer.config` describes, with fresh weights. Raises BadInput on an unknown field."""
    return VQFRRestorer(VQFR(VQFRConfig(size, **as_tuples(config, VQFRConfig))))
