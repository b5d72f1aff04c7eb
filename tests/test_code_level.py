"""Fine-tuning on codes: parity with one published step, frozen parts, and the fusion's alternative."""

import json
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recorded import arrays, fill_module, picture, subsampled
from unfade.errors import BadInput
from unfade.nets.codeformer import CodeFormer, CodeFormerConfig
from unfade.nets.discriminator import UNetDiscriminatorSN
from unfade.nets.vqgan import VQGANConfig
from unfade.restorers.code_level import (
    CODE_LOOP,
    CODE_LOSSES,
    CodeFormerRestorer,
    CodeFormerSettings,
    CodeLossSettings,
    own_teacher,
)
from unfade.restorers.load import RESTORERS, load_restorer, save_restorer
from unfade.training.ema import MovingAverage
from unfade.training.loop import LoopSettings, train

TINY = CodeFormerConfig(
    VQGANConfig(size=32, channels=32, channel_mult=(1, 1, 2), attention_sizes=(8,), codes=16, code_channels=8),
    dim=32,
    heads=4,
    layers=2,
    fusion_sizes=(16, 32),
)
LEARNS = {"position_emb", "encoder", "feat_emb", "ft_layers", "idx_pred_layer"}
LOOP = LoopSettings(steps=3, batch=2, micro_batch=1, learning_rate=1e-3, betas=(0.9, 0.99))
full_size = pytest.mark.skipif(not os.environ.get("UNFADE_FULL_SIZE"), reason="minutes: set UNFADE_FULL_SIZE=1")


def tiny_restorer() -> CodeFormerRestorer:
    return CodeFormerRestorer(fill_module(CodeFormer(TINY))).train()


def pairs(step: int) -> tuple[Tensor, Tensor]:
    return picture(32, 32, 10, count=2), picture(32, 32, 20, count=2)


def fine_tune(restorer, objective, steps: int = 3):
    restorer.requires_grad_(False)
    for parameter in restorer.trainable():
        parameter.requires_grad_(True)
    return train(restorer, objective, pairs, replace(LOOP, steps=steps))


def changed_parts(restorer: CodeFormerRestorer, before: dict[str, Tensor]) -> set[str]:
    state = restorer.net.state_dict()
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(state[name], value)}


def parameters_by_part(net: CodeFormer) -> dict[str, list[str]]:
    parts = defaultdict(list)
    for name, _ in net.named_parameters():
        parts[name.split(".")[0]].append(name)
    return parts


@full_size
def test_one_step_is_the_published_one() -> None:
    golden = arrays("codeformer_dtbfr_step")
    restorer = CodeFormerRestorer(fill_module(CodeFormer())).train()
    objective = restorer.objective()
    restorer.requires_grad_(False)
    learning = [parameter.requires_grad_(True) for parameter in restorer.trainable()]
    assert sum(p.numel() for p in learning) == golden["n_trainable"] == 49_129_024
    losses = defaultdict(float)
    for i in range(2):  # one by one: half the memory
        face, target = picture(512, 512, 11 + i), picture(512, 512, 21 + i)
        clear = torch.from_numpy(golden["idx_gt_margin"][i]) > 1e-3
        named = torch.from_numpy(golden["idx_gt"][i]).long()
        assert torch.equal(objective.codes_of(target)[0][clear], named[clear])
        terms = objective(restorer, face, target)
        (sum(terms.values()) / 2).backward()
        for name, term in terms.items():
            losses[name] += float(term.detach()) / 2
    assert losses["feature"] == pytest.approx(float(golden["l_feat_encoder"]), rel=1e-5)
    assert losses["code"] == pytest.approx(float(golden["cross_entropy_loss_x0.5"]), rel=1e-5)
    check_step(restorer, learning, golden)


def check_step(restorer, learning, golden):
    own = dict(restorer.net.named_parameters())
    start = {name: value.detach().clone() for name, value in own.items()}
    average = MovingAverage(restorer, CODE_LOOP.ema)
    torch.optim.Adam(learning, CODE_LOOP.learning_rate, CODE_LOOP.betas).step()
    average.update(restorer, 0)
    for part, names in parameters_by_part(restorer.net).items():
        moved = torch.stack([(own[name].detach() - start[name]).norm() for name in names]).norm()
        gradients = [own[name].grad.norm() for name in names if own[name].grad is not None]
        norm = torch.stack(gradients).norm() if gradients else torch.zeros(())
        assert float(norm) == pytest.approx(float(golden[f"{part}.grad_norm"]), rel=1e-3, abs=0)
        assert float(moved) == pytest.approx(float(golden[f"{part}.adam_step_delta_norm"]), rel=1e-3, abs=0)
    for key in [key.removesuffix(".vals") for key in golden if key.endswith(".vals")]:
        kind, name = key.split(":")
        found, atol = {
            "grad": (own[name].grad, 1e-6),
            "after_adam": (own[name].detach(), 1e-6),
            "ema_minus_start": (average.state_dict()[f"net.{name}"] - start[name], 6.1e-8),  # one ulp of weights < 1
        }[kind]
        sampled = subsampled(found, golden, key)
        torch.testing.assert_close(sampled, torch.from_numpy(golden[f"{key}.vals"]), atol=atol, rtol=0)


