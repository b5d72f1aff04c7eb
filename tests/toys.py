"""Small things that tests of the stages and of the training loop put in place of real ones."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unfade.restorers.base import Restorer
from unfade.training.loop import LoopSettings, train
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


# Training


class Stopped(Exception):
    """Stands for the end of the process."""


@contextmanager
def one_thread() -> Iterator[None]:
    """On networks this small, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SIZE = 8
LOOP = LoopSettings(  # short, with everything on that a checkpoint has to hold
    steps=13,
    batch=4,
    micro_batch=2,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    ema=0.9,
    checkpoint_every=3,
    validate_every=5,
    seed=1,
)
EFFECTS = {  # for each setting of the loop, another value that changes the result
    "steps": {"steps": 12},
    "learning_rate": {"learning_rate": 2e-2},
    "final_learning_rate": {"final_learning_rate": 5e-3},
    "schedule": {"schedule": "trapezoid"},
    "warmup": {"warmup": 4},
    "weight_decay": {"weight_decay": 0.1},
    "betas": {"betas": (0.8, 0.999)},
    "clip": {"clip": 1e-3},
    "ema": {"ema": 0.5},
    "ema_ramp": {"ema_ramp": True},
    "bf16": {"bf16": True},
    "seed": {"seed": 2},
}


def toy_batches(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    face, target = torch.randn(2, 4, 3, SIZE, SIZE, generator=generator)
    return face, target


def toy_model(dropout: float = 0.2) -> ToyRestorer:
    model = ToyRestorer(SIZE, dropout=dropout)
    model.decoder.requires_grad_(False)
    return model


def trained(
    settings: LoopSettings = LOOP, objective: Objective | None = None, dropout: float = 0.2, **options: object
) -> dict[str, Tensor]:
    """The weights after training the toy from the same start."""
    model = toy_model(dropout)
    train(model, objective or ToyObjective(), toy_batches, settings, **options)
    return state_of(model)


def toy_distance(model: nn.Module) -> dict[str, float]:
    face, target = toy_batches(2**31 - 1)
    return {"held_out": (model(face) - target).square().mean().item()}


class Alive:
    """Calls a function that makes pictures, and counts how many of them are in memory."""

    def __init__(self, make: Callable[..., Tensor]) -> None:
        self.make, self.made = make, weakref.WeakSet[Any]()

    def __call__(self, *given: Any) -> Tensor:
        picture = self.make(*given)
        self.made.add(picture)
        return picture
