"""Every photo below a folder is found once, whatever the folder is like."""

import os
from pathlib import Path

import pytest

from unfade.errors import BadInput, OutputConflict, UnreadableImage
from unfade.images.files import read_image
from unfade.images.film_input import find_videos
from unfade.images.finding import (
    NESTED,
    WRITTEN,
    Found,
    files_below,
    find_photos,
    find_pictures,
    in_words,
    join_passed_over,
    list_images,
)
from unfade.images.opening import pixels_in
from unfade.recipes.restore import passed_over
from unfade.training.batches import find_training_pictures


def grow(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, without: Path | None = None) -> list[str]:
    return [name.as_posix() for name in find_photos(root, without=without).names]


def test_folders_are_searched_and_their_structure_is_kept(tmp_path: Path) -> None:
    grow(tmp_path, "b.JPG", "a.txt", "1931/a.tif", "1931/grandmother/Großmutter 写真.heic", ".hidden/a.png", "._b.jpg")
    assert found(tmp_path) == ["1931/a.tif", "1931/grandmother/Großmutter 写真.heic", "b.JPG"]
    assert find_photos(tmp_path).paths[-1] == tmp_path / "b.JPG"


def test_a_single_file_will_do_whatever_its_name(tmp_path: Path) -> None:
    grow(tmp_path, "scan")
    assert find_photos(tmp_path / "scan").paths == (tmp_path / "scan",)


def test_the_output_in_the_input_is_not_read(tmp_path: Path) -> None:
    grow(tmp_path, "a.png", "out/a.png", "out/deep/b.png", "output/c.png")
    assert found(tmp_path, without=tmp_path / "out") == ["a.png", "output/c.png"]
    assert found(tmp_path, without=tmp_path / "x" / ".." / "out") == ["a.png", "output/c.png"]


def test_photos_that_are_all_in_the_output_are_reported(tmp_path: Path) -> None:
    grow(tmp_path, "out/a.png", "out/deep/b.png")
    with pytest.raises(BadInput, match=rf"holds no photos, apart from 2 in the output folder {tmp_path / 'out'};"):
        find_photos(tmp_path, without=tmp_path / "out")
    with pytest.raises(OutputConflict, match="out is also the input; name another folder"):
        find_photos(tmp_path / "out", without=tmp_path / "x" / ".." / "out")


def test_aligned_faces_are_of_the_folder_itself_or_one_file(tmp_path: Path) -> None:
    grow(tmp_path, "b.png", "a.jpg", "deep/c.png", "d.dng")
    assert find_pictures(tmp_path) == Found(tmp_path, (Path("a.jpg"), Path("b.png")), ((".dng", 1), (NESTED, 1)))
    assert find_pictures(tmp_path / "d.dng").names == (Path("d.dng"),)
    assert join_passed_over(((".dng", 1), (".psd", 2)), ((".dng", 4),)) == ((".dng", 5), (".psd", 2))


def test_pictures_in_subfolders_are_counted_where_they_are_not_read(tmp_path: Path) -> None:
    grow(tmp_path, "a.png", "deep/b.png", "deep/er/c.jpg", "deep/notes.txt", "run/run.json", "run/journal.jsonl")
    grow(tmp_path, "run/d.png", "report/e.jpg", ".hidden/f.png")
    assert find_pictures(tmp_path).passed_over == ((NESTED, 3),)
    grow(tmp_path, "report.html")
    assert in_words(find_pictures(tmp_path).passed_over) == "2 in subfolders"
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match="holds no pictures but 2 in subfolders; expected"):
        find_pictures(tmp_path)


def test_loops_of_links_end_and_every_folder_is_read_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    grow(tmp_path, "photos/real/a.png", "elsewhere/b.png", "elsewhere/deep/c.png", "private.png")
    (photos / "again").symlink_to(photos / "real")
    (photos / "real" / "up").symlink_to(photos)
    (photos / "far").symlink_to(tmp_path / "elsewhere")
    (photos / "far too").symlink_to(tmp_path / "elsewhere" / "deep")
    (photos / "above").symlink_to(tmp_path)
    (photos / "self").symlink_to(photos / "self")
    (photos / "self.png").symlink_to(photos / "self.png")
    assert found(photos) == ["far/b.png", "far/deep/c.png", "real/a.png", "self.png"]


