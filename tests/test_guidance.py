"""The guided chains of other papers, step by step as published, and what makes each of them the method it is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from networks import fake_prior, filled_unet
from recorded import arrays, fill_module, manifest, meta, noise, picture
from test_sampler import RecordedNoise, Watched, golden
from test_unet import UPDOWN32
from unfade.diffusion.guidance import DDA, DR2, ILVR, Guidance, PGDiff
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import ImageNoise, sample
from unfade.images.filters import low_pass
from unfade.nets.pgdiff_restorer import PGDiffRestorer, PGDiffRestorerConfig
from unfade.stages.methods import Inputs

PARITY = {"atol": 5e-5, "rtol": 0}
CHAIN_PARITY = {"atol": 1e-3, "rtol": 0}  # steps multiply what sums in another order differ by, on other processors
CHAINS = {
    "ilvr_r12_N4_rt0": lambda image: ILVR(image, factor=4, free_from=0),
    "dda_r20_N8_D4_s6": lambda image: DDA(image, 8, factor=4, scale=6),
    "dr2_r20_N4_w12_t7": lambda image: DR2(image, factor=4, begin=12, end=7),
    "pgdiff_ddpm10_s0.1_fixed": lambda image: PGDiff(lambda x_t, t: image),
    "pgdiff_ddpm10_s0.1_restorer": lambda image: PGDiff(Inputs(image, image, own_restorer()).own_target),
}


def own_restorer() -> PGDiffRestorer:
    return fill_module(PGDiffRestorer(PGDiffRestorerConfig(width=16, growth=8, blocks=2)))


@torch.no_grad()
def test_the_restorer_of_pgdiff_is_the_published_one() -> None:
    expected = golden("pgdiff_restorer_tiny")
    out = own_restorer()(expected["x"], expected["y"], expected["t"])
    torch.testing.assert_close(out, expected["out"], **PARITY)
    with torch.device("meta"):
        state = PGDiffRestorer().state_dict()
    tensors = manifest("pgdiff_restorer")["tensors"]
    assert [[key, list(value.shape)] for key, value in sorted(state.items())] == sorted([k, s] for k, s, _ in tensors)


@pytest.mark.parametrize("name", CHAINS)
def test_whole_chains_are_the_published_ones(name: str) -> None:
    expected, about = golden(name), meta(name)
    image = expected["ref"] if "ref" in expected else expected["y"]
    guidance = CHAINS[name](image)
    spacing = str(about.get("respacing", about.get("section"))).replace("ddpm", "ddim")  # every so many steps
    draws, update = RecordedNoise(about["noise_name"]), Watched("ddpm")
    network = filled_unet(UPDOWN32) if name.startswith("dr2") else filled_unet()
    prior = DiffusionPrior(network, 32, spacing=spacing)
    final = sample(prior, guidance, draws, image, update=update)
    index, t_model, x_t, x0, x_prev = zip(*update.seen, strict=True)

    assert list(index) == expected["index"].tolist()
    assert draws.draws == len(expected["noise"])
    torch.testing.assert_close(torch.cat(x_t).detach(), expected["x_in"], **CHAIN_PARITY)
    torch.testing.assert_close(torch.cat(x0).detach(), expected["pred_xstart"], **CHAIN_PARITY)
    if "x_uncond" in expected:
        torch.testing.assert_close(torch.cat(x_prev).detach(), expected["x_uncond"], **CHAIN_PARITY)
    last = next(expected[key] for key in ("final", "out", "x_guided", "x_out") if key in expected)
    torch.testing.assert_close(final, last[-1:], **CHAIN_PARITY)
    if "timestep_map" in expected:
        assert list(t_model) == [int(expected["timestep_map"][t]) for t in index]


def test_the_filter_with_zeros_around_is_the_published_one() -> None:
    expected = arrays("lpf_dda_resize_right")
    image = picture(64, 64, 7)
    for factor in (4, 8, 16, 32):
        key = f"64.D{factor}.lp"
        found = low_pass(image, factor, border="zero")
        assert found.shape == expected[key].shape
        if torch.allclose(found, torch.from_numpy(expected[key]), atol=2e-6):
            continue
        pytest.fail(f"D = {factor}: {(found - torch.from_numpy(expected[key])).abs().max()}")


def flat(value: float) -> Tensor:
    return torch.full((2, 3, 32, 32), float(value))


def test_each_image_of_dda_is_alone() -> None:
    """Published, the norm runs over the whole batch."""
    images = picture(32, 32, 1, count=2)
    prior = fake_prior(lambda x, t: 0.1 * x**2, spacing="20")
    together = sample(prior, DDA(images, 8), ImageNoise([1, 2]), images)
    alone = sample(prior, DDA(images[1:], 8), ImageNoise([2]), images[1:])
    torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=0)


def test_guided_images_keep_the_low_frequencies_of_the_photo() -> None:
    photo = picture(32, 32, 1)
    prior = fake_prior(lambda x, t: torch.zeros_like(x), spacing="20")
    for guidance in (ILVR(photo, factor=8, free_from=0), DR2(photo, factor=8, begin=12, end=2)):
        guided = sample(prior, guidance, ImageNoise([1]), photo)
        free = sample(prior, Guidance(), ImageNoise([1]), photo)
        near, far = ((low_pass(image.clamp(-1, 1) - photo, 8)).abs().mean() for image in (guided, free))
        assert near < 0.5 * far


def test_the_band_of_pgdiff_is_visited_several_times_with_limits_in_respaced_steps() -> None:
    guidance = PGDiff(lambda x_t, t: x_t, repeats=3, band=(5, 8))
    assert guidance.timesteps(10) == [9, 8, 7, 7, 7, 6, 6, 6, 5, 4, 3, 2, 1, 0]


def test_pgdiff_asks_its_target_of_the_original_step_and_moves_towards_it() -> None:
    asked: list[int] = []

    def target_of(x_t: Tensor, t: int) -> Tensor:
        asked.append(t)
        return flat(0.5)

    prior = fake_prior(lambda x, t: noise("eps", (2, 3, 32, 32)), spacing="20")
    strong, weak = (sample(prior, PGDiff(target_of, scale=scale), ImageNoise([1, 2]), flat(0)) for scale in (0.5, 0.0))
    assert asked[:20] == list(reversed(prior.schedule.t_model))
    assert (strong - 0.5).abs().mean() < (weak - 0.5).abs().mean()


@pytest.mark.parametrize(("begin", "end"), [(20, 7), (7, 7), (5, 7), (12, -1)])
def test_dr2_outside_of_its_schedule_is_refused(begin: int, end: int) -> None:
    with pytest.raises(ValueError, match="the respaced schedule has 20 steps"):
        DR2(flat(0), begin=begin, end=end).timesteps(20)


def test_ilvr_runs_free_below_its_limit() -> None:
    photo = flat(0)
    prior = fake_prior(lambda x, t: torch.zeros_like(x), spacing="20")
    free, bound = (ILVR(photo, factor=8, free_from=limit) for limit in (19, 0))
    runs = [sample(prior, guidance, ImageNoise([1, 2]), photo) for guidance in (free, Guidance(), bound)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert replace(free, free_from=18).timesteps(20) == list(reversed(range(20)))
