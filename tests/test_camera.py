"""Eq. 10: the published numbers, and what a draw, a sensor and each stage promise."""

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

from recorded import arrays, image_u8, picture
from unfade.degradations.camera import (
    CAMERA_PRESETS,
    CameraDraw,
    CameraSettings,
    add_noise,
    camera,
    downsample,
    draw_camera,
    enlarge,
    expose,
    mosaic,
    normalise,
    render,
    sensor_size,
    unprocess,
)
from unfade.degradations.demosaic import DEMOSAIC, GRBG
from unfade.degradations.sensor import PHONE, Sensor
from unfade.errors import BadInput


def one_draw(seed: int = 1, *, size: int = 64, **changes):
    return draw_camera(np.random.default_rng(seed), size=size, settings=CameraSettings(**changes))


def recorded_draw(golden: dict[str, np.ndarray]):
    return replace(
        one_draw(iso=3000),
        shot=tuple(golden["noise_params"][:, 0].tolist()),
        read=tuple(golden["noise_params"][:, 1].tolist()),
        illuminant=tuple(golden["illuminant_rgb"].tolist()),
        matrix=golden["ccm_used"].tolist(),
    )


@pytest.fixture(scope="module")
def golden():
    return arrays("camera_iso3000_x4")


def test_stages_up_to_the_mosaic_are_the_published_ones(golden: dict[str, np.ndarray]) -> None:
    draw = recorded_draw(golden)
    linear = unprocess(image_u8(256, 256, 13) / 255.0, draw)
    np.testing.assert_allclose(linear[:16, :16], golden["linear_camera_hr_rgb_patch"], rtol=0, atol=1e-6)
    small = downsample(linear, draw.scale)
    np.testing.assert_allclose(small, golden["linear_camera_lr_rgb"], rtol=0, atol=1e-6)
    raw = expose(mosaic(small), draw)
    np.testing.assert_allclose(raw, golden["raw_clean"], rtol=0, atol=1e-4)
    noisy = add_noise(raw, draw, golden["standard_normal"])
    np.testing.assert_allclose(noisy, golden["raw_noisy"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(normalise(noisy, draw), golden["mosaic_rgb"].sum(axis=2), rtol=0, atol=1e-6)


def test_demosaicing_is_the_published_one(golden: dict[str, np.ndarray]) -> None:
    plane = golden["mosaic_rgb"].sum(axis=2)
    np.testing.assert_allclose(DEMOSAIC["bilinear"](plane), golden["demosaic_bilinear_rgb"], rtol=0, atol=1e-6)
    inside = np.s_[1:-1, 1:-1]  # the border is better than the recorded one, see demosaic.py
    ours, theirs = DEMOSAIC["edge-aware"](plane), golden["demosaic_opencv_ea_rgb"]
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=0, atol=1e-4)


def test_rendering_is_the_published_one(golden: dict[str, np.ndarray]) -> None:
    photo = render(golden["demosaicnet_rgb"], recorded_draw(golden))
    np.testing.assert_allclose(photo, golden["rendered_lr_rgb"], rtol=0, atol=1e-6)
    levels = np.rint(enlarge(photo, 512, 512) * 255)  # recorded at 512 px, from a picture of 256
    np.testing.assert_array_less(np.abs(levels[::2, ::2] - golden["final_u8_rgb_every2"]), 1.5)
    bilinear = enlarge(render(golden["demosaic_bilinear_rgb"], recorded_draw(golden)), 512, 512)
    np.testing.assert_array_less(np.abs(bilinear[::4, ::4] * 255 - golden["final_bilinear_u8_rgb"]), 1.5)


def test_the_whole_is_its_stages(golden: dict[str, np.ndarray]) -> None:
    draw = replace(recorded_draw(golden), demosaic="bilinear")
    truth = torch.from_numpy(image_u8(256, 256, 13).astype(np.float32) / 255).permute(2, 0, 1) * 2 - 1
    face = camera(truth, draw, normal=golden["standard_normal"])
    expected = enlarge(render(golden["demosaic_bilinear_rgb"], draw), 256, 256)
    np.testing.assert_allclose(((face + 1) / 2).permute(1, 2, 0).numpy(), expected, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("preset", sorted(CAMERA_PRESETS))
def test_a_draw_is_the_whole_recipe(preset: str) -> None:
    truth = picture(64, 64, 5)[0]
    draw = draw_camera(np.random.default_rng(3), size=64, settings=CAMERA_PRESETS[preset])
    again = CameraDraw(**json.loads(json.dumps(asdict(draw))))
    assert again == draw
    face = camera(truth, draw)
    assert face.shape == truth.shape
    assert face.dtype == torch.float32
    assert torch.equal(face, camera(truth, again))
    levels = (face + 1) / 2 * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_harder_presets_are_harder() -> None:
    truth = picture(128, 128, 5)[0]
    errors = []
    for preset in ("mild", "moderate", "severe"):
        draw = draw_camera(np.random.default_rng(0), size=128, settings=CAMERA_PRESETS[preset])
        errors.append(float((camera(truth, draw) - truth).square().mean()))
    assert errors == sorted(errors)


@pytest.mark.parametrize("level", [150.0, 300.0, 450.0, 600.0, 800.0])
def test_noise_follows_the_curve(level: float) -> None:
    draw = one_draw(iso=800)
    raw = np.full((640, 640), level)
    noisy = add_noise(raw, draw)
    for (row, column, _), shot, read in zip(GRBG, draw.shot, draw.read, strict=True):
        assert noisy[row::2, column::2].var() == pytest.approx(shot * level + read, rel=0.03)
    assert noisy.mean() == pytest.approx(level, abs=0.5)


def test_negative_variance_is_none_and_noise_stays_on_the_scale() -> None:
    draw = one_draw(iso=3000)
    assert (add_noise(np.full((16, 16), 20.0), draw) == 20.0).all()
    noisy = add_noise(np.full((256, 256), 1000.0), draw)
    assert noisy.min() > 0
    assert noisy.max() == draw.white


@pytest.mark.parametrize("seed", range(5))
def test_unprocess_and_render_return_the_picture(seed: int) -> None:
    draw = one_draw(seed)
    shown = picture(64, 64, seed)[0].permute(1, 2, 0).double().add(1).div(2).numpy()
    linear = unprocess(shown, draw)
    balanced = linear / np.array(draw.illuminant)
    unclipped = ((linear > 0) & (linear < 1) & (balanced > 0) & (balanced < 1)).all(axis=2)
    assert unclipped.mean() > 0.3
    assert np.abs(render(linear, draw) - shown)[unclipped].max() < 2 / 255


def test_a_flat_picture_without_noise_returns() -> None:
    truth = torch.full((3, 64, 64), 0.1)
    draw = one_draw()
    face = camera(truth, draw, normal=np.zeros((16, 16)))
    assert (face - truth).abs().max() < 2 * 2 / 255


@pytest.mark.parametrize(
    "name", sorted(DEMOSAIC.keys() - {"learned"})
)  # a trained network is not exact on flat colours
@pytest.mark.parametrize("shape", [(16, 16), (15, 16), (16, 15), (17, 17), (2, 2), (3, 2)])
def test_flat_colours_survive_the_mosaic_at_all_four_corners(name: str, shape: tuple[int, ...]) -> None:
    colour = np.array([0.8, 0.5, 0.2])
    linear = np.broadcast_to(colour, (*shape, 3))
    rgb = DEMOSAIC[name](normalise(expose(mosaic(linear), one_draw()), one_draw()))
    assert rgb.shape == (*shape, 3)
    for corner in (rgb[0, 0], rgb[0, -1], rgb[-1, 0], rgb[-1, -1]):
        np.testing.assert_allclose(corner, colour, atol=2e-4)
    np.testing.assert_allclose(rgb, linear, atol=2e-4)


@pytest.mark.parametrize("shape", [(6, 6), (7, 6), (6, 7), (7, 7)])
def test_the_mosaic_starts_green_red_blue_green(shape: tuple[int, ...]) -> None:
    linear = np.broadcast_to(np.array([0.0, 1.0, 2.0]), (*shape, 3))
    plane = mosaic(linear)
    tile = np.array([[1.0, 0.0], [2.0, 1.0]])
    for row in (0, shape[0] - 1):
        for column in (0, shape[1] - 1):
            assert plane[row, column] == tile[row % 2, column % 2]


def test_odd_and_oblong_pictures_keep_their_shape() -> None:
    for height, width in ((50, 71), (9, 8)):
        assert camera(picture(height, width, 2)[0], one_draw()).shape == (3, height, width)
    assert sensor_size(71, 50, 4) == (17, 12)


def test_illuminants_are_within_the_bounds_and_vary() -> None:
    rng = np.random.default_rng(0)
    lights = np.array([PHONE.draw_illuminant(rng) for _ in range(500)])
    assert (lights[:, 1] == 1).all()
    assert (lights[:, [0, 2]] > PHONE.illuminant_low).all()
    assert (lights[:, [0, 2]] < PHONE.illuminant_high).all()
    assert np.corrcoef(lights[:, 0], lights[:, 2])[0, 1] < -0.5
    np.testing.assert_allclose(lights[:, [0, 2]].mean(axis=0), PHONE.illuminant_mean, atol=0.06)


def test_noise_is_the_table_at_calibrated_isos_and_smooth_between() -> None:
    for iso, shot, read in zip(PHONE.isos, PHONE.shot, PHONE.read, strict=True):
        np.testing.assert_allclose(PHONE.noise(iso), (shot, read), rtol=1e-9)
    shot, read = PHONE.noise(1000)
    np.testing.assert_allclose(shot, np.mean([PHONE.shot[3], PHONE.shot[4]], axis=0))
    assert all(low < value < high for low, value, high in zip(PHONE.read[4], read, PHONE.read[3], strict=True))


def test_the_cubic_returns_cubics() -> None:
    isos = np.array([1.0, 2.0, 4.0, 5.0, 7.0, 9.0])
    cubic = [[x**3 - 4 * x**2 + x - 2] * 4 for x in isos]
    sensor = replace(PHONE, isos=isos.tolist(), shot=cubic, read=cubic)
    np.testing.assert_allclose(sensor.noise(6.0)[1], 6.0**3 - 4 * 36 + 6 - 2)
    two = replace(PHONE, isos=(100, 300), shot=PHONE.shot[:2], read=PHONE.read[:2])
    np.testing.assert_allclose(two.noise(200)[1], np.mean(PHONE.read[:2], axis=0))


def test_a_sensor_goes_through_json() -> None:
    assert Sensor(**json.loads(json.dumps(asdict(PHONE)))) == PHONE


OTHER = {
    "iso": 800,
    "scale": 2,
    "demosaic": "bilinear",
    "gamma": 1.8,
    "sensor": replace(PHONE, black=16),
}


@pytest.mark.parametrize("name", [field.name for field in fields(CameraSettings)])
def test_every_setting_has_an_effect(name: str) -> None:
    truth = picture(64, 64, 6)[0]
    assert not torch.equal(camera(truth, one_draw()), camera(truth, one_draw(**{name: OTHER[name]})))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("black", 100),
        ("white", 900),
        ("shot", [[2 * number for number in row] for row in PHONE.shot]),
        ("read", [[2 * number for number in row] for row in PHONE.read]),
        ("illuminant_mean", (0.5, 0.4)),
        ("illuminant_covariance", ((1e-4, 0.0), (0.0, 1e-4))),
        ("illuminant_low", (0.7, 0.3)),
        ("illuminant_high", (0.6, 0.650572)),
        ("matrix", np.eye(3).tolist()),
    ],
)
def test_every_number_of_a_sensor_has_an_effect(name: str, value: float) -> None:
    truth = picture(64, 64, 6)[0]
    faces = []
    for sensor in (PHONE, replace(PHONE, **{name: value})):
        rng = np.random.default_rng(2)
        faces += [
            torch.stack(
                [camera(truth, draw_camera(rng, size=64, settings=CameraSettings(sensor=sensor))) for _ in range(4)]
            )
        ]
    assert not torch.equal(*faces)


