"""The one training loop: for a prior, for pre-training a restorer and for fine-tuning it.

It depends on no network and no loss. Batches are a function of the step number, and all randomness in a micro-batch is
seeded by that and its own number, so a killed run continues from its checkpoint exactly as if it had not been
interrupted, and several processes (see `ranks`) learn what one learns.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfade.atomic import write_through
from unfade.devices import room_in_memory
from unfade.errors import BadCheckpoint, BadInput, Diverged, OutputConflict, refuse_below
from unfade.precision import autocast
from unfade.processes import leads
from unfade.progress import Progress, silent
from unfade.store.checkpoints import load_state
from unfade.store.seeds import seed_for
from unfade.training.ema import MovingAverage
from unfade.training.loader import Batch, Batches, Clock, brought, feeding, watched
from unfade.training.modes import mode, seeded
from unfade.training.objective import Objective
from unfade.training.ranks import joined

LOG_EVERY = 10  # steps between reads of the losses: reading one waits for the device


@dataclass(frozen=True)
class LoopSettings:
    """How to train. The defaults are the paper's fine-tuning of SwinIR (Sec. 4.1).

    Raises BadInput, naming the setting, for values that nothing can be trained with.
    """

    steps: int = 20_000
    batch: int = 16  # items per optimiser step
    micro_batch: int = 4  # items per forward pass; gradients are accumulated over the batch
    learning_rate: float = 1e-4  # the paper's text; the authors' configuration says 2e-5
    final_learning_rate: float = 5e-6
    schedule: str = "cosine"  # a name in SCHEDULES
    warmup: int = 0  # steps over which the learning rate rises from 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 0.0  # largest gradient norm; 0: not clipped
    ema: float = 0.0  # decay of the moving average that becomes the result; 0: the result is the last weights
    ema_ramp: bool = False  # a faster decay at the start, for training from scratch
    bf16: bool = False  # run networks in bfloat16 where the device has it
    compile: bool = False  # use torch.compile, for long trainings on a GPU: compiling takes a minute or two
    checkpoint_every: int = 500  # steps
    validate_every: int = 1000  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_below(1, self, "steps", "batch", "micro_batch", "checkpoint_every", "validate_every")
        refuse_below(0, self, "learning_rate", "final_learning_rate", "warmup", "weight_decay", "clip", "ema")
        if self.ema >= 1:
            raise BadInput(f"Expected `ema` to be less than 1, got {self.ema}.")
        if self.schedule not in SCHEDULES:
            raise BadInput(f"There is no schedule named {self.schedule}; there are: {', '.join(SCHEDULES)}.")

    @property
    def micro_batches(self) -> int:
        """The number of forward passes of an optimiser step."""
        return -(-self.batch // self.micro_batch)


@dataclass
class History:
    """The record of a run: the mean of each loss term over every LOG_EVERY steps, and the scores of each validation."""

    losses: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    waiting: float = field(default=0.0, compare=False)  # share of the time, 0..1, in which the loop waited for data

    def as_dict(self) -> dict[str, list[dict[str, float]]]:
        """What is stored: all but the times, which differ between two equal runs."""
        return {"losses": self.losses, "validations": self.validations}

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a loss term or a validation score."""
        rows = [*self.losses, *self.validations]
        return [(row["step"], row[name]) for row in rows if name in row]


def train(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    settings: LoopSettings,
    *,
    workers: int = 0,
    checkpoint: Path | None = None,
    made_of: str = "",
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    progress: Progress = silent,
    label: str = "training",
) -> History:
    """Train `model` in place on `batches(step)` and return the history.

    Only parameters with requires_grad are trained. With `checkpoint`, a run continues from that file if it exists, and
    the file stays after the last step; `made_of` is a fingerprint of what the batches and the model are made of, which
    must not change meanwhile. `workers` processes prepare the batches, or a thread if 0; no result depends on their
    number, so it may change from call to call (see `loader.feeding` for what they require of `batches`). Raises
    OutputConflict when the checkpoint was made with other settings or is past the last step, Diverged when the loss
    becomes NaN or infinite, OutOfMemory when a micro-batch is too large for the device. Started by torchrun, the
    processes share the micro-batches; it raises BadInput if there are too few of them.
    """
    run = _Run(model, objective, settings, made_of)
    start = run.resume(checkpoint) if checkpoint and checkpoint.exists() else 0
    with (
        mode(True, model, objective),
        feeding(batches, range(start, settings.steps), workers=workers, device=run.device) as feed,
        progress(label, settings.steps, start=start) as advance,
    ):
        for step, batch in enumerate(watched(feed, run.clock), start):
            with room_in_memory("start again with a smaller `micro_batch`, or set `device` to cpu"):
                run.step(step, batch)
            advance(1)
            done = step + 1
            if validate and (done % settings.validate_every == 0 or done == settings.steps):
                run.history.validations.append({"step": done, **run.validated(validate)})
            if checkpoint and (done % settings.checkpoint_every == 0 or done == settings.steps):
                run.save(checkpoint, done)
    run.finish()
    return run.history


def cosine(settings: LoopSettings, progress: float) -> float:
    """From the learning rate down to the final one along half a cosine."""
    low = settings.final_learning_rate
    return low + (settings.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * progress))


def trapezoid(settings: LoopSettings, progress: float) -> float:
    """Constant for two thirds, then linear down to the final one; the length may change in the constant part."""
    falling = max(0.0, (progress - 2 / 3) * 3)
    return settings.learning_rate + (settings.final_learning_rate - settings.learning_rate) * falling


