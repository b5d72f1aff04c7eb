"""An album: which names pictures get, and what is said about files that are none."""

from pathlib import Path

from PIL import Image

from hostile import hostile_files
from unfade.app.album import Album


def picture(path: Path, level: int = 90, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (level, level, level)).save(path)
    return path


def test_pictures_are_kept_as_they_came(tmp_path: Path) -> None:
    album = Album(tmp_path / "album")
    first, same = picture(tmp_path / "a" / "me.PNG", 90), picture(tmp_path / "b" / "me.PNG", 90)
    other, hidden = picture(tmp_path / "c" / "me.jpg", 40), picture(tmp_path / "d" / ".hidden.png")
    assert album.take([first, same, other, hidden]) == (["me.png", "me.png", "me-2.jpg", "hidden.png"], [])
    assert album.names == ["hidden.png", "me-2.jpg", "me.png"], "no two of one stem, and the same picture once"
    assert (album.photos / "me-2.jpg").read_bytes() == other.read_bytes()
    with Image.open(album.thumb("me.png")) as small:
        assert small.format == "JPEG"
    bmp = picture(tmp_path / "me.bmp").rename(tmp_path / "me.xyz")
    assert album.take([bmp])[1][0].startswith("me.xyz has none of the endings of pictures: ")


def test_200_hostile_files_get_a_sentence_each(tmp_path: Path) -> None:
    files = hostile_files(tmp_path / "files")
    album = Album(tmp_path / "album")
    names, said = album.take(files)
    assert (names, len(said)) == ([], 200)
    assert [line for line in said if str(tmp_path) in line or "\n" in line or not line.endswith((".", "?", ")"))] == []
    assert all(line.startswith(path.name) for line, path in zip(said, files, strict=True))
    assert album.names == []
