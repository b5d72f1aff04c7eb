"""Table 27: what is counted and measured, on tiny networks."""

from concurrent.futures import Executor, Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from networks import B32, CountingNoise, fake_prior
from test_importing import VQFR32
from test_published_restorers import TINY as TINY_GFPGAN
from tiny_codeformer import TINY as TINY_CODEFORMER
from tiny_diffbir import TEXT
from tiny_diffbir import TINY as TINY_DIFFBIR
from tiny_models import RESTORER
from unfade.diffusion.prior import DiffusionPrior, Step
from unfade.diffusion.sampler import sample
from unfade.nets.pgdiff_restorer import PGDiffRestorerConfig
from unfade.paper import costs as table_costs
from unfade.paper.costs import FirstSteps, Shapes, _measured, measured_costs, parameters_of, steps_of
from unfade.paper.printed import printed_tables
from unfade.restorers.load import RESTORERS
from unfade.stages.methods import METHODS, Inputs


def config_of(settings: object) -> dict[str, object]:
    """What a restorer is built from, without its size."""
    return {name: value for name, value in asdict(settings).items() if name != "size"}  # type: ignore[call-overload]


SHAPES = {"swinir": RESTORER, "gfpgan": TINY_GFPGAN, "codeformer": TINY_CODEFORMER, "vqfr": VQFR32}
TINY = Shapes(
    32,
    {name: config_of(settings) for name, settings in SHAPES.items()},
    B32,
    B32,
    PGDiffRestorerConfig(16, 8, 2),
    TINY_DIFFBIR,
    TEXT,
)


class Here(Executor):
    """In this process, since it takes seconds to begin another one."""

    def __init__(self, *settings: object, **more: object) -> None:
        pass

    def submit(self, work, /, *given, **more):  # type: ignore[no-untyped-def]
        done: Future[Any] = Future()
        done.set_result(work(*given, **more))
        return done


def test_memory_is_that_of_a_method_alone() -> None:
    held = bytearray(b"x") * 2**29  # memory of this process, which is not a method's
    cost = _measured("SwinIR", TINY, "cpu")
    assert cost.seconds > 0
    assert cost.memory_mb is None or 10 < cost.memory_mb < len(held) / 2**20 + 10


def test_each_method_of_the_table_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_costs, "ProcessPoolExecutor", Here)
    costs = {cost.label: cost for cost in measured_costs(TINY)}
    assert [*costs] == [*(line.label for line in printed_tables()["27"].lines), "our targets"]
    for cost in costs.values():
        assert cost.note == "" or "torchvision" in cost.note
        if not cost.note:
            assert cost.seconds > 0
            assert not cost.steps or cost.per_step > 0
            assert cost.memory_mb is None or cost.memory_mb > 10
    walked = {label: cost.steps for label, cost in costs.items() if cost.steps}
    assert walked == {
        "DifFace": 100,
        "DiffBIR": 50,
        "PG-Diff": 1000,
        "DR2": 21,
        "one step of the prior": 1,
        "our targets": 150,
    }
    difface = costs["DifFace"].values()
    assert difface["s per face"] > 96 * difface["s per step"]  # 4 of the 100 steps were walked
    assert difface["parameters, M"] == parameters_of("DifFace", TINY) / 1e6
    assert "steps" not in costs["SwinIR"].values()


def test_parameters_are_those_of_the_published_networks() -> None:
    labels = ("DifFace", "DR2", "SwinIR", "CodeFormer", "DiffBIR")
    assert [parameters_of(label) for label in labels] == [
        159_788_454,
        93_563_910,
        15_792_587,
        94_112_707,
        1_666_750_508,
    ]
    tiny = sum(p.numel() for p in RESTORERS["swinir"]({"size": 32, **TINY.restorers["swinir"]}).parameters())
    assert parameters_of("SwinIR", TINY) == tiny


def test_the_first_steps_are_those_of_the_whole_walk() -> None:
    face = torch.rand(1, 3, 32, 32)
    for name in ("difface", "ours", "dr2"):
        method = METHODS[name]
        guide = method.guide(Inputs(face, face))
        prior = fake_prior(lambda x, t: 0.1 * x, method.spacing)
        assert steps_of(method) == len(guide.timesteps(len(prior.schedule)))
        states: list[torch.Tensor] = []
        whole, short = (FirstSteps(guide, steps) for steps in (1000, 3))
        assert short.timesteps(len(prior.schedule)) == whole.timesteps(len(prior.schedule))[:3]
        stopped = sample(prior, short, CountingNoise(), face)

        def remember(prior: DiffusionPrior, step: Step, x_prev, noise, guide=guide, states=states):  # type: ignore[no-untyped-def]
            states.append(guide.correct_x_prev(prior, step, x_prev, noise))
            return states[-1]

        whole.correct_x_prev = remember  # type: ignore[method-assign]
        sample(prior, whole, CountingNoise(), face)
        torch.testing.assert_close(states[2], stopped, rtol=0, atol=0)
        assert len(short.ends) == 3
        assert short.ends == sorted(short.ends)


def test_what_does_not_fit_into_memory_is_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900000 kB\nMemAvailable:    100 kB\n")
    monkeypatch.setattr(table_costs, "MEMINFO", tmp_path / "meminfo")
    costs = measured_costs(TINY)
    assert all(cost.note.startswith("not measured: it needs about 0 GB") for cost in costs if cost.parameters > 20_000)
    assert "s per face" not in costs[0].values()
    assert costs[0].values()["parameters, M"] > 0
