"""Manifests: which files they name, and what is said of those that cannot be used."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from command import Run
from tiny_models import write_faces
from unfade.errors import BadInput
from unfade.images.film_input import by_endings
from unfade.images.finding import Found, find_photos
from unfade.images.listing import listed
from unfade.jobs.shards import Portion, Shard

Models = tuple[Path, Path]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_faces(tmp_path / "photos", 3)
    write_faces(tmp_path / "photos" / "sub", 2)
    return tmp_path / "photos"


def names(manifest: Path, photos: Path, content: str | bytes, **how: bool) -> list[str]:
    manifest.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [name.as_posix() for name in listed(manifest, photos, **how).names]


def test_lines_are_relative_to_the_folder_and_each_file_counts_once(photos: Path, tmp_path: Path) -> None:
    lines = f"\ufeffsub/b.png\r\n\n./a.png\nsub//b.png\n{photos}/c c.png\nsub/../a.png\n a.png\n"
    assert names(tmp_path / "list", photos, lines) == [" a.png", "a.png", "c c.png", "sub/b.png"]
    odd = os.fsdecode(b"\xff.png")
    assert names(tmp_path / "list", photos, b"\xff.png") == [odd]


def test_a_list_of_everything_is_what_the_search_finds(photos: Path, tmp_path: Path) -> None:
    found = find_photos(photos)
    everything = "\n".join(name.as_posix() for name in reversed(found.names))
    assert names(tmp_path / "list", photos, everything) == [name.as_posix() for name in found.names]
    portion = Portion(Shard(1, 2), tmp_path / "list")
    assert tuple(portion.photos(photos, tmp_path / "out").names) == Shard(1, 2).of(found).names
    every = Portion(manifest=tmp_path / "list").photos(photos, tmp_path / "out").names
    assert (len(every), every[1], tuple(every[1:])) == (5, found.names[1], found.names[1:])


@pytest.mark.parametrize("line", ["../a.png", "/elsewhere/a.png", "sub/../../a.png", "."])
def test_a_path_outside_is_refused_with_its_line(photos: Path, tmp_path: Path, line: str) -> None:
    with pytest.raises(BadInput, match=f"list, line 2: {line} does not lie below {photos}; correct it"):
        names(tmp_path / "list", photos, f"a.png\n{line}\n")


def test_what_is_no_manifest(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lists nothing"):
        names(tmp_path / "list", photos, "\n\n")
    with pytest.raises(BadInput, match=r"cannot be read \(No such file"):
        listed(tmp_path / "none", photos)
    with pytest.raises(BadInput, match="is not a folder"):
        listed(tmp_path / "list", photos / "face00.png")
    with pytest.raises(BadInput, match="does not lie directly in"):
        names(tmp_path / "list", photos, "sub/a.png", flat=True)


def test_films_are_known_by_their_endings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unfade.images.film_input.pyav", lambda: None)
    found = Found(Path(), (Path("a.MP4"), Path("b.png"), Path("c")))
    assert [part.names for part in by_endings(found)] == [(Path("b.png"), Path("c")), (Path("a.MP4"),)]


def test_a_missing_file_fails_alone(run: Run, models: Models, photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.txt"
    manifest.write_text("face01.png\nnone.png\nface00.png\n")
    common = (photos, "--out", tmp_path / "out", "--manifest", manifest, "--json")
    quick = ("--start", 1, "--free-from", 1, "--factor", 4, "--spacing", 4)
    commands = {
        "restore": ("--aligned", "--restorer", models[0], "--identity", "none"),
        "targets": ("--restorer", models[0], "--prior", models[1], *quick),
        "degrade": ("--kind", "blind"),
    }
    for command, flags in commands.items():
        words = (command, *common[:2], tmp_path / command, *common[3:], *flags)
        found = run(*words)
        assert (found.code, found.counts) == (1, {"found": 3, "done": 2, "skipped": 0, "failed": 1, "no_face": 0})
        ((name, reason),) = found.json["failures"]
        assert name == "none.png"
        assert "none.png" in reason
        assert "No such file" in reason


def test_photos_in_subfolders_by_a_manifest(run: Run, models: Models, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("sub/face01.png\nsub/none.png\n")
    words = ("restore", photos, "--out", tmp_path / "out", "--manifest", tmp_path / "list", "--copy", "--json")
    found = run(*words, "--restorer", models[0], "--identity", "none")
    assert (found.counts["found"], found.counts["failed"], found.json["passed_over"]) == (2, 1, {})
    assert [path.name for path in (tmp_path / "out" / "sub").iterdir()] == ["face01.png"]


def test_parquet_needs_pyarrow(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("unfade.images.listing.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"a.parquet is a Parquet file, which needs pyarrow: pip install pyarrow, or"):
        listed(tmp_path / "a.parquet", photos)


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet(photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    place = tmp_path / "a.parquet"
    for columns in ({"path": ["b.png", "a.png"], "size": [1, 2]}, {"file": ["a.png", "b.png"]}):
        parquet.write_table(pa.table(columns), place)
        assert tuple(listed(place, photos).names) == (Path("a.png"), Path("b.png"))
    parquet.write_table(pa.table({"a": ["x"], "b": ["y"]}), place)
    with pytest.raises(BadInput, match="has the columns a, b; one of them has to be called path"):
        listed(place, photos)
    place.write_bytes(b"nothing of the kind")
    with pytest.raises(BadInput, match="is no Parquet file that can be read"):
        listed(place, photos)
