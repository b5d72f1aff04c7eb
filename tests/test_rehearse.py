"""The rehearsal on tiny networks: what is there, who learns from whom, going on, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapt_settings import small
from tiny_models import write_faces
from unfade.errors import BadInput, OutputConflict
from unfade.evaluation.gap import Estimate
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.recipes.adapt import adapt
from unfade.recipes.rehearse import ROWS, Rehearsal, RehearseSettings, rehearse, split
from unfade.stages import restore
from unfade.stages.degrade import camera_degradation
from unfade.store.checkpoints import read_weights

CAMERA = camera_degradation("severe", 4)
Models = tuple[Path, Path]
Done = tuple[Path, RehearseSettings, Rehearsal]


def colours(image: torch.Tensor) -> np.ndarray:
    return image.flatten(2).transpose(1, 2).numpy()


@pytest.fixture(scope="module")
def done(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("rehearsal")
    write_faces(folder / "faces", 8)
    settings = RehearseSettings(small(*models), learn=0.5)
    return folder, settings, rehearse(folder / "faces", folder / "out", CAMERA, settings, spaces={"colour": colours})


def test_everything_is_there(done: Done) -> None:
    folder, _, result = done
    out = folder / "out"
    assert (result.learned, result.held_out, list(result.failures)) == (4, 4, [])
    names = {part: {path.name for path in list_images(out / "photos" / part)} for part in ("learn", "score")}
    assert names["learn"].isdisjoint(names["score"])
    assert names["learn"] | names["score"] == {f"face{i:02d}.png" for i in range(8)}
    for row in ROWS:
        assert {path.name for path in list_images(out / "results" / row)} == names["score"]
        assert result.scores[row].keys() == {"psnr", "ssim", "feature_distance", "identity_distance", "frechet_colour"}
    assert result.share.keys() == result.gain.keys() == result.scores["adapted"].keys()
    page = result.report.read_text()
    assert "share of the gap" in page
    assert "gain by adapting" in page
    assert all(name in page for name in names["score"])
    assert result.warnings[0] in page
    assert "4 faces to adapt to and 4 to score are few" in result.warnings[0] == result.as_dict()["warnings"][0]
    assert replace(result, learned=10, held_out=10).warnings == []
    json.dumps(result.as_dict(), allow_nan=False)
    nothing = replace(result, share={"psnr": Estimate(math.nan, math.nan, math.nan)})
    assert nothing.as_dict()["share"] == {"psnr": {"value": None, "low": None, "high": None}}


def test_a_borrowed_upper_bound_is_kept_only_where_it_is_the_same(done: Done, tmp_path: Path) -> None:
    folder, settings, _ = done
    targets = replace(settings.adapt.targets, seed=9)
    changes = {
        "same": replace(settings, adapt=replace(settings.adapt, targets=targets)),
        "fewer": replace(settings, most=2),
    }
    (tmp_path / "other").mkdir()
    bound, card = (tmp_path / "other" / f"supervised.{ending}" for ending in ("safetensors", "json"))
    bound.write_bytes((folder / "out" / bound.name).read_bytes())
    card.write_text(json.dumps({**json.loads((folder / "out" / card.name).read_text()), "borrowed": True}))
    for name, changed in changes.items():
        for other in (bound.parent, tmp_path / "nowhere"):
            rehearse(folder / "faces", tmp_path / name, CAMERA, changed, supervised=other)
        assert ("borrowed" in json.loads((tmp_path / name / card.name).read_text())) == (name == "same")


def test_the_upper_bound_learns_from_the_truth_and_adaptation_does_not(done: Done) -> None:
    out = done[0] / "out"
    card = json.loads((out / "supervised.json").read_text())
    adapted = json.loads((out / "adapted" / "restorer.json").read_text())
    assert card["pairs"] == adapted["pairs"] == 4
    assert card["fingerprint"] != adapted["fingerprint"]
    states = [
        read_weights(path).state for path in (out / "supervised.safetensors", out / "adapted/restorer.safetensors")
    ]
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_targets_of_later_rounds_begin_with_the_adapted_attempts(done: Done, tmp_path: Path) -> None:
    folder, once, _ = done
    out = tmp_path / "out"
    rehearse(folder / "faces", out, CAMERA, replace(once, adapt=replace(once.adapt, rounds=2)))
    first = replace(once.adapt, restorer=str(out / "adapted" / "round-1"))
    adapt(out / "photos" / "score", tmp_path / "again", first, aligned=True)
    made = list_images(out / "results" / "targets")
    assert len(made) == 4
    assert all(path.read_bytes() == (tmp_path / "again" / "targets" / path.name).read_bytes() for path in made)
    for twice, before in {"supervised": "supervised", "adapted/round-1/restorer": "adapted/restorer"}.items():
        one = read_weights(out / f"{twice}.safetensors").state
        other = read_weights(folder / "out" / f"{before}.safetensors").state
        assert all(torch.equal(one[key], other[key]) for key in one), "the bound and the first round are the same"


def test_the_same_rehearsal_goes_on_and_another_is_refused(done: Done) -> None:
    folder, settings, result = done
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.png")}
    again = rehearse(folder / "faces", folder / "out", CAMERA, settings, spaces={"colour": colours})
    assert again.scores == result.scores
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.png")} == before
    for other, camera in ((replace(settings, seed=1), CAMERA), (settings, camera_degradation("mild", 4))):
        with pytest.raises(OutputConflict, match="another folder"):
            rehearse(folder / "faces", folder / "out", camera, other)


def test_a_broken_face_is_named_and_left_out(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 5)
    (tmp_path / "faces" / "broken.png").write_bytes(b"no picture")
    result = rehearse(tmp_path / "faces", tmp_path / "out", CAMERA, RehearseSettings(small(*models), learn=0.5))
    assert [name for name, _ in result.failures] == ["broken.png"]
    assert result.learned + result.held_out == 5
    assert read_image(tmp_path / "out" / "results" / "adapted" / next(iter(
        path.name for path in list_images(tmp_path / "out" / "photos" / "score")
    ))).shape == (3, 32, 32)  # fmt: skip


def test_fewer_faces_are_a_part_of_more_and_the_scored_ones_stay() -> None:
    faces = [Path(f"{i}.png") for i in range(50)]
    settings = RehearseSettings()
    few, all_of_them = split(faces, replace(settings, most=10)), split(faces, settings)
    assert few["learn"] == all_of_them["learn"][:10]
    assert few["score"] == all_of_them["score"]
    assert len(all_of_them["learn"]) == 35
    assert split(list(reversed(faces)), settings) == all_of_them
    assert split(faces, replace(settings, seed=1)) != all_of_them


def test_other_faces_are_learned_from_after_the_own_ones_and_never_scored() -> None:
    faces, others = ([Path(f"{name}{i}.png") for i in range(50)] for name in ("own", "other"))
    settings = RehearseSettings()
    alone, together = split(faces, settings), split(faces, settings, others)
    assert together["score"] == alone["score"]
    assert together["learn"][:35] == alone["learn"]
    assert sorted(together["learn"][35:]) == sorted(others)
    assert split(faces, replace(settings, most=40), others)["learn"] == together["learn"][:40]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"learn": 0.0}, "adapt to"), ({"learn": 1.0}, "adapt to"), ({"most": -1}, "`most`"), ({"seed": -1}, "`seed`")],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        RehearseSettings(**wrong)


def test_one_face_is_too_few() -> None:
    with pytest.raises(BadInput, match="too few"):
        split([Path("a.png")], RehearseSettings())


def test_pictures_of_one_name_in_two_folders_are_not_mixed_up(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces" / "one", 5)
    write_faces(tmp_path / "faces" / "two", 1)
    result = rehearse(tmp_path / "faces", tmp_path / "out", CAMERA, RehearseSettings(small(*models), learn=0.5))
    ((file, reason),) = result.failures
    assert file.endswith("two/face00.png")
    assert "has the same name as" in reason
    assert result.learned + result.held_out == 5


def test_a_face_that_one_restorer_fails_on_is_left_out_of_all_rows(
    done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, settings, before = done
    bad = list_images(folder / "out" / "photos" / "score")[0]
    photo, restored = read_image(bad), restore.restore_batch

    def failing(faces: torch.Tensor, *args: Any, **how: Any) -> torch.Tensor:
        made: torch.Tensor = restored(faces, *args, **how)
        for i, face in enumerate(faces):
            if torch.equal(face.cpu(), photo):
                made[i] = math.nan
        return made

    monkeypatch.setattr(restore, "restore_batch", failing)
    result = rehearse(folder / "faces", tmp_path / "out", CAMERA, settings, spaces={"colour": colours})
    assert result.held_out == before.held_out - 1
    assert {name for name, _ in result.failures} == {bad.name}
    assert any(reason.startswith("adapted: ") and "not numbers" in reason for _, reason in result.failures)
    assert bad.name in result.report.read_text(), "among what was not done"
    assert math.isfinite(result.scores["adapted"]["psnr"].value)
