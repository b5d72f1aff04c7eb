"""Tiny copies of the published sets of faces, as they arrive."""

import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from toys import levels, save_pictures
from unfade.datasets.data_sets import FFHQ_LIST
from unfade.datasets.wider import ANNOTATION

SIZE = 16


def ffhq_folder(root: Path, numbers: Iterable[int], *, size: int = SIZE, nested: bool = True) -> Path:
    """`root/images1024x1024` with pictures of noise, each with its number as seed."""
    for number in numbers:
        part = f"{number // 1000 * 1000:05d}" if nested else "."
        save_pictures(root / "images1024x1024" / part, [f"{number:05d}.png"], size=size, first_seed=number)
    return root


def ffhq_list(root: Path, *, size: int = SIZE) -> Path:
    """FFHQ's list of the pictures below `root`, as if they were the published ones."""
    listed = {}
    for path in sorted(root.rglob("*.png")):
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        image = {"file_url": "https://", "file_path": path.relative_to(root).as_posix(), "file_md5": md5}
        listed[str(int(path.stem))] = {"image": {**image, "file_size": path.stat().st_size, "pixel_size": [size, size]}}
    (root / FFHQ_LIST).write_text(json.dumps(listed))
    return root / FFHQ_LIST


def wider_folder(root: Path, photos: dict[str, list[str]], *, size: int = 64) -> Path:
    """WIDER_val and its annotation; boxes are the published lines."""
    text = ""
    for seed, (photo, boxes) in enumerate(photos.items()):
        path = root / "WIDER_val" / "images" / photo
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels(seed, size)).save(path, "PNG")
        text += "".join(f"{line}\n" for line in (photo, len(boxes), *(boxes or ["0 0 0 0 0 0 0 0 0 0 "])))
    (root / "wider_face_split").mkdir(parents=True)
    (root / "wider_face_split" / ANNOTATION).write_text(text)
    return root


def zipped(folder: Path) -> Path:
    """The folder as a zip file beside it."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for found in sorted(folder.rglob("*")):
            file.write(found, found.relative_to(folder.parent))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the journal and the run's own settings, whose times and places differ."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("journal.jsonl", "run.json"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
