"""Pictures that are one aligned face: they come back in the size and the format that they came in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import Run
from marked import Dimmer, load, save
from recorded import picture
from test_adapt import small
from tiny_models import write_faces
from unfade.errors import BadInput
from unfade.faces.paste import PasteSettings
from unfade.images.files import read_image, to_bytes, write_png
from unfade.images.finding import find_pictures
from unfade.jobs import runs
from unfade.jobs.journal import Entry, Journal
from unfade.recipes.adapt import adapt
from unfade.recipes.restore import RestoreSettings, restore
from unfade.recipes.sources import FILLED
from unfade.restorers.load import load_restorer
from unfade.stages.photos import Framed
from unfade.stages.restore_photos import restore_photos
from unfade.training.modes import mode

Models = tuple[Path, Path]


def dimmed(photos: Path, size: int) -> list[Entry]:
    found, journal = find_pictures(photos), Journal(photos.parent / "journal.jsonl")
    run = runs.Run(photos.parent / "out", journal)
    return restore_photos(found, run, Dimmer(size), Framed(found.root, size), FILLED)


def test_detail_finer_than_the_restorers_stays(tmp_path: Path) -> None:
    """A chequered face of level 160 is 160 to the restorer, which halves its distance to 127.5, and stays chequered."""
    chequered = 160 + 40 * (-1) ** np.indices((96, 96)).sum(0)
    save(tmp_path / "photos" / "a.png", np.repeat(chequered[..., None], 3, 2).astype(np.uint8))
    (entry,) = dimmed(tmp_path / "photos", 24)
    assert entry.notes == ("1 face", "a face is 4.0 times as large as the restorer's: finer detail stays as it was")
    change = load(tmp_path / "out" / "a.png") - chequered[..., None]
    assert np.abs(change + (160 - 127.5) / 2).max() <= 1, "up to the border"


def test_a_smaller_face_comes_back_as_small(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", np.full((24, 24, 3), 160, np.uint8))
    (entry,) = dimmed(tmp_path / "photos", 96)
    assert entry.notes[1] == "the restorer's face, 4.0 times as large, was reduced; `size` restorer keeps its size"
    assert np.abs(load(tmp_path / "out" / "a.png") - (160 + 127.5) / 2).max() <= 1


def test_a_face_of_the_restorers_size_is_what_it_gives(models: Models, tmp_path: Path) -> None:
    (path,) = write_faces(tmp_path / "photos", 1)
    (entry,) = restore(tmp_path / "photos", tmp_path / "out", models[0], aligned=True, device="cpu")
    assert entry.notes == ("1 face",)
    network = load_restorer(models[0], device="cpu")
    with mode(False, network):
        expected = network(read_image(path)[None])[0].detach()
    assert np.abs(load(tmp_path / "out" / path.name) - to_bytes(expected).astype(int)).max() <= 1


def test_size_format_and_name_are_kept_unless_the_restorers_are_asked_for(
    run: Run, models: Models, tmp_path: Path
) -> None:
    save(tmp_path / "photos" / "a.jpg", to_bytes(picture(64, 64, 1)[0]), quality=80)
    save(tmp_path / "photos" / "b.png", to_bytes(picture(20, 20, 2)[0]))
    save(tmp_path / "photos" / "wide.png", to_bytes(picture(64, 48, 3)[0]))
    base = ("restore", tmp_path / "photos", "--aligned", "--restorer", models[0], "--device", "cpu")
    kept = run(*base, "--out", tmp_path / "kept", "--identity", "none")
    assert "2 done + 0 skipped + 1 failed" in kept.out
    assert "wide.png is 48 x 64 pixels; aligned faces are square crops" in kept.out
    assert "a.jpg: a face is 2.0 times as large as the restorer's" in kept.out
    assert "--size restorer keeps it" in kept.out
    sizes = {path.name: read_image(path).shape[-1] for path in (tmp_path / "kept").glob("*.*g")}
    assert sizes == {"a.jpg": 64, "b.png": 20}
    own = run(*base, "--out", tmp_path / "own", "--size", "restorer", "--json")
    assert own.json["done"] == 2
    sizes = {path.name: read_image(path).shape[-1] for path in (tmp_path / "own").glob("*.png")}
    assert sizes == {"a.png": 32, "b.png": 32}


def test_one_file_will_do(run: Run, models: Models, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(64, 64, 1)[0])
    write_png(tmp_path / "b.png", picture(64, 64, 2)[0])
    base = ("restore", tmp_path / "a.png", "--aligned", "--restorer", models[0], "--device", "cpu", "--json")
    for size, side in (("photo", 64), ("restorer", 32)):
        done = run(*base, "--out", tmp_path / size, "--size", size)
        assert (done.code, done.json["found"]) == (0, 1)
        assert [read_image(path).shape[-1] for path in (tmp_path / size).glob("*.png")] == [side]


def test_how_results_are_written_can_be_chosen(run: Run, models: Models, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(64, 64, 1)[0])
    flags = ("--format", "jpeg", "--quality", "50", "--sidecar", "--no-provenance")
    run("restore", tmp_path / "a.png", "--aligned", "--out", tmp_path / "out", "--restorer", models[0], *flags)
    (face,) = json.loads((tmp_path / "out" / "a.jpg.json").read_text())["faces"]
    assert face["box"] == [0, 0, 64, 64]
    assert np.allclose(face["matrix"], [[0.5, 0, -0.25], [0, 0.5, -0.25]])
    assert b"xmp" not in (tmp_path / "out" / "a.jpg").read_bytes()


@pytest.mark.parametrize(
    ("choice", "aligned", "said"),
    [
        ({"size": "large"}, True, "`size` to be photo or restorer, got large"),
        ({"size": "restorer"}, False, "set `aligned`"),
        ({"size": "restorer", "provenance": False}, True, "writes plain PNG files"),
    ],
)
def test_sizes_that_cannot_be(choice: dict[str, Any], aligned: bool, said: str, models: Models, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        restore(tmp_path, tmp_path / "out", models[0], RestoreSettings(**choice), aligned=aligned)


def test_no_ring_without_a_feather() -> None:
    with pytest.raises(BadInput, match="needs a feather above 0"):
        PasteSettings(feather=0.0, colour="ring")


def test_an_adaptation_gives_back_what_came_in(models: Models, tmp_path: Path) -> None:
    for i in range(2):
        save(tmp_path / "photos" / f"{i}.jpg", to_bytes(picture(64, 64, i)[0]))
    done = adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True, device="cpu")
    assert (done.counts.done, len(done.page.faces)) == (2, 2)
    places = {"restored/0.jpg": 64, "restored_faces/0.png": 32, "pretrained/0.png": 32, "targets/0.png": 32}
    assert {name: read_image(tmp_path / "run" / name).shape[-1] for name in places} == places
