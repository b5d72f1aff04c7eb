"""Photos in a report: as browsers show them, kept and cleaned as results are; and the report that `restore` writes."""

import json
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unfade.recipes.sources
from marked import LEVEL, SIZE, Place, finder, load, save, scene, squares, statuses
from toys import Alive, save_pictures
from unfade.errors import OutputConflict
from unfade.images.files import read_image
from unfade.images.photo import Photo
from unfade.jobs.journal import Entry
from unfade.jobs.runs import Run
from unfade.recipes.adapt_report import Ran, report_of
from unfade.recipes.restore import RestoreSettings, restore
from unfade.stages.photos import FoundFace
from unfade.stages.views import LARGEST, SIDE, STAGE, FacesToo, Views, write_views
from unfade.training.loop import History
from unfade.zoo.load import Loaded

ONE, TWO = ((20, 15, 24),), ((5, 8, 20), (50, 20, 24))
Models = tuple[Path, Path]


def views_of(place: Place, names: list[str], faces: FacesToo | None = None) -> dict[str, Views]:
    photos = {name: (place.photos / name, place.out / name) for name in names}
    return write_views(photos, Run(place.folder / "report", place.journal), faces)


def restored(tmp_path: Path, *names: str) -> Place:
    place = Place(tmp_path)
    for seed, name in enumerate(names):
        place.save(name, *TWO, seed=seed)
    place.run()
    return place


