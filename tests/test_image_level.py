"""Image-level restorers and their losses: parity with one step of the published fine-tuning, and identities."""

import copy
import io
import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from recorded import arrays, fill_module, picture
from unfade.errors import BadCheckpoint, BadInput
from unfade.nets.discriminator import UNetDiscriminatorSN
from unfade.nets.lpips import LPIPS, lpips_state, trunk_keys
from unfade.nets.swinir import SwinIR, SwinIRConfig
from unfade.restorers.image_level import (
    ImageLossSettings,
    ImageObjective,
    SwinIRRestorer,
    from_unit,
    to_unit,
)
from unfade.restorers.load import RESTORERS

TINY = SwinIRConfig(img_size=16, embed_dim=24, depths=(2, 2), heads=2, unshuffle=4, upscale=4, drop_path=0.0)
VARIANTS = {  # name: (micro-batches, clean faces as real, LPIPS)
    "A_l1_gan": (1, False, False),
    "B_l1_gan_sepreal": (1, True, False),
    "D_l1_lpips_gan": (1, True, True),
    "E_micro1_fixed": (2, True, False),
}
LR = 2e-5


def golden_step() -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(value) for key, value in arrays("finetune_swinir_step").items() if value.dtype.kind == "f"
    }


def filled_lpips() -> LPIPS:
    net = fill_module(LPIPS())
    vgg16 = {theirs: net.state_dict()[ours] for ours, theirs in trunk_keys().items()}
    heads = {key: torch.from_numpy(value) for key, value in arrays("lpips_vgg_heads").items()}
    net.load_state_dict(lpips_state(vgg16, heads))
    return net


def tiny_restorer() -> SwinIRRestorer:
    return SwinIRRestorer(fill_module(SwinIR(TINY)), size=64).train()


def tiny_discriminator() -> UNetDiscriminatorSN:
    return fill_module(UNetDiscriminatorSN(16)).train()


def pixel_distance(restored: Tensor, target: Tensor) -> Tensor:
    return (restored - target).square().mean((1, 2, 3))


def step(
    restorer: nn.Module, objective: ImageObjective, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, ...]]
) -> list[dict[str, float]]:
    """One optimiser step over micro-batches, as the training loop takes it; the values of each micro-batch."""
    values = []
    optimizer.zero_grad()
    for batch in batches:
        (sum(objective(restorer, *batch).values()) / len(batches)).backward()
        objective.after_backward()
        values.append({name: float(value) for name, value in objective.monitored.items()})
    optimizer.step()
    objective.after_step()
    return values


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


class Frozen(ImageObjective):
    """Keeps the discriminator's gradients for the test to look at."""

    def after_step(self) -> None:
        self.kept = gradients(self.discriminator)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_step_is_the_published_one(variant) -> None:
    golden = golden_step()
    count, clean, perceptual = VARIANTS[variant]
    restorer, discriminator = tiny_restorer(), tiny_discriminator()
    settings = ImageLossSettings(perceptual_weight=0.1 * 2)  # published: summed over its micro-batch of 2
    objective = Frozen(
        settings,
        perceptual=filled_lpips() if perceptual else None,
        discriminator=discriminator,
        micro_batches=count,
    )
    names = ("lq", "gt", "gan_gt") if clean else ("lq", "gt")
    batches = list(zip(*(from_unit(golden[name]).chunk(count) for name in names), strict=True))
    before = copy.deepcopy(restorer.net.state_dict())
    seen = step(restorer, objective, torch.optim.AdamW(restorer.parameters(), lr=LR, weight_decay=0.0), batches)

    theirs = {"l1": "L1", "perceptual": "lpips", "gan": "gan", "d_real": "l_d_real", "d_fake": "l_d_fake"}
    for i, values in enumerate(seen):
        assert ("perceptual" in values) == perceptual
        for name, value in values.items():
            assert value == pytest.approx(float(golden[f"{variant}.micro{i}.{theirs[name]}"]), abs=1e-5), name
    check_gradients(golden, f"{variant}.G", gradients(restorer.net))
    check_gradients(golden, f"{variant}.D", objective.kept)
    after = restorer.net.state_dict()
    for key in (key for key in golden if key.startswith(f"{variant}.G.step.")):
        name = key.removeprefix(f"{variant}.G.step.")
        assert float((after[name] - before[name]).abs().sum()) == pytest.approx(float(golden[key]), rel=1e-3), name
    u = golden[f"{variant}.D.conv1.weight_u_after"]  # three power iterations per micro-batch
    torch.testing.assert_close(discriminator.conv1.weight_u, u, atol=1e-5, rtol=0)


