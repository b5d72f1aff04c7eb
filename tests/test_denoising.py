"""How a prior learns: the loss, the draws of steps and noise, and the score on held-out faces."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from networks import Answers, filled_unet
from recorded import noise, picture
from unfade.diffusion.denoising import WEIGHTINGS, Denoising, DenoisingSettings, denoising_score, draw_noising
from unfade.diffusion.prior import details
from unfade.diffusion.schedule import linear_betas
from unfade.errors import BadInput

SETTINGS = DenoisingSettings()
LIKE = torch.zeros(4000, 3, 1, 1)


def batch():
    return picture(32, 32, 1, count=3), torch.tensor([0, 400, 999]), noise("denoising", (3, 3, 32, 32))


def test_a_network_that_knows_the_noise_has_no_loss() -> None:
    x0, t, draw = batch()
    assert Denoising()(Answers(lambda x, t: draw), x0, t, draw) == {"denoising": 0}


def test_the_variance_is_not_trained() -> None:
    x0, t, draw = batch()
    answer = Answers(lambda x, t: torch.cat([draw, 100 + x], 1))
    assert Denoising()(answer, x0, t, draw)["denoising"] == 0


def test_the_loss_is_the_mean_squared_error_of_the_noise() -> None:
    x0, t, draw = batch()
    objective, off = Denoising(), torch.tensor([0.0, 1.0, 2.0])[:, None, None, None]
    wrong = Answers(lambda x, t: draw + off)
    torch.testing.assert_close(objective.per_image(wrong, x0, t, draw), torch.tensor([0.0, 1.0, 4.0]))
    torch.testing.assert_close(objective(wrong, x0, t, draw)["denoising"], torch.tensor(5 / 3))


def test_a_network_may_predict_v_instead() -> None:
    x0, t, draw = batch()
    alpha_bar = torch.from_numpy((1 - linear_betas()).cumprod()).float()[t][:, None, None, None]
    v = alpha_bar.sqrt() * draw - (1 - alpha_bar).sqrt() * x0
    error = Denoising("v")(Answers(lambda x, t: v), x0, t, draw)["denoising"]
    torch.testing.assert_close(error, torch.tensor(0.0), atol=1e-10, rtol=0)


def test_a_network_may_predict_the_details_of_the_clean_image() -> None:
    """Of the image and of the noise: means of 2 x 2 pixels and what they leave out, which add up again."""
    x0, t, draw = batch()
    torch.testing.assert_close(details(x0) + means(x0), x0)
    answer = means(draw) + details(x0)
    error = Denoising("details").per_image(Answers(lambda x, t: answer), x0, t, draw)
    torch.testing.assert_close(error, torch.zeros(3), atol=1e-7, rtol=0)
    alpha_bar = torch.from_numpy((1 - linear_betas()).cumprod()).float()[t]
    wrong = Denoising("details").per_image(Answers(lambda x, t: means(draw)), x0, t, draw)
    expected = details(x0).square().mean((1, 2, 3)) * alpha_bar / (1 - alpha_bar)
    torch.testing.assert_close(wrong, expected, rtol=1e-3, atol=0)


def means(image: Tensor) -> Tensor:
    """Each block of 2 x 2 pixels at its mean."""
    return (
        image.unflatten(2, (-1, 2))
        .unflatten(4, (-1, 2))
        .mean((3, 5), keepdim=True)
        .expand(-1, -1, -1, 2, -1, 2)
        .flatten(4, 5)
        .flatten(2, 3)
    )


def test_weighted_as_v_it_is_the_squared_error_of_v() -> None:
    x0, t, draw = batch()
    answer = picture(32, 32, 2, count=3)
    alpha_bar = torch.from_numpy((1 - linear_betas()).cumprod()).float()[t][:, None, None, None]
    v = alpha_bar.sqrt() * draw - (1 - alpha_bar).sqrt() * x0
    error = Denoising("v", "v")(Answers(lambda x, t: answer), x0, t, draw)["denoising"]
    torch.testing.assert_close(error, (answer - v).square().mean(), rtol=2e-3, atol=0)


def test_min_snr_weighs_little_noise_less() -> None:
    weights = WEIGHTINGS["min-snr"](torch.tensor([0.999, 5 / 6, 0.5, 0.01]))
    torch.testing.assert_close(weights, torch.tensor([5 * 0.001 / 0.999, 1.0, 1.0, 1.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_a_weighting_multiplies_the_error_of_each_image(name: str) -> None:
    x0, t, draw = batch()
    wrong = Answers(lambda x, t: draw + 1)
    alpha_bar = torch.from_numpy((1 - linear_betas()).cumprod()).float()[t]
    expected = WEIGHTINGS[name](alpha_bar).mean()
    torch.testing.assert_close(Denoising(weighting=name)(wrong, x0, t, draw)["denoising"], expected)


def test_an_unknown_weighting_is_named() -> None:
    with pytest.raises(BadInput, match="no weighting snr; there are: eps, v, min-snr"):
        DenoisingSettings(weighting="snr")


def test_the_network_sees_the_noised_image_at_its_step() -> None:
    x0, t, draw = batch()
    seen = []

    def answer(x: Tensor, t: Tensor):
        seen.extend([x, t])
        return x

    Denoising()(Answers(answer), x0, t, draw)
    alpha_bar = torch.from_numpy((1 - linear_betas()).cumprod())[t][:, None, None, None]
    expected = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * draw
    torch.testing.assert_close(seen[0], expected.float())
    assert torch.equal(seen[1], t)


def test_a_network_learns_from_it() -> None:
    net = filled_unet().requires_grad_(True)
    x0, t, draw = batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = Denoising()(net, x0, t, draw)["denoising"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_the_objective_adds_nothing_to_a_checkpoint() -> None:
    assert not Denoising().state_dict()


def test_draws_depend_on_seed_and_step_alone() -> None:
    like = torch.zeros(4, 3, 8, 8)
    t, draw = draw_noising(like, 7, seed=3, settings=SETTINGS)
    torch.randn(100)  # torch's own generator has no part in it
    again = draw_noising(like + 1, 7, seed=3, settings=SETTINGS)
    assert torch.equal(t, again[0])
    assert torch.equal(draw, again[1])
    for other in ({"step": 8, "seed": 3}, {"step": 7, "seed": 4}):
        assert not torch.equal(draw, draw_noising(like, settings=SETTINGS, **other)[1])
        assert not torch.equal(t, draw_noising(like, settings=SETTINGS, **other)[0])


def test_draws_have_the_shape_and_range_of_a_batch() -> None:
    t, draw = draw_noising(torch.zeros(64, 3, 8, 16), 0, seed=0, settings=SETTINGS)
    assert t.shape == (64,)
    assert t.dtype == torch.int64
    assert draw.shape == (64, 3, 8, 16)
    assert float(draw.std()) == pytest.approx(1, abs=0.02)
    every, _ = draw_noising(LIKE, 0, seed=0, settings=replace(SETTINGS, early_share=0))
    assert 0 <= int(every.min()) < 5
    assert 995 <= int(every.max()) < 1000


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("until", [200, 650])
def test_the_share_of_early_steps_is_as_set(share: float, until: int) -> None:
    settings = DenoisingSettings(early_until=until, early_share=share)
    t, _ = draw_noising(LIKE, 0, seed=0, settings=settings)
    expected = share + (1 - share) * until / 1000  # the others are drawn from all steps
    assert float((t < until).float().mean()) == pytest.approx(expected, abs=0.03)


class Nothing(nn.Module):
    """Predicts no noise at all."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor):
        return 0 * x


def test_predicting_nothing_scores_one_at_every_level() -> None:
    faces = list(picture(32, 32, 1, count=5))
    scores = denoising_score(faces)(Nothing())
    assert scores.keys() == {"held_out", *(f"held_out_t{level}" for level in (20, 100, 200, 350, 500, 650, 850))}
    assert all(value == pytest.approx(1, abs=0.03) for value in scores.values())


@torch.no_grad()
def test_the_score_is_the_same_each_time_and_a_mean_over_the_faces() -> None:
    faces, net = list(picture(32, 32, 1, count=3)), filled_unet()
    scores = denoising_score(faces)(net)
    assert denoising_score(faces)(net) == scores
    levels = [value for name, value in scores.items() if name != "held_out"]
    assert scores["held_out"] == pytest.approx(sum(levels) / 7)
    assert len(set(levels)) == 7
    assert denoising_score(faces[:2])(net) != scores