def halving(settings: LoopSettings, progress: float) -> float:
    """Halved at 7/8 and again at 19/20 of the run, as CodeFormer's at 35,000 and 38,000 of 40,000 steps."""
    return settings.learning_rate * 0.5 ** sum(progress >= share for share in (0.875, 0.95))


SCHEDULES: dict[str, Callable[[LoopSettings, float], float]] = {
    "cosine": cosine,
    "trapezoid": trapezoid,
    "halving": halving,
}


def learning_rate(settings: LoopSettings, step: int) -> float:
    """The learning rate of optimiser step `step`, counted from 0."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return rise * SCHEDULES[settings.schedule](settings, step / max(1, settings.steps))


class _Run:
    """The state of a run: everything that a checkpoint has to hold."""

    def __init__(self, model: nn.Module, objective: Objective, settings: LoopSettings, made_of: str):
        self.model, self.objective, self.settings, self.made_of = model, objective, settings, made_of
        self.faster = torch.compile(model) if settings.compile else model  # it shares the model's parameters
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.ranks = joined(self.device)
        self.ranks.check(settings.batch, settings.micro_batch)
        self.optimizer = torch.optim.AdamW(
            self.parameters, settings.learning_rate, settings.betas, weight_decay=settings.weight_decay, fused=True
        )
        self.average = MovingAverage(model, settings.ema, ramp=settings.ema_ramp) if settings.ema else None
        self.history = History()
        self.clock = Clock()
        self._pending: list[dict[str, Tensor]] = []

    def step(self, step: int, batch: Batch) -> None:
        self._accumulate(step, batch)
        self.ranks.add_up([*self.parameters, *self.objective.parameters()])
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, step)
        self.optimizer.step()
        self.objective.after_step()
        if self.average:
            self.average.update(self.model, step)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == self.settings.steps:
            self._log(step + 1)

    def _accumulate(self, step: int, batch: Batch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        parts = [*zip(*(torch.split(tensor, self.settings.micro_batch) for tensor in batch), strict=True)]
        for number, part in self.ranks.own(parts, self.objective.skip):
            with seeded(self.device, seed_for("training step", self.settings.seed, step, *[number] * (number > 0))):
                self._pass(part, len(part[0]) / len(batch[0]))  # the last part may be smaller

    def _pass(self, part: Batch, share: float) -> None:
        on_device = brought(part, self.device)
        with autocast(self.device, bf16=self.settings.bf16):
            terms = self.objective(self.faster, *on_device)
        torch.autograd.backward(torch.stack(list(terms.values())).sum() * share)
        with autocast(self.device, bf16=self.settings.bf16):
            self.objective.after_backward()
        self._pending.append({name: term.detach() for name, term in terms.items()})

    def _log(self, step: int) -> None:
        names = self._pending[0].keys()
        means = {name: self.ranks.mean(torch.stack([row[name] for row in self._pending])) for name in names}
        if not all(math.isfinite(mean) for mean in means.values()):
            raise Diverged(f"The loss is not a number at step {step} ({means}); lower `learning_rate` and start again.")
        self.history.losses.append({"step": step, **means})
        self._pending.clear()

    def validated(self, validate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
        with mode(False, self.model), torch.no_grad():
            if self.average is None:
                return validate(self.model)
            with self.average.applied(self.model):
                return validate(self.model)

    def finish(self) -> None:
        self.history.waiting = self.clock.share
        if self.average:
            self.average.copy_to(self.model)

    def save(self, path: Path, step: int) -> None:
        state = {
            "step": step,
            "settings": _fingerprint(self.settings),
            "made_of": self.made_of,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "history": self.history.as_dict(),
            "pending": self.ranks.together([{name: term.cpu() for name, term in row.items()} for row in self._pending]),
            "clock": asdict(self.clock),
        }
        if leads():
            write_through(path, lambda temporary: _write(state, temporary))

    def resume(self, path: Path) -> int:
        state = _read(path)
        _check_same(path, state.get("settings"), _fingerprint(self.settings))
        self._check_continued(path, state)
        load_state(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.history = History(**state["history"])
        pending = self.ranks.taken_up(state["pending"])
        self._pending = [{name: term.to(self.device) for name, term in row.items()} for row in pending]
        self.clock = Clock(**state.get("clock", {}))  # older checkpoints have none
        return int(state["step"])

    def _check_continued(self, path: Path, state: dict[str, Any]) -> None:
        """Raises OutputConflict for a checkpoint of other pictures, losses or models, or past the last step."""
        way_out = "name a new output, or remove it to start again."
        if state.get("made_of", self.made_of) != self.made_of:  # older checkpoints have none
            raise OutputConflict(f"{path} was begun with other pictures, losses or models; {way_out}")
        if state["step"] > self.settings.steps:
            raise OutputConflict(f"{path} is of step {state['step']}, but `steps` is {self.settings.steps}; {way_out}")


def _fingerprint(settings: LoopSettings) -> dict[str, Any]:
    """The settings that must not change when a run continues; its length, speed and checkpoints may change."""
    kept = asdict(settings)
    for name in ("steps", "compile", "checkpoint_every", "validate_every"):
        del kept[name]
    return {**kept, "betas": list(settings.betas)}


def _check_same(path: Path, found: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    if found is None:
        raise BadCheckpoint(f"{path} is not a checkpoint of a training; name another file, or remove it.")
    for name, value in wanted.items():
        if found.get(name) != value:
            raise OutputConflict(
                f"{path} was made with {name} = {found.get(name)}, now it is {value}; "
                "name a new output, or remove it to start again."
            )


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # given a path, torch writes in C++, which does not report a full disk
        torch.save(state, file)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        raise BadCheckpoint(f"{path} is damaged ({error}); remove it to start again.") from error