def check_gradients(golden: dict[str, Tensor], prefix: str, ours: dict[str, Tensor]) -> None:
    total = torch.stack([gradient.double().square().sum() for gradient in ours.values()]).sum().sqrt()
    assert float(total) == pytest.approx(float(golden[f"{prefix}.grad_norm_total"]), rel=1e-3)
    for key in (key for key in golden if key.startswith(f"{prefix}.grad_norm.")):
        gradient = ours[key.removeprefix(f"{prefix}.grad_norm.")]
        assert float(gradient.norm()) == pytest.approx(float(golden[key]), rel=1e-3), key
    for key in (key for key in golden if key.startswith(f"{prefix}.grad.")):
        scale = float(golden[key].abs().max())
        torch.testing.assert_close(ours[key.removeprefix(f"{prefix}.grad.")], golden[key], atol=1e-3 * scale, rtol=0)


def test_restored_is_the_published_one() -> None:
    golden = golden_step()
    restored = to_unit(tiny_restorer()(from_unit(golden["lq"])))
    torch.testing.assert_close(restored.detach(), golden["A_l1_gan.hq_pred"], atol=2e-5, rtol=0)


def test_without_clean_faces_the_targets_are_real() -> None:
    face, target = picture(64, 64, 1, count=2), picture(64, 64, 5, count=2)
    values = []
    for batch in ((face, target), (face, target, target)):
        objective = ImageObjective(discriminator=tiny_discriminator())
        restorer = tiny_restorer()
        values.append(step(restorer, objective, torch.optim.SGD(restorer.parameters(), lr=0.1), [batch]))
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, {"l1", "perceptual", "gan"}),
        ({"gan_weight": 0.0}, {"l1", "perceptual"}),
        ({"perceptual_weight": 0.0}, {"l1", "gan"}),
        ({"l1_weight": 0.0}, {"perceptual", "gan"}),
        ({"texture_weight": 0.2}, {"l1", "perceptual", "gan", "texture"}),
    ],
)
def test_a_term_of_weight_zero_is_absent(weights, expected) -> None:
    objective = ImageObjective(
        replace(ImageLossSettings(), **weights), perceptual=pixel_distance, discriminator=tiny_discriminator()
    )
    face = picture(64, 64, 1)
    assert set(objective(tiny_restorer(), face, face)) == expected
    assert bool(objective.get_extra_state()) == ("gan" in expected)


def test_a_term_without_its_part_is_absent() -> None:
    face = picture(64, 64, 1)
    assert set(ImageObjective()(tiny_restorer(), face, face)) == {"l1"}


@torch.no_grad()
def test_weights_scale_their_terms() -> None:
    face, target = picture(64, 64, 1), picture(64, 64, 5)
    once, twice = (
        ImageObjective(ImageLossSettings(w, w, w), perceptual=pixel_distance, discriminator=tiny_discriminator())(
            tiny_restorer(), face, target
        )
        for w in (1.0, 2.0)
    )
    assert all(float(twice[name]) == pytest.approx(2 * float(once[name])) for name in once)


def test_the_perceptual_term_does_not_depend_on_the_micro_batch() -> None:
    objective = ImageObjective(ImageLossSettings(gan_weight=0), perceptual=pixel_distance)
    face, target = picture(64, 64, 1, count=2), picture(64, 64, 5, count=2)
    with torch.no_grad():
        whole = objective(tiny_restorer(), face, target)
        parts = [objective(tiny_restorer(), face[i : i + 1], target[i : i + 1]) for i in range(2)]
    for name, value in whole.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)


