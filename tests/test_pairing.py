"""Pictures of two folders that belong together: by whole stems, never by order, and nothing of two meanings."""

from pathlib import Path

import pytest

from tiny_models import write_faces
from toys import save_pictures
from unfade.errors import BadInput
from unfade.images.files import read_image, write_png
from unfade.images.pairing import by_stem, check_side, paired
from unfade.recipes.adapt import adapt
from unfade.recipes.adapt_settings import AdaptSettings
from unfade.recipes.compare import FIRST, CompareSettings, compare
from unfade.shown import first_few
from unfade.stages.finetune import pairs_of

Models = tuple[Path, Path]
TWICE = ["a.jpg", "a.png", "b.png"]  # as a camera and a program that edits its photos leave them


def test_pairs_go_by_the_whole_stem(tmp_path: Path) -> None:
    left = save_pictures(tmp_path / "left", ["a.b.png", "a.png", "B.png", "c.png"])
    right = save_pictures(tmp_path / "right", ["a.b.jpg", "a.webp", "b.png", "c.d.png"])
    found = paired(tmp_path / "left", tmp_path / "right")
    assert found.pairs == ((left[1], right[1]), (left[0], right[0]))
    assert found.alone == ((left[2], left[3]), (right[2], right[3]))


@pytest.mark.parametrize("side", ["faces", "targets"])
def test_nothing_is_learned_from_another_persons_target(side: str, tmp_path: Path) -> None:
    for folder in ("faces", "targets"):
        save_pictures(tmp_path / folder, TWICE if folder == side else ["a.png", "b.png"])
    with pytest.raises(BadInput, match=rf"{side} holds several pictures of the same name: a\.jpg and a\.png; keep one"):
        pairs_of(tmp_path / "faces", tmp_path / "targets")
    (tmp_path / side / "a.jpg").unlink()
    pairs = pairs_of(tmp_path / "faces", tmp_path / "targets")
    assert [(pair.face.name, pair.target.name) for pair in pairs] == [("a.png", "a.png"), ("b.png", "b.png")]


def test_only_the_first_few_are_named(tmp_path: Path) -> None:
    save_pictures(tmp_path, [f"{i}{ending}" for i in range(5) for ending in (".png", ".bmp")])
    with pytest.raises(BadInput, match=r"name: 0\.bmp and 0\.png, 1\.bmp and 1\.png, 2\.bmp and 2\.png and 2 more;"):
        by_stem(tmp_path)
    assert first_few(["a", "b"]) == "a, b"


def test_a_truth_of_another_size_is_named(tmp_path: Path) -> None:
    paths = [*save_pictures(tmp_path, ["a.png"], size=32), *save_pictures(tmp_path, ["b.png"], size=16)]
    check_side(paths[:1], 32)
    with pytest.raises(BadInput, match=r"at 32 x 32 pixels, the restorer's size, but .*b\.png has 16 x 16;"):
        check_side(paths, 32)


@pytest.mark.parametrize(("names", "size", "said"), [(TWICE, 32, "several"), (["a.png", "b.png"], 16, "has 16 x 16")])
def test_a_truth_that_does_not_fit_is_refused_before_the_work(
    names: list[str], size: int, said: str, models: Models, tmp_path: Path
) -> None:
    faces, truth = tmp_path / "faces", tmp_path / "truth"
    save_pictures(faces, ["a.png", "b.png"], size=32)
    save_pictures(truth, names, size=size)
    with pytest.raises(BadInput, match=said):
        compare(faces, tmp_path / "c", CompareSettings((FIRST,), *map(str, models)), truth=truth)
    assert not (tmp_path / "c" / "results").exists()
    with pytest.raises(BadInput, match=said):
        adapt(faces, tmp_path / "r", AdaptSettings(*map(str, models)), truth=truth, aligned=True)
    assert not (tmp_path / "r").exists()


def test_photos_of_one_name_have_no_truth_for_sure(models: Models, tmp_path: Path) -> None:
    save_pictures(tmp_path / "photos", TWICE, size=32)
    save_pictures(tmp_path / "truth", ["a.png", "b.png"], size=32)
    settings = AdaptSettings(*map(str, models))
    with pytest.raises(BadInput, match=r"photos holds several pictures of the same name: a\.jpg and a\.png"):
        adapt(tmp_path / "photos", tmp_path / "run", settings, truth=tmp_path / "truth", aligned=True)


def test_a_face_is_shown_beside_its_own_results(models: Models, tmp_path: Path) -> None:
    """Its name is the beginning of another's, and has characters that a pattern would take for something else."""
    faces = write_faces(tmp_path / "made", 2)
    for folder in ("faces", "theirs"):
        for path, name in zip(faces, ("a[1].png", "a[1].b.png"), strict=True):
            write_png(tmp_path / folder / name, read_image(path))
    settings = CompareSettings((FIRST,), *map(str, models))
    done = compare(tmp_path / "faces", tmp_path / "out", settings, results={"theirs": tmp_path / "theirs"})
    sheet = read_image(done.sheet)
    face, theirs = sheet[:, -400:, :192], sheet[:, -400:, -192:]
    assert face.std() > 0
    assert (face - theirs).abs().max() == 0
    assert "a[1].b.png" in done.report.read_text()
