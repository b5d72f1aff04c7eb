"""Trust maps: the quantile by its definition, coverage of faces like those calibrated on, and where maps are zero."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import unfade.recipes.trust
import unfade.recipes.tuning
from adapt_settings import small
from command import Result
from marked import Dimmer, Place, in_colour, load, scene
from marked import save as save_photo
from recorded import fill_module, picture
from tiny_models import RESTORER, write_faces
from unfade.degradations.fitted import FittedDegradation, fit
from unfade.errors import BadInput
from unfade.faces.trust import (
    CELLS,
    FEATURES,
    LEVEL,
    SCALE,
    Calibration,
    Trust,
    calibrated,
    conformal_quantile,
    errors,
    evidence,
    quantile_regression,
    transferred,
)
from unfade.images.enlarge import enlarged
from unfade.nets.damage import DamageNet
from unfade.nets.swinir import SwinIR
from unfade.recipes.adapt import adapt
from unfade.recipes.restore import RestoreSettings, load_restoration, restore
from unfade.recipes.trust import KEY, calibration_begun, calibration_of, put_in_card, recalibration_of, trust_for
from unfade.restorers.image_level import SwinIRRestorer
from unfade.restorers.load import loaded_restorer, loaded_restorers, save_restorer
from unfade.stages.restore_photos import Parts
from unfade.stages.trust_maps import GREY, MAP
from unfade.stages.video import NO_MAP
from unfade.stages.views import overlaid
from unfade.store.checkpoints import card_path, write_card

Models = tuple[Path, Path]
FLAT = Calibration((0.0,) * (FEATURES - 7) + (1.0,) + (0.0,) * 6, 1.0, {}, "", 9, "none")  # e^2 - 1 = 6.4 everywhere
BOUND = float(np.expm1(2.0))


@pytest.fixture(scope="module")
def damage() -> DamageNet:
    torch.manual_seed(0)
    return DamageNet().eval()


def trust(damage: DamageNet, size: int = 32) -> Trust:
    return Trust(damage, {size: FLAT}, {})


def coloured(place: Place) -> None:
    """A photo in colour with one face."""
    save_photo(place.photos / "a.png", in_colour(scene((20, 15, 24))))


# The numbers


def test_the_quantile_is_the_one_of_its_definition() -> None:
    scores = torch.arange(1.0, 101.0)[torch.randperm(100)].reshape(20, 5)
    level = LEVEL * 21 / 20  # each of 20 faces counts for 1 / 21, and the new one for the rest
    assert conformal_quantile(scores) == np.ceil(level * 100)
    assert (scores <= conformal_quantile(scores)).float().mean() * 20 / 21 >= LEVEL
    assert conformal_quantile(torch.arange(9.0)[:, None]) == 8, "the largest of nine, the fewest that are enough"
    with pytest.raises(BadInput, match="at least 9 faces, got 8"):
        conformal_quantile(torch.zeros(8, 5))


def test_the_regression_finds_a_known_quantile() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(0, 1, 20_000)).float()
    spread = 0.5 + x  # grows: no shift of the mean has the same share below it everywhere
    wanted = 2 + 3 * x + spread * torch.from_numpy(rng.standard_normal(20_000)).float()
    weights = quantile_regression(torch.stack([torch.ones_like(x), x], 1), wanted)
    assert weights.tolist() == pytest.approx([2 + 0.5 * 1.2816, 3 + 1.2816], abs=0.06)


def drawn(count: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Evidence (K, 40, 2) and errors (K, 40) whose regions share what is peculiar to their face."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (count, 40))
    logs = 1 + x + 0.3 * rng.standard_normal((count, 1)) + 0.2 * rng.standard_normal((count, 40)) + np.log(scale)
    found = torch.from_numpy(np.stack([np.ones_like(x), x], -1)).float()
    return found, torch.from_numpy(np.expm1(logs)).float()


def covered(calibration: Calibration, seen: tuple[Tensor, Tensor]) -> float:
    found, wanted = seen
    return float((wanted <= calibration.bounds(found)).float().mean())


def test_new_faces_like_the_ones_calibrated_on_are_covered() -> None:
    shares = [covered(calibrated(drawn(60, seed), FLAT), drawn(60, 1000 + seed)) for seed in range(40)]
    assert np.mean(shares) == pytest.approx(LEVEL + LEVEL / 40, abs=0.015), "40 of 60 are for the factor"
    made = calibrated(drawn(600, 0), FLAT)
    assert (made.faces, len(made.weights)) == (400, 2)
    assert covered(made, drawn(600, 1)) == pytest.approx(LEVEL, abs=0.02)


def test_a_transfer_raises_bounds_with_the_errors_and_never_lowers_them() -> None:
    """Errors of a half more, seen on easier faces than those that count."""
    before, easy = calibrated(drawn(600, 0), FLAT), drawn(60, 1, scale=0.5)
    after = transferred(before, easy, drawn(60, 1, scale=0.5 * 1.5))
    assert after.factor - before.factor == pytest.approx(np.log(1.5), abs=0.01)
    assert covered(after, drawn(600, 2, scale=1.5)) == pytest.approx(LEVEL, abs=0.02)
    assert transferred(before, easy, drawn(60, 1, scale=0.3)) == before


def test_errors_are_means_over_regions_in_grey_levels() -> None:
    truth = torch.zeros(1, 3, 32, 32)
    result = truth.clone()
    result[0, 0, :2, :2] = 30 / 127.5  # one of three channels in the first of the regions, which are 2 x 2 px here
    found = errors(result, truth)
    assert found.shape == (1, CELLS**2)
    assert float(found[0, 0]) == pytest.approx(10)
    assert float(found[0, 1:].abs().max()) == 0


def test_evidence_is_of_each_face_alone_and_the_same_for_its_mirror_image(damage: DamageNet) -> None:
    face, result = (torch.stack([picture(64, 64, seed + i)[0] for i in (0, 1)]) for seed in (1, 5))
    found = evidence(face, result, damage)
    assert found.shape == (2, CELLS**2, FEATURES)
    torch.testing.assert_close(evidence(face[1:], result[1:], damage), found[1:], atol=1e-4, rtol=1e-4)
    places = found[..., -7:].reshape(2, CELLS, CELLS, 7)
    torch.testing.assert_close(places, places.flip(2))


# Maps


def test_a_map_is_zero_where_nothing_was_changed_and_falls_with_the_strength(damage: DamageNet) -> None:
    face, result = picture(32, 32, 1)[0], picture(32, 32, 2)[0]
    made = trust(damage)
    assert torch.equal(made.bounds(face, face.clone()), torch.zeros(CELLS, CELLS))
    assert torch.equal(made.map_of(face, face.clone(), 1.0), -torch.ones(3, 32, 32))
    for strength in (1.0, 0.5, 0.0):
        levels = (made.map_of(face, result, strength) + 1) * 127.5
        torch.testing.assert_close(levels, torch.full((3, 32, 32), SCALE * strength * BOUND), atol=1e-3, rtol=0)


def test_a_map_lies_where_its_face_does(tmp_path: Path, damage: DamageNet) -> None:
    place = Place(tmp_path)
    coloured(place)
    place.save("bare.png", seed=3)
    (done, bare) = place.run(parts=Parts(trust=trust(damage)), copy=True)
    assert (done.outputs, bare.outputs) == (("a.png", f"a.png{MAP}"), ("bare.png",))
    laid, result, photo = (load(tmp_path / name) for name in (f"out/a.png{MAP}", "out/a.png", "photos/a.png"))
    assert laid.shape == photo.shape[:2]
    assert laid.max() == round(SCALE * BOUND)
    assert ((result != photo).any(-1) & (laid > 0)).any()
    assert laid[:, 80:].max() == 0, "outside the square"
    place.run(parts=Parts(trust=trust(damage)), copy=True, scale=1, sidecar=True)
    assert f"a.png{MAP}" in place.written()
    place.run(copy=True)
    assert f"a.png{MAP}" not in place.written(), "a run without maps takes them away"


def test_a_map_is_as_large_as_its_result_and_follows_the_mask(tmp_path: Path, damage: DamageNet) -> None:
    place = Place(tmp_path)
    coloured(place)

    def upper_half(face: Tensor) -> Tensor:
        return (torch.arange(32) < 16).float()[None, :, None].expand(1, 32, 32)

    place.run(scale=2, parts=Parts(enlarge=partial(enlarged, scale=2), trust=trust(damage)))
    large = load(place.out / f"a.png{MAP}")
    assert large.shape == (120, 180)
    place.run(parts=Parts(mask=upper_half, trust=trust(damage)))
    masked = load(place.out / f"a.png{MAP}")
    assert large[60:, :].max() == masked[:28].max() == round(SCALE * BOUND)
    assert masked[35:].max() == 0


def test_a_film_gets_a_sentence(tmp_path: Path, damage: DamageNet) -> None:
    pytest.importorskip("av")
    from clips import make_clip, restored

    make_clip(tmp_path / "clip.mp4", 4)
    (entry,) = restored(tmp_path, "clip.mp4", parts=Parts(trust=trust(damage)))
    assert (entry.outputs, entry.notes[-1]) == (("clip.mp4",), NO_MAP)


def test_a_clean_face_is_wholly_the_photos_own(tmp_path: Path, damage: DamageNet) -> None:
    class Keeps(Dimmer):
        def forward(self, face: Tensor) -> Tensor:
            return face

    place = Place(tmp_path, Keeps())
    coloured(place)
    place.run(parts=Parts(trust=trust(damage)))
    assert load(tmp_path / "out" / f"a.png{MAP}").max() == 0


def test_without_a_calibration_there_is_a_sentence_and_no_map(tmp_path: Path, damage: DamageNet) -> None:
    place = Place(tmp_path)
    coloured(place)
    (entry,) = place.run(parts=Parts(trust=Trust(damage, {}, {32: "no trust map: why"})))
    assert (entry.status, entry.outputs, entry.notes[-1]) == ("done", ("a.png",), "no trust map: why")
    assert place.written() == ["a.png"]


def test_a_grey_photo_gets_a_sentence(tmp_path: Path, damage: DamageNet) -> None:
    place = Place(tmp_path)
    save_photo(place.photos / "grey.png", scene((20, 15, 24))[..., 0])
    (entry,) = place.run(parts=Parts(trust=trust(damage)))
    assert (entry.outputs, entry.notes[-1]) == (("grey.png",), GREY)
    assert place.written() == ["grey.png"]


def test_maps_are_resumed_and_never_replace_a_file_of_others(tmp_path: Path, damage: DamageNet) -> None:
    place = Place(tmp_path)
    coloured(place)
    strangers = place.out / f"a.png{MAP}"
    strangers.parent.mkdir()
    strangers.write_bytes(b"mine")
    (entry,) = place.run(parts=Parts(trust=trust(damage)))
    assert (entry.status, strangers.read_bytes()) == ("skipped", b"mine")
    strangers.unlink()
    (entry,) = place.run(parts=Parts(trust=trust(damage)))
    first, count = strangers.read_bytes(), len(place.restorer.together)
    assert place.run(parts=Parts(trust=trust(damage))) == [entry]
    assert len(place.restorer.together) == count, "nothing is done again"
    strangers.unlink()
    assert place.run(parts=Parts(trust=trust(damage))) == [entry]
    assert strangers.read_bytes() == first


def test_the_overlay_is_redder_where_more_is_guessed() -> None:
    result = picture(16, 16, 1)[0]
    assert torch.equal(overlaid(result, -torch.ones(3, 16, 16)), result.mean(0, keepdim=True).expand(3, -1, -1))
    sure = overlaid(result, torch.ones(3, 16, 16))
    assert (float(sure[0].min()), float(sure[1:].max())) == (1.0, -1.0)


# Cards


@pytest.fixture
def known(models: Models, tmp_path: Path) -> Path:
    """A calibrated restorer."""
    path = tmp_path / "known.safetensors"
    path.write_bytes(models[0].read_bytes())
    put_in_card(path, replace(calibration_begun(loaded_restorer(path), "none"), weights=FLAT.weights, factor=1.0))
    return path


def test_a_calibration_belongs_to_its_weights_and_choices(known: Path, models: Models, tmp_path: Path) -> None:
    loaded = loaded_restorer(known)
    found = calibration_of(loaded)
    assert found is not None
    assert json.loads(json.dumps(asdict(found))) == json.loads(card_path(known).read_text())[KEY]
    assert trust_for(loaded).missing == {}
    card = json.loads(card_path(known).read_text())
    for wrong in ({**card[KEY], "restorer": "other"}, {**card[KEY], "weights": [1.0]}, {}, {"weights": []}, "no"):
        card_path(known).write_text(json.dumps({KEY: wrong}))
        assert "known is not calibrated" in trust_for(loaded_restorer(known)).missing[32]
    card_path(known).write_text(json.dumps({KEY: {**card[KEY], "choices": {"fidelity": 0.5, "refine": 0}}}))
    assert trust_for(loaded_restorer(known)).missing[32].endswith("calibrated for `fidelity` 0.5 and `refine` 0 only")


def test_of_the_built_in_restorers_the_calibrated_ones_say_for_which_choices() -> None:
    usual = trust_for(loaded_restorers(["small-restorer"]))
    assert 128 in usual.by_size
    assert usual.by_size[128].faces >= 100
    refined = trust_for(loaded_restorers(["small-restorer"], refine=1))
    assert refined.missing[128] == "no trust map: small-restorer is calibrated for `fidelity` 0.5 and `refine` 0 only"


def test_the_calibration_is_part_of_a_run(known: Path, tmp_path: Path) -> None:
    keys = {load_restoration(known, RestoreSettings(), aligned=True).key}
    for factor in (1.0, 2.0):
        found = calibration_of(loaded_restorer(known))
        assert found is not None
        put_in_card(known, replace(found, factor=factor))
        keys.add(load_restoration(known, RestoreSettings(trust=True), aligned=True).key)
    assert len(keys) == 3
    write_faces(tmp_path / "faces", 1)
    with pytest.raises(BadInput, match="plain PNG"):
        restore(tmp_path / "faces", tmp_path / "out", known, RestoreSettings(trust=True, size="restorer"), aligned=True)


def test_the_command_tells_and_the_report_shows(
    run: Callable[..., Result], known: Path, models: Models, tmp_path: Path
) -> None:
    write_faces(tmp_path / "faces", 2)
    words = "restore", tmp_path / "faces", "--aligned", "--device", "cpu", "--trust", "--report", "--identity", "none"
    told = run(*words, "--restorer", known, "--out", tmp_path / "out", "--json")
    assert (told.code, json.loads(told.out)["trust_maps"]) == (0, 2)
    assert (tmp_path / "out" / f"face00.png{MAP}").exists()
    assert "how much of the result is guessed" in (tmp_path / "out" / "report.html").read_text()
    assert len(list((tmp_path / "out" / "report").glob("*-00-trust.jpg"))) == 2
    none = run(*words, "--restorer", models[0], "--out", tmp_path / "none", "--json")
    assert (none.code, json.loads(none.out)["trust_maps"]) == (0, 0)
    assert [note for _, note in json.loads(none.out)["notes"] if "no trust map: tiny-restorer" in note]
    said = run(*words, "--restorer", models[0], "--out", tmp_path / "none")
    assert said.out.count("no trust map") == 1
    assert "how much of the result" not in (tmp_path / "none" / "report.html").read_text()


def test_a_restorer_that_cannot_be_calibrated_is_not(known: Path, models: Models) -> None:
    assert recalibration_of(loaded_restorer(models[0]), seed=0) is None, "never calibrated"
    assert recalibration_of(loaded_restorer(known), seed=0) is None, "no sample faces of 32 px"


def test_a_recalibration_carries_the_calibration_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(unfade.recipes.trust, "TRUTHS", ("held_out_truth",))
    path = tmp_path / "wide.safetensors"
    save_restorer(path, fill_module(SwinIRRestorer(SwinIR(replace(RESTORER, img_size=64)), 128)))
    put_in_card(path, replace(calibration_begun(loaded_restorer(path), "none"), weights=FLAT.weights, factor=1.0))
    loaded = loaded_restorer(path)
    recalibration = recalibration_of(loaded, seed=0)
    assert recalibration is not None
    assert recalibration.calibration("learned") is None, "nothing was fitted"
    photos, targets = torch.rand(2, 6, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    recalibration.begin(fit(photos, targets))
    same = recalibration.calibration("learned")
    assert same is not None
    assert (same.factor, same.restorer, same.weights) == (1.0, "learned", FLAT.weights)
    monkeypatch.setattr(loaded.network, "forward", lambda face: -face)
    worse = recalibration.calibration("learned")
    assert worse is not None
    assert worse.factor > 1.0


def test_an_adaptation_puts_the_calibration_into_the_card(
    monkeypatch: pytest.MonkeyPatch, models: Models, tmp_path: Path
) -> None:
    class Recalibrated:
        def begin(self, fitted: FittedDegradation) -> None:
            raise AssertionError("two photos are too few to fit a degradation to")

        def calibration(self, weights: str) -> Calibration:
            return replace(FLAT, restorer=weights)

    monkeypatch.setattr(unfade.recipes.tuning, "recalibration_of", lambda *args, **how: Recalibrated())
    write_faces(tmp_path / "photos", 2)
    adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    found = calibration_of(loaded_restorer(tmp_path / "run"))
    assert found is not None
    assert tuple(found.weights) == FLAT.weights
    assert trust_for(loaded_restorer(tmp_path / "run")).missing == {}


def test_a_calibration_survives_a_kill_at_the_end_of_an_adaptation(
    known: Path, models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The card says that all is done; so it is written once, with the calibration."""
    cards: list[dict[str, Any]] = []

    def counted(weights: Path, card: dict[str, Any]) -> None:
        cards.append(card)
        write_card(weights, card)

    monkeypatch.setattr(unfade.recipes.tuning, "write_card", counted)
    monkeypatch.setattr(unfade.recipes.tuning, "recalibration_of", lambda restorer, seed: Known())
    write_faces(tmp_path / "faces", 2)
    adapt(tmp_path / "faces", tmp_path / "run", small(str(known), str(models[1])), aligned=True)
    assert [card[KEY]["factor"] for card in cards] == [3.0]


class Known:
    """A recalibration that ends in a calibration whatever it has seen."""

    def begin(self, fitted: object) -> None:
        raise AssertionError("two faces are too few to fit a degradation")

    def calibration(self, weights: str) -> Calibration:
        return replace(FLAT, factor=3.0, restorer=weights)
