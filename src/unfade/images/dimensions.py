"""How large a picture is, from the head of its file."""

from pathlib import Path

from PIL import Image

from unfade.images.opening import HUSH, readable_kinds


def pixels_in(path: Path) -> int:
    """Pixels of a picture file, by its head alone; 0 for one that cannot be read."""
    try:
        with HUSH, path.open("rb") as file, Image.open(file, formats=readable_kinds()) as image:
            return image.width * image.height
    except Exception:  # what is wrong with it, reading it will say
        return 0