def test_a_dangling_link_is_a_photo_that_will_fail_and_a_pipe_is_none(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert found(tmp_path) == ["gone.jpg"]


def test_names_that_are_not_text_are_found(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.png")).touch()
    assert len(find_photos(tmp_path).names) == 1


def test_a_folder_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, "a.png", "closed/b.png")
    look = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert find_photos(tmp_path).names == (Path("a.png"), Path("closed"))


def test_nothing_and_nowhere_are_refused(tmp_path: Path) -> None:
    grow(tmp_path, "a.txt")
    for place, why in ((tmp_path, "holds no photos"), (tmp_path / "b", "is not there")):
        with pytest.raises(BadInput, match=why) as caught:
            find_photos(place)
        assert str(caught.value).startswith(str(place))


def test_other_endings_of_jpegs_and_other_formats_are_counted(tmp_path: Path) -> None:
    names = ["a.jfif", "b.JPE", "c.jp2", "d.avif", "e.jxl", "f.hif", "g.pjpeg"]
    grow(tmp_path, *names)
    assert found(tmp_path) == names
    assert [path.name for path in list_images(tmp_path)] == names


def test_pictures_that_are_not_read_are_counted_by_ending(tmp_path: Path) -> None:
    grow(tmp_path, "a.png", "b.DNG", "deep/c.dng", "d.psd", "notes.txt", "Thumbs.db", ".hidden.dng")
    (tmp_path / "scan").write_bytes(b"\xff\xd8\xff\xe0 and so on")
    (tmp_path / "e.jpg_large").write_bytes(b"\x89PNG\r\n\x1a\n")
    photos = find_photos(tmp_path)
    assert photos.names == (Path("a.png"),)
    assert photos.passed_over == ((".dng", 2), ("", 1), (".jpg_large", 1), (".psd", 1))
    assert in_words(photos.passed_over) == "2 .dng, 1 without an ending, 1 .jpg_large, 1 .psd"
    (tmp_path / "a.png").unlink()
    for look, counted in ((find_photos, "2 .dng"), (list_images, "1 .dng")):
        with pytest.raises(BadInput, match=f"holds no (photos|pictures) but .*{counted}"):
            look(tmp_path)


def test_pipes_are_never_taken_for_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    grow(tmp_path, "a.png")
    assert [path.name for path in list_images(tmp_path)] == ["a.png"]
    assert find_training_pictures(tmp_path, {})[0] == [tmp_path / "a.png"]
    assert pixels_in(tmp_path / "pipe.png") == 0
    with pytest.raises(UnreadableImage, match=r"pipe\.png is a pipe, socket or device"):
        read_image(tmp_path / "pipe.png")


def test_a_path_that_is_neither_file_nor_folder_is_named_as_what_it_is(tmp_path: Path) -> None:
    loop, nowhere, pipe = tmp_path / "loop.png", tmp_path / "nowhere.png", tmp_path / "pipe.png"
    loop.symlink_to(loop.name)
    nowhere.symlink_to("gone.png")
    os.mkfifo(pipe)
    told = {
        loop: "is a link that leads nowhere",
        nowhere: "is a link that leads nowhere",
        pipe: "is neither a file nor a folder",
        tmp_path / "gone.png": "is not there",
    }
    for place, why in told.items():
        for find in (find_photos, find_pictures):
            with pytest.raises(BadInput, match=f"{place.name} {why}; name a p"):
                find(place)
    assert files_below(loop) == (Path(),)  # as a folder that may not be looked into


@pytest.mark.parametrize("journal", ["journal.jsonl", "journal-1-of-4.jsonl"])
def test_results_of_other_runs_are_no_photos(tmp_path: Path, journal: str) -> None:
    grow(tmp_path, "a.png", "old/a.png", "old/deep/a.png", "run/run.json", f"run/{journal}", "run/targets/a.png")
    grow(tmp_path, "mine/run.json", "mine/b.png", "run/films/a.mp4")
    photos = find_photos(tmp_path)
    assert [name.as_posix() for name in photos.names] == ["a.png", "mine/b.png", "old/a.png", "old/deep/a.png"]
    assert photos.passed_over == ((WRITTEN, 1),)
    assert in_words(photos.passed_over) == "1 folder written by unfade (name one as the input to use what is in it)"
    assert in_words(((WRITTEN, 2),)).startswith("2 folders written by unfade")
    assert find_videos(tmp_path).names == ()
    assert found(tmp_path / "run") == ["targets/a.png"], "asked for by its name"
    assert len(find_training_pictures(tmp_path, {})[0]) == 5, "prepared sets of faces are runs too"


def test_films_are_counted_where_only_pictures_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, "a.png", "b.MP4", "c.ogv", "deep/d.mov")
    assert find_photos(tmp_path).passed_over == ((".mov", 1), (".mp4", 1), (".ogv", 1))
    assert find_pictures(tmp_path).passed_over == ((".mp4", 1), (".ogv", 1))
    monkeypatch.setattr("unfade.images.film_input.find_spec", lambda _name: "installed")
    assert passed_over(tmp_path, tmp_path / "out") == ((".ogv", 1),), "the others are restored"
    monkeypatch.setattr("unfade.images.film_input.find_spec", lambda _name: None)
    assert passed_over(tmp_path, tmp_path / "out") == ((".mov", 1), (".mp4", 1), (".ogv", 1)), "none is, without PyAV"
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match=r"holds no photos but 1 \.mov, 1 \.mp4, 1 \.ogv"):
        find_photos(tmp_path)
