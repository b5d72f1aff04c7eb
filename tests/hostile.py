"""Files that nobody should be able to harm a server with."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

ENDINGS = (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".avif")


def hostile_files(folder: Path) -> list[Path]:
    """200 small files, none of which is a picture: cut off, of another kind than their ending, huge, oddly named."""
    folder.mkdir(parents=True, exist_ok=True)
    contents: list[tuple[str, bytes]] = []
    for i, ending in enumerate(ENDINGS * 12):  # 84: cut off somewhere in the first half
        whole = saved(ending)
        contents.append((f"cut {i}{ending}", whole[: len(whole) * (i % 12) // 24]))
    contents += [(f"huge {i}.png", png_header(10**6 + i, 10**6)) for i in range(30)]
    contents += [(f"tall {i}.png", png_header(1, 2**31 - 1 - i)) for i in range(6)]
    page = b"<html><script>alert(1)</script></html>"
    contents += [(f"page {i}{ENDINGS[i % 7]}", page) for i in range(30)]
    contents += [
        (f"program {i}{ending}", b"MZ" + bytes(60)) for i, ending in enumerate((".exe", ".html", ".svg", "", ".py"))
    ]
    odd = [
        "<img src=x onerror=alert({})>.jpg",
        "'; drop table {};--.png",
        "${{7*{}}}.jpg",
        "..{}.jpg",
        "%2e%2e%2f{}.png",
    ]
    contents += [(odd[i % 5].format(i), b"no picture") for i in range(45)]
    files = [folder / name for name, _ in contents]
    for path, (_, content) in zip(files, contents, strict=True):
        path.write_bytes(content)
    assert len({*files}) == 200
    return files


def saved(ending: str) -> bytes:
    buffer = io.BytesIO()
    kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(ending, ending[1:].upper())
    Image.effect_noise((48, 48), 60).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says to be that large, with hardly any data."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