def test_the_restorers_pass_leaves_the_discriminator_alone() -> None:
    objective = ImageObjective(discriminator=tiny_discriminator())
    sum(objective(tiny_restorer(), picture(64, 64, 1), picture(64, 64, 5)).values()).backward()
    assert not gradients(objective.discriminator)
    objective.after_backward()
    assert len(gradients(objective.discriminator)) == len(list(objective.discriminator.parameters()))
    objective.after_step()
    assert not gradients(objective.discriminator)


@torch.no_grad()
def test_validation_changes_nothing() -> None:
    objective = ImageObjective(discriminator=tiny_discriminator()).eval()
    before = copy.deepcopy(objective.discriminator.state_dict())
    objective(tiny_restorer(), picture(64, 64, 1), picture(64, 64, 5))
    objective.after_backward()
    objective.after_step()
    assert all(torch.equal(value, before[key]) for key, value in objective.discriminator.state_dict().items())


def test_a_resumed_objective_equals_one_that_went_on() -> None:
    batch = (picture(64, 64, 1, count=2), picture(64, 64, 5, count=2))

    def optimizer(restorer):
        return torch.optim.SGD(restorer.parameters(), lr=0.1)

    restorer, objective = tiny_restorer(), ImageObjective(discriminator=tiny_discriminator())
    step(restorer, objective, optimizer(restorer), [batch])
    file = io.BytesIO()
    torch.save([restorer.state_dict(), objective.state_dict()], file)
    went_on = step(restorer, objective, optimizer(restorer), [batch])

    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed_restorer, resumed = tiny_restorer(), ImageObjective(discriminator=UNetDiscriminatorSN(16))
    resumed_restorer.load_state_dict(weights)
    resumed.load_state_dict(state)
    assert step(resumed_restorer, resumed, optimizer(resumed_restorer), [batch]) == went_on
    for one, other in ((restorer, resumed_restorer), (objective.discriminator, resumed.discriminator)):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_an_objective_without_discriminator_does_not_go_on_as_an_adversarial_one() -> None:
    with pytest.raises(BadCheckpoint, match="resume with the settings"):
        ImageObjective(discriminator=tiny_discriminator()).set_extra_state(ImageObjective().get_extra_state())


def test_only_what_learns_is_in_the_objectives_checkpoint() -> None:
    objective = ImageObjective(perceptual=filled_lpips(), discriminator=tiny_discriminator())
    names = {key.split(".")[0] for key in objective.state_dict()}
    assert names == {"discriminator", "_extra_state"}


def test_frozen_parts_are_not_trainable() -> None:
    restorer = tiny_restorer()
    assert restorer.trainable() == list(restorer.parameters())
    restorer.frozen = ("net.layers", "net.conv_up1")
    kept = {name for name, p in restorer.named_parameters() if any(p is q for q in restorer.trainable())}
    assert "net.conv_up2.weight" in kept
    assert not any(name.startswith(("net.layers.", "net.conv_up1.")) for name in kept)


def test_frozen_parts_stay_identical() -> None:
    restorer = tiny_restorer()
    restorer.frozen = ("net.layers",)
    before = copy.deepcopy(restorer.state_dict())
    batch = (picture(64, 64, 1), picture(64, 64, 5))
    step(restorer, restorer.objective(), torch.optim.AdamW(restorer.trainable(), lr=1e-3), [batch])
    changed = {key for key, value in restorer.state_dict().items() if not torch.equal(value, before[key])}
    assert "net.conv_last.weight" in changed
    assert not any(key.startswith("net.layers.") for key in changed)


def test_a_restorer_is_rebuilt_from_its_json() -> None:
    restorer = tiny_restorer().eval()
    again = RESTORERS["swinir"]({"size": restorer.size, **json.loads(json.dumps(restorer.config()))}).eval()
    again.load_state_dict(restorer.state_dict())
    face = picture(64, 64, 1)
    assert torch.equal(again(face), restorer(face))
    with pytest.raises(BadInput, match="colour"):
        RESTORERS["swinir"]({"size": 64, **restorer.config(), "colour": 1})


def test_a_restorer_keeps_the_size() -> None:
    with pytest.raises(BadInput, match="make them equal"):
        SwinIRRestorer(SwinIR(replace(TINY, upscale=8)), size=64)


def test_unit_range_and_back() -> None:
    face = picture(8, 8, 1)
    torch.testing.assert_close(from_unit(to_unit(face)), face)
