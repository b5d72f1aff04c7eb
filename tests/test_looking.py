"""The faces of a photo on a screen, and restoring in several ways, without some of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unfade
from unfade.app import trying
from unfade.app.looking import Looked, looked_at
from unfade.app.trying import Variant
from unfade.errors import BadInput
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.jobs.journal import Entry

SAMPLES = Path(unfade.__file__).parent / "samples" / "held_out_photos"


def people(path: Path) -> Path:
    """Two faces, side by side."""
    whole = Image.new("RGB", (400, 200), (70, 80, 90))
    for i, x in ((3, 20), (5, 220)):
        with Image.open(list_images(SAMPLES)[i]) as face:
            whole.paste(face.convert("RGB").resize((160, 160)), (x, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path)
    return path


def test_a_click_names_the_smallest_face_under_it() -> None:
    looked = Looked(np.zeros((100, 100, 3), np.uint8), ((0, 0, 90, 90), (10, 10, 30, 30)))
    assert (looked.at(20, 20), looked.at(50, 50), looked.at(95, 95)) == (1, 0, None)
    assert Looked(looked.pixels, ()).at(1, 1) is None
    plain, marked = looked.marked([]), looked.marked([1])
    assert (plain[60, 0] != 0).any(), "the first box"
    assert (plain[27, 27] == 0).all(), "nothing inside of the second"
    assert (marked[27, 27] != 0).any(), "but for the cross of a face that is left out"


def test_faces_are_where_they_are_in_the_picture(tmp_path: Path) -> None:
    path = people(tmp_path / "two.png")
    looked = looked_at(path)
    assert [looked.at(100, 100), looked.at(300, 100), looked.at(200, 190)] == [0, 1, None]
    assert [looked.without(left_out) for left_out in ([], [0], [1, 7], [0, 1])] == ["0,1", "1", "0", ""]
    largest = unfade.FindSettings(choice=unfade.Choice("largest"))
    assert len(looked_at(path, largest).boxes) == 2, "all can be seen, whichever are used"


def picture(path: Path, level: int) -> Path:
    Image.new("RGB", (32, 32), (level, level, level)).save(path)
    return path


def test_photos_of_the_same_faces_are_restored_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str], float | None]] = []

    class Restoration:
        def __init__(self, restorer: object, settings: unfade.RestoreSettings, **_: object) -> None:
            self.settings = settings

        def restore_found(self, photos: Any, films: Any, out: Path, **_: object) -> list[Entry]:
            names = [name.as_posix() for name in photos.names]
            calls.append((self.settings.find.choice.which, names, self.settings.fidelity))
            out.mkdir(parents=True, exist_ok=True)
            for name in names[:-1]:
                (out / name).touch()
            done = [Entry("restored", name, "done", outputs=(name,)) for name in names[:-1]]
            return [*done, Entry("restored", names[-1], "no_face", reason="no face found.")]

    monkeypatch.setattr(trying, "load_restoration", Restoration)
    photos, out = tmp_path / "photos", tmp_path / "results"
    people(photos / "a.png")
    picture(photos / "1.png", 1)
    picture(photos / "2.png", 2)
    variant = Variant(photos, out, left_out={"a.png": [0], "gone.png": [1]})
    assert {entry.item: entry.status for entry in variant.restore()} == {
        "1.png": "done",
        "2.png": "no_face",
        "a.png": "no_face",
    }
    assert calls == [("all", ["1.png", "2.png"], 0.5), ("1", ["a.png"], 0.5)]
    assert variant.result("1.png") is not None
    assert variant.result("2.png") is None
    assert Variant(photos, out).result("1.png") == variant.result("1.png"), "its own faces are the same"
    assert Variant(photos, out, strength=0.5).result("1.png") is None, "made in another way"
    assert Variant(photos, out, ("small-restorer",)).result("1.png") is None, "one restorer is not the built-in pair"
    none = Variant(photos, out, ("small-swinir",), left_out={"a.png": [0, 1]})
    assert none.restore()[0].reason == f"{photos / 'a.png'}: all of its faces are left out."
    assert calls[-1] == ("all", ["1.png", "2.png"], None), "SwinIR has no fidelity"
    assert none.result("a.png") is None


def test_a_face_that_is_left_out_stays_as_it_is(tmp_path: Path) -> None:
    photo = people(tmp_path / "photos" / "two.png")
    both = Variant(photo.parent, tmp_path / "results")
    one = replace(both, left_out={"two.png": [0]})
    assert [entry.status for variant in (both, one) for entry in variant.restore(device="cpu")] == ["done", "done"]
    before, first, second = (
        read_image(path) for path in (photo, both.result("two.png"), one.result("two.png")) if path
    )
    assert (first - before)[..., :200].abs().max() > 0.1
    assert (second - before)[..., :180].abs().max() == 0
    level = 1 / 127.5  # sums are rounded otherwise for one face than for two
    assert (second - first)[..., 220:].abs().max() <= 1.01 * level


def test_results_of_formats_that_are_only_read_are_found(tmp_path: Path) -> None:
    variant = Variant(people(tmp_path / "photos" / "two.gif").parent, tmp_path / "results")
    assert [entry.outputs for entry in variant.restore(device="cpu")] == [("two.png",)]
    result = variant.result("two.gif")
    assert result is not None
    assert result.name == "two.png"
    people(tmp_path / "photos" / "two.png")
    with pytest.raises(BadInput, match="differ in nothing but their endings"):
        variant.restore()
