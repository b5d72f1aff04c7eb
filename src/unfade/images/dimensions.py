"""The size of a picture, from the header of its file."""

from pathlib import Path

from PIL import Image

from unfade.images.opening import HUSH, readable_kinds, refuse_endless
from unfade.images.tiff_pages import pages_of


def pixels_in(path: Path) -> int:
    """The number of pixels of a picture file, from its header alone; 0 for a file that cannot be read."""
    try:
        refuse_endless(path)
        with HUSH, path.open("rb") as file:
            pages = pages_of(file)
            if pages is not None:
                return pages.photo.size[0] * pages.photo.size[1]
            file.seek(0)
            with Image.open(file, formats=readable_kinds()) as image:
                return image.width * image.height
    except Exception:  # decoding the file later will report what is wrong
        return 0