def test_views_show_a_photo_its_result_and_its_faces(tmp_path: Path) -> None:
    place = restored(tmp_path, "a.png")
    view = views_of(place, ["a.png"], FacesToo(finder(), SIZE))["a.png"]
    for path, file in zip(view.photo, (place.photos / "a.png", place.out / "a.png"), strict=True):
        assert load(path).shape == load(file).shape
        blocks = (load(path) - load(file)).reshape(6, 10, 9, 10, 3).mean((1, 3))
        assert np.abs(blocks).max() < 4, "a JPEG of the same picture"
    assert sorted(view.faces) == [0, 1]
    for before, after in view.faces.values():
        side = load(before).shape[0]
        assert load(before).shape == load(after).shape == (side, side, 3)
        assert side >= SIZE, "as large as the face is in the photo"
        assert load(before)[side // 2, side // 2, 0] > LEVEL - 20 > load(after)[side // 2, side // 2, 0]


def test_the_view_of_a_large_photo_is_of_a_screens_size_and_its_face_as_large_as_it_comes(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for folder in (place.photos, place.out):
        save(folder / "a.png", scene((300, 200, 290), height=1500, width=2 * SIDE))
        save(folder / "b.png", scene((20, 20, 40), height=1000, width=800))
    views = views_of(place, ["a.png", "b.png"], FacesToo(finder(), SIZE))
    with Image.open(views["a.png"].photo[0]) as shown:
        assert (shown.format, shown.size) == ("JPEG", (SIDE, 750))
    with Image.open(views["b.png"].photo[1]) as shown:
        assert shown.size == (800, 1000)
    sides = [load(views[name].faces[0][0]).shape[0] for name in ("a.png", "b.png")]
    assert sides[0] == LARGEST
    assert SIZE < sides[1] < LARGEST


def test_faces_of_an_enlarged_result_are_those_of_the_photo(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.save("a.png", *TWO)
    twice = Image.fromarray(scene(*TWO)).resize((180, 120), Image.Resampling.NEAREST)
    place.out.mkdir()
    twice.save(place.out / "a.png")
    view = views_of(place, ["a.png"], FacesToo(finder(), SIZE, scale=2))["a.png"]
    for before, after in view.faces.values():
        assert np.abs(load(before) - load(after)).mean() < 6


def test_views_are_what_a_screen_shows(tmp_path: Path) -> None:
    """16 bits become 8, and what is clear is white."""
    place = Place(tmp_path)
    clear = np.dstack([scene(), np.zeros((60, 90), np.uint8)])
    clear[:, :45, 3] = 255
    for folder in (place.photos, place.out):
        save(folder / "clear.png", clear)
        save(folder / "deep.png", np.full((40, 40), 1000 * 257 // 10, np.uint16))
    views = views_of(place, ["clear.png", "deep.png"])
    assert load(views["clear.png"].photo[0])[30, 80].min() > 250
    assert load(views["clear.png"].photo[0])[30, 10].max() < 120
    assert abs(load(views["deep.png"].photo[0])[20, 20, 0] - 100) <= 1


def test_views_are_made_once_and_again_when_a_file_is_another(tmp_path: Path) -> None:
    place = restored(tmp_path, "a.png", "b.png")
    looked: list[str] = []

    def find(name: str, photo: Photo) -> list[FoundFace]:
        looked.append(name)
        return finder()(name, photo)

    first = views_of(place, ["a.png", "b.png"], FacesToo(find, SIZE))
    assert views_of(place, ["a.png", "b.png"], FacesToo(find, SIZE)) == first
    assert looked == ["a.png", "b.png"]
    place.save("b.png", *ONE, seed=7)
    again = views_of(place, ["a.png", "b.png"], FacesToo(find, SIZE))
    assert looked == ["a.png", "b.png", "b.png"]
    assert again["a.png"] == first["a.png"]
    assert (len(first["b.png"].faces), len(again["b.png"].faces)) == (2, 1)
    assert not first["b.png"].faces[1][0].exists(), "of a face that is gone"


def test_views_of_photos_that_are_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    place = restored(tmp_path, "a.png", "b.png")
    views = views_of(place, ["a.png", "b.png"])
    (place.folder / "report" / "mine.jpg").write_text("mine")
    left = views_of(place, ["b.png"])
    assert left == {"b.png": views["b.png"]}
    assert sorted(path.name for path in (place.folder / "report").iterdir()) == sorted(
        ["mine.jpg", *(path.name for path in views["b.png"].photo)]
    )


def test_a_result_that_cannot_be_shown_fails_alone(tmp_path: Path) -> None:
    place = restored(tmp_path, "a.png", "b.png")
    (place.out / "a.png").write_bytes(b"no picture")
    assert list(views_of(place, ["a.png", "b.png"])) == ["b.png"]
    assert [(e.item, e.status) for e in place.journal.stage(STAGE)] == [("a.png", "failed"), ("b.png", "done")]


def test_names_of_views_fit_any_folder_and_page(tmp_path: Path) -> None:
    name = "n" * 240 + "\n\"'#.png"
    place = restored(tmp_path, name)
    view = views_of(place, [name], FacesToo(finder(), SIZE))[name]
    for path in (*view.photo, *view.faces[1]):
        assert path.exists()
        assert path.name.replace("-", "").removesuffix(".jpg").isalnum()


# The report of restored photos


@pytest.fixture
def marks_are_faces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "detector").write_text("finds bright squares")
    marks = Loaded(squares, tmp_path / "detector", "marks", "unknown")
    monkeypatch.setattr(unfade.recipes.sources, "loaded_detector", lambda name, device: marks)


@pytest.mark.usefixtures("marks_are_faces")
def test_restore_writes_a_report_of_all_photos(models: Models, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    odd = 'a "b" #1\n.png'
    save(photos / odd, scene(*TWO))
    save(photos / "sub" / "grey.png", scene(*ONE)[..., 0])
    save(photos / "bare.png", scene())
    (photos / "bad.png").write_text("no")
    restore(photos, out, models[0])
    assert not (out / "report.html").exists()
    assert not (out / "report").exists()
    entries = restore(photos, out, models[0], RestoreSettings(report=True))
    assert statuses(entries) == {odd: "done", "sub/grey.png": "done", "bare.png": "no_face", "bad.png": "failed"}
    page = (out / "report.html").read_text()
    assert "4 found = 2 done + 0 skipped + 1 failed + 1 without a face" in page
    for shown in ("Photos (2)", "Faces (3)", "Failed (1)", "Without a face (1)", "sub/grey.png, face 0"):
        assert shown in page
    linked = [unquote(unescape(part.split('"')[0])) for part in page.split('href="')[1:]]
    files = [out / name for name in linked if not name.startswith("#")]
    assert out / odd in files
    assert out / "journal.jsonl" in files
    assert all(file.exists() for file in files)
    assert set((out / "report").iterdir()) <= set(files)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*g")}
    restore(photos, out, models[0], RestoreSettings(report=True))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*g")} == before
    assert (out / "report.html").read_text() == page


@pytest.mark.parametrize("size", ["photo", "restorer"])
def test_restored_faces_have_a_report_too(models: Models, tmp_path: Path, size: str) -> None:
    for seed in range(2):
        save(tmp_path / "faces" / f"{seed}.png", scene(height=48, width=48, seed=seed))
    restore(tmp_path / "faces", tmp_path / "out", models[0], RestoreSettings(size=size, report=True), aligned=True)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Photos (2)" in page
    assert "Faces (" not in page
    assert len(list((tmp_path / "out" / "report").iterdir())) == 4


def test_a_report_of_others_is_not_replaced(models: Models, tmp_path: Path) -> None:
    save(tmp_path / "faces" / "a.png", scene(height=48, width=48))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    with pytest.raises(OutputConflict, match=r"report\.html is there already"):
        restore(tmp_path / "faces", tmp_path / "out", models[0], RestoreSettings(report=True), aligned=True)
    assert (tmp_path / "out" / "report.html").read_text() == "mine"


def test_the_sidecar_has_the_notes_of_its_photo(tmp_path: Path) -> None:
    place = Place(tmp_path)
    save(place.photos / "a.png", scene((10, 10, 200), height=300, width=300))
    (entry,) = place.run(sidecar=True)
    told = json.loads((place.out / "a.png.json").read_text())
    assert told["notes"] == list(entry.notes[1:]) != []


def test_scores_of_a_report_are_taken_picture_by_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, counts = [f"{i}.png" for i in range(6)], list[int]()
    for folder in ("faces", "pretrained", "targets", "restored_faces", "truth"):
        save_pictures(tmp_path / folder, names, size=32)
    alive = Alive(read_image)
    monkeypatch.setattr("unfade.recipes.adapt_report.read_image", alive)

    def count(restored: Tensor, clean: Tensor) -> Tensor:
        counts.append(len(alive.made))
        return torch.zeros(1)

    done = [Entry("restored_faces", name, "done", outputs=(name,)) for name in names]
    truth = {Path(name).stem: tmp_path / "truth" / name for name in names}
    page = report_of(tmp_path, Ran([], done, [], [], History(), {}), {}, truth=truth, metrics={"count": count})
    assert [row["faces"] for row in page.scores] == [6] * 4
    assert page.scores[0]["psnr"] == float("inf")
    assert max(counts) <= 4