def test_as_many_parameters_learn_as_published() -> None:
    with torch.device("meta"):
        restorer = CodeFormerRestorer(CodeFormer())
    assert sum(p.numel() for p in restorer.trainable()) == 49_129_024
    assert sum(p.numel() for p in restorer.parameters()) == 94_112_707


def test_defaults_are_the_papers() -> None:
    assert (CODE_LOOP.steps, CODE_LOOP.batch, CODE_LOOP.learning_rate) == (40_000, 8, 1e-4)
    assert (CODE_LOOP.betas, CODE_LOOP.weight_decay, CODE_LOOP.ema) == ((0.9, 0.99), 0.0, 0.995)
    assert CODE_LOSSES["codes"] == CodeLossSettings(feature_weight=1.0, code_weight=0.5)
    assert CodeFormerSettings() == CodeFormerSettings(fidelity=0.5, adain=True)


def test_losses_are_those_of_the_equation() -> None:
    restorer = tiny_restorer()
    face, target = pairs(0)
    terms = restorer.objective()(restorer, face, target)
    net = restorer.net
    codes = net.quantize.nearest(net.encoder(target))
    entries = net.quantize.embedding.weight[codes].transpose(1, 2).reshape(2, 8, 8, 8)
    seen = net.predict_codes(face)
    likelihood = seen.logits.softmax(2).gather(2, codes[:, :, None])
    torch.testing.assert_close(terms["feature"], (entries - seen.lq_feat).square().mean())
    torch.testing.assert_close(terms["code"], -0.5 * likelihood.log().mean())
    assert terms.keys() == {"feature", "code"}


@pytest.mark.parametrize(("weight", "term"), [("feature_weight", "feature"), ("code_weight", "code")])
def test_weights_multiply_their_terms(weight: str, term: str) -> None:
    restorer = tiny_restorer()
    once = restorer.objective(CodeLossSettings(**{weight: 1.0}))(restorer, *pairs(0))
    thrice = restorer.objective(CodeLossSettings(**{weight: 3.0}))(restorer, *pairs(0))
    torch.testing.assert_close(thrice[term], 3 * once[term])


def test_frozen_parts_stay_bit_identical_and_the_others_learn() -> None:
    restorer = tiny_restorer()
    before = {name: value.clone() for name, value in restorer.net.state_dict().items()}
    fine_tune(restorer, restorer.objective())
    assert changed_parts(restorer, before) == LEARNS


def test_the_losses_fall() -> None:
    restorer = tiny_restorer()
    history = fine_tune(restorer, restorer.objective(), steps=30)
    for name in ("feature", "code"):
        curve = [value for _, value in history.curve(name)]
        assert curve[-1] < curve[0]


def test_the_teacher_stays_as_it_was() -> None:
    restorer = tiny_restorer()
    target = pairs(0)[1]
    expected = restorer.net.quantize.nearest(restorer.net.encoder(target))
    objective = restorer.objective()
    fine_tune(restorer, objective)
    assert torch.equal(objective.codes_of(target), expected)
    assert not torch.equal(restorer.net.encoder(target), tiny_restorer().net.encoder(target))


def test_the_teacher_names_codes_in_full_precision() -> None:
    restorer = tiny_restorer()
    target = pairs(0)[1]
    teacher = own_teacher(restorer.net)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher(target.bfloat16().float()), teacher(target.bfloat16()))
        terms = restorer.objective()(restorer, *pairs(0))
    assert all(term.dtype == torch.float32 for term in terms.values())


def test_another_teacher_can_be_given() -> None:
    restorer = tiny_restorer()
    codes = torch.zeros(2, 64, dtype=torch.long)
    terms = restorer.objective(teacher=lambda target: codes)(restorer, *pairs(0))
    expected = torch.nn.functional.cross_entropy(
        restorer.net.predict_codes(pairs(0)[0]).logits.flatten(0, 1), codes[0, :1].expand(128)
    )
    torch.testing.assert_close(terms["code"], 0.5 * expected)


def fusion_objective(restorer, **parts):
    parts = {"perceptual": lambda a, b: (a - b).square().mean((1, 2, 3))} | parts
    return restorer.objective(CODE_LOSSES["fusion"], **parts)