def test_the_noise_seed_is_the_noise() -> None:
    truth, draw = picture(64, 64, 6)[0], one_draw()
    assert not torch.equal(camera(truth, draw), camera(truth, replace(draw, noise_seed=draw.noise_seed + 1)))


@pytest.mark.parametrize("iso", [99, 3201])
def test_an_uncalibrated_iso_is_refused_and_the_range_is_named(iso: int) -> None:
    with pytest.raises(BadInput, match="100 to 3200"):
        CameraSettings(iso=iso)


def test_what_cannot_be_photographed_is_refused() -> None:
    with pytest.raises(BadInput, match="at least 8 x 8 pixels for scale 4"):
        one_draw(size=7)
    with pytest.raises(BadInput, match="at least 8 x 8 pixels for scale 4, got 20 x 7"):
        camera(picture(7, 20, 1)[0], one_draw())
    with pytest.raises(BadInput, match="one picture"):
        camera(picture(64, 64, 1), one_draw())
    with pytest.raises(BadInput, match="normal numbers"):
        camera(picture(64, 64, 1)[0], one_draw(), normal=np.zeros((4, 4)))


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"demosaic": "magic"}], ids=str)
def test_impossible_settings_are_refused(wrong: dict[str, int] | dict[str, str]) -> None:
    with pytest.raises(BadInput):
        CameraSettings(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"shot": PHONE.shot[:3]}, {"isos": PHONE.isos[::-1]}, {"black": 2000}],
    ids=["rows", "order", "levels"],
)
def test_impossible_sensors_are_refused(wrong) -> None:
    with pytest.raises(BadInput, match="phone"):
        replace(PHONE, **wrong)


def test_a_sensor_that_lets_no_light_in_is_refused() -> None:
    dark = replace(PHONE, illuminant_low=(5.0, 5.0), illuminant_high=(6.0, 6.0))
    with pytest.raises(BadInput, match="1000 draws"):
        dark.draw_illuminant(np.random.default_rng(0))
