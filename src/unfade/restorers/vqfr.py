"""VQFR v2 as a restorer; it learns from pictures."""

from torch import Tensor

from unfade.errors import BadInput
from unfade.nets.architecture import Config, to_header, without_size
from unfade.nets.vqfr import NOT_IN_FORWARD, VQFR
from unfade.restorers.image_level import ImageLevelRestorer


class VQFRRestorer(ImageLevelRestorer):
    """VQFR v2. Its fidelity is the weight of the main branch, which needs torchvision; at 0 only textures are used."""

    architecture = "vqfr"
    frozen = tuple(f"net.{name}" for name in NOT_IN_FORWARD)
    published = True
    net: VQFR

    def __init__(self, net: VQFR) -> None:
        super().__init__()
        self.net = net
        self.size = net.config.size
        self._fidelity = 1.0

    def forward(self, face: Tensor) -> Tensor:
        restored: Tensor = self.net(face, self._fidelity)
        return restored

    @property
    def fidelity(self) -> float:
        """The weight of the main branch, 0..1; 1 by default."""
        return self._fidelity

    def set_fidelity(self, fidelity: float) -> None:
        """Set the fidelity. Raises BadInput outside 0..1."""
        if not 0 <= fidelity <= 1:
            raise BadInput(f"VQFR's fidelity must lie in 0..1, got {fidelity}: change `fidelity`.")
        self._fidelity = fidelity

    def config(self) -> Config:
        return without_size(to_header(self.net.config))