def test_the_fusion_learns_where_the_settings_say_so() -> None:
    restorer = tiny_restorer()
    before = {name: value.clone() for name, value in restorer.net.state_dict().items()}
    objective = fusion_objective(restorer, discriminator=UNetDiscriminatorSN(8), micro_batches=2)
    judge = objective.image.discriminator.conv9.weight.detach().clone()
    history = fine_tune(restorer, objective)
    assert changed_parts(restorer, before) == LEARNS | {"fuse_convs_dict"}
    assert not torch.equal(objective.image.discriminator.conv9.weight, judge)
    assert history.losses[-1].keys() == {"step", "feature", "code", "l1", "perceptual", "gan"}


def test_the_fusion_learns_beside_the_codes_and_not_instead() -> None:
    gradients = []
    for name in CODE_LOSSES:
        restorer = tiny_restorer()
        objective = restorer.objective() if name == "codes" else fusion_objective(restorer)
        sum(objective(restorer, *pairs(0)).values()).backward()
        gradients.append([p.grad for n, p in restorer.net.named_parameters() if n.split(".")[0] in LEARNS])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_fusion_sees_the_picture_of_its_fidelity() -> None:
    restorer = tiny_restorer()
    face, target = pairs(0)
    for fidelity in (0.5, 1.0):
        settings = replace(CODE_LOSSES["fusion"], fidelity=fidelity)
        found = restorer.objective(settings)(restorer, face, target)["l1"]
        torch.testing.assert_close(found, (restorer.net(face, fidelity, adain=False) - target).abs().mean() / 2)


def test_more_can_be_frozen() -> None:
    restorer = tiny_restorer()
    before = {name: value.clone() for name, value in restorer.net.state_dict().items()}
    frozen = (*CodeLossSettings().frozen, "encoder")
    fine_tune(restorer, restorer.objective(CodeLossSettings(frozen=frozen)))
    assert changed_parts(restorer, before) == LEARNS - {"encoder"}


def test_a_checkpoint_of_the_objective_holds_only_what_learns() -> None:
    restorer = tiny_restorer()
    assert not restorer.objective().state_dict()
    assert {key.split(".")[0] for key in fusion_objective(restorer).state_dict()} == {"image"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frozen": ("quantize",)}, "freeze"),
        ({"frozen": ("quantize", "generator", "tail")}, r"has no parts \['tail'\]"),
        ({"frozen": ("quantize", "generator")}, "both or neither"),
        ({"fidelity": 0.5}, "both or neither"),
        ({"fidelity": 1.5}, r"0\.\.1, got 1\.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    wrong: dict[str, float] | dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        CodeLossSettings(**wrong)


def test_a_compiled_restorer_is_refused() -> None:
    restorer = tiny_restorer()
    with pytest.raises(BadInput, match="which `compile` does not reach; leave it out"):
        restorer.objective(CodeLossSettings())(torch.compile(restorer, backend="eager"), *pairs(0))


def test_fidelity_of_a_restorer_is_checked() -> None:
    with pytest.raises(BadInput, match=r"0\.\.1, got -1"):
        CodeFormerSettings(fidelity=-1)


@torch.no_grad()
def test_the_restorer_runs_at_its_settings() -> None:
    restorer, face = tiny_restorer().eval(), pairs(0)[0]
    assert torch.equal(restorer(face), restorer.net(face, 0.5, adain=True))
    restorer.settings = CodeFormerSettings(fidelity=0.2, adain=False)
    assert torch.equal(restorer(face), restorer.net(face, 0.2, adain=False))


@torch.no_grad()
def test_a_restorer_comes_back_from_its_file(tmp_path: Path) -> None:
    restorer, face = tiny_restorer().eval(), pairs(0)[0]
    save_restorer(tmp_path / "tiny.safetensors", restorer)
    again = load_restorer(tmp_path / "tiny.safetensors")
    assert isinstance(again, CodeFormerRestorer)
    assert again.net.config == TINY
    assert torch.equal(again(face), restorer(face))


def test_its_configuration_is_json() -> None:
    config = tiny_restorer().config()
    assert json.loads(json.dumps(config)) == config
    assert RESTORERS["codeformer"]({"size": 32, **config}).net.config == TINY
    with torch.device("meta"):
        assert RESTORERS["codeformer"]({"size": 512}).net.config == CodeFormerConfig()


def test_another_configuration_is_refused() -> None:
    config = tiny_restorer().config()
    with pytest.raises(BadInput, match="has no depth"):
        RESTORERS["codeformer"](config | {"depth": 3})
    with pytest.raises(BadInput, match="has no depth"):
        RESTORERS["codeformer"](config | {"autoencoder": {"depth": 3}})
    with pytest.raises(BadInput, match="32 px faces, not 64 px"):
        RESTORERS["codeformer"]({**config, "size": 64})
