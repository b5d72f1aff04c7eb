"""Small things that tests of the stages and of the training loop put in place of real ones."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unfade.restorers.base import Restorer
from unfade.training.objective import Objective


def levels(seed: int, size: int = 16) -> np.ndarray:
    """A picture of noise: (size, size, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save_pictures(folder: Path, names: list[str], *, size: int = 16, first_seed: int = 0) -> list[Path]:
    """Write a picture of noise under each name, each with its own seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names, first_seed):
        Image.fromarray(levels(seed, size)).save(folder / name)
    return [folder / name for name in names]


class ToyRestorer(Restorer):
    """Two convolutions with dropout between; the second is frozen."""

    architecture = "toy"
    frozen = ("decoder",)

    def __init__(self, size: int = 16, seed: int = 0, dropout: float = 0.2) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Conv2d(3, 4, 3, padding=1)
            self.decoder = nn.Conv2d(4, 3, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.size = size

    def forward(self, face: Tensor) -> Tensor:
        return self.decoder(self.dropout(torch.tanh(self.encoder(face))))

    def objective(self, settings: Any = None, **parts: Any) -> Objective:
        return ToyObjective()

    def config(self) -> dict[str, object]:
        return {}


class ToyObjective(Objective):
    """Squared distance to the target, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, ...]] = []

    def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
        self.seen.append(batch)
        return {"l2": (model(batch[0]) - batch[1]).square().mean()}


class ToyAdversary(Objective):
    """Has a critic that learns by its own optimiser, as an adversarial objective does; both terms are random."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.critic = nn.Conv2d(3, 1, 3)
        self.optimizer = torch.optim.AdamW(self.critic.parameters(), lr=1e-3)
        self._seen: tuple[Tensor, Tensor] | None = None

    def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
        restored = model(batch[0])
        self._seen = (batch[1], restored.detach() + 0.1 * torch.randn_like(restored))
        self.critic.requires_grad_(False)
        return {"l2": (restored - batch[1]).square().mean(), "gan": -0.1 * self.critic(restored).mean()}

    def after_backward(self) -> None:
        assert self._seen is not None
        self.critic.requires_grad_(True)
        real, fake = self._seen
        (self.critic(fake).mean() - self.critic(real).mean()).backward()

    def after_step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's tensors."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two copies are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
