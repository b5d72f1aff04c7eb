"""VQFR v2 behind the interface of all restorers; it learns from pictures."""

from torch import Tensor

from unfade.errors import BadInput
from unfade.nets.architecture import Config, to_header, without_size
from unfade.nets.vqfr import NOT_IN_FORWARD, VQFR
from unfade.restorers.image_level import ImageLevelRestorer


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

    def config(self) -> Config:
        return without_size(to_header(self.net.config))
