"""What damaged the photos of a folder, in words, numbers and a picture, from the degradation fitted to them."""

import io
from dataclasses import asdict, dataclass
from os.path import lexists
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unfade.atomic import atomic_write
from unfade.degradations.fitted_file import degradation_file, load_degradation
from unfade.degradations.measured import SHARPEST, Blur, Damage, Noise, Spread, damage_of
from unfade.errors import OutputConflict
from unfade.images.files import to_bytes
from unfade.own_modes import own_modes
from unfade.recipes.damage_sheet import damage_sheet

PICTURE = "degradation.png"
MADE_BY = ("Software", "unfade inspect")  # a text in the picture, before its pixels
PNG, BEGIN = b"\x89PNG", 200  # the first bytes of a PNG, and how many there are up to that text at most
UNEVEN = 1.3  # ratio of widths, or of grains, above which the direction is given; even blur is fitted with 1.1
COARSE = 1.5  # px: coarser grain covers several pixels
COLOURED, GREY = 0.4, 0.8  # correlations of the channels' noise: below and above
FAINT = 3.0  # grey levels: fainter noise cannot be told from what is left of the faces
BLOCKED = 1.2  # ratio of steps from which blocks are reported: JPEG of quality 80 has 1.3, no JPEG 1.0
FADED = 0.05  # a contrast that differs from 1 by more is reported


@dataclass(frozen=True)
class Inspected:
    """The damage to the photos of a folder."""

    degradation: Path  # the file
    damage: Damage
    picture: Path

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self.damage), "degradation": str(self.degradation), "picture": str(self.picture)}


@own_modes()
def inspect(place: str | Path, out: str | Path | None = None) -> Inspected:
    """Measure the degradation in a file or a run folder, and draw a picture of it.

    The picture is `degradation.png` in the folder `out`; without one it is written beside the file, under the file's
    name, and replaces an older one. Raises BadInput if there is no degradation, BadCheckpoint if its file is damaged,
    and OutputConflict if anything else is in the picture's place.
    """
    file = degradation_file(place)
    picture = _beside(file) if out is None else Path(out) / PICTURE
    fitted = load_degradation(file)
    damage = damage_of(fitted)
    _write(picture, _encoded(damage_sheet(fitted, damage)))
    return Inspected(file, damage, picture)


def _beside(file: Path) -> Path:
    """The picture that lies beside the file of a degradation, and never that file itself."""
    named = file.with_suffix(".png")
    return named if named != file else file.with_name(f"{file.name}.png")


def in_words(damage: Damage) -> dict[str, str]:
    """A line of text for each kind of damage."""
    grey = f", {damage.grey} of them without colour" if damage.grey else ""
    return {
        "fitted to": f"{damage.photos} faces of {damage.size} px{grey}; lengths are in pixels of such a face",
        **_of_blur(damage.blur),
        **_of_noise(damage.noise),
        "contrast": _of_contrast(damage.contrast),
        **({} if damage.blocks is None else {"JPEG": _of_blocks(damage.blocks)}),
    }


def _of_blur(blur: Blur) -> dict[str, str]:
    if blur.widest <= SHARPEST:
        return {"blur": f"none that can be measured: a point is less than {SHARPEST:.1f} px wide"}
    shape = f"a point is {blur.width:.1f} px wide (at half maximum)"
    if blur.widest > UNEVEN * blur.across:
        place = f"at {blur.angle:.0f} degrees from horizontal"
        shape = f"a point is {blur.widest:.1f} px wide {place}, {blur.across:.1f} px across (at half maximum)"
    by_channel = {}
    if max(blur.channels) > UNEVEN * min(blur.channels):
        by_channel["blur, by channel"] = f"{_of_channels(blur.channels, 1)} px"
    return {
        "blur": f"{shape}; reducing a face {blur.scale:.1f} times and enlarging it again loses as much",
        **by_channel,
        "blur, photo by photo": f"{_of_spread(blur.photos, 1)} px in 8 out of 10 photos",
    }


def _of_noise(noise: Noise) -> dict[str, str]:
    places = {"in dark parts": noise.dark, "at middle brightness": noise.middle, "in bright parts": noise.bright}
    strength = ", ".join(f"{level:.0f} {place}" for place, level in places.items())
    if noise.middle < FAINT:
        return {"noise": f"hardly any; in grey levels of 0 to 255: {strength}"}
    grain = f"{'coarse' if noise.grain > COARSE else 'fine'}, {noise.grain:.1f} px"
    if max(noise.rows, noise.columns) > UNEVEN * min(noise.rows, noise.columns):
        grain = f"uneven, {noise.rows:.1f} px along rows and {noise.columns:.1f} px along columns"
    colour = "grey" if noise.correlation > GREY else "in colour" if noise.correlation < COLOURED else "partly grey"
    return {
        "noise": f"standard deviation, in grey levels of 0 to 255: {strength}",
        "noise, photo by photo": f"{_of_spread(noise.photos, 0)} at middle brightness in 8 out of 10 photos",
        "grain": f"{grain}; {colour} (correlation of the channels {noise.correlation:.2f})",
    }


def _of_contrast(contrast: tuple[float, float, float]) -> str:
    if max(abs(gain - 1) for gain in contrast) < FADED:
        return "kept"
    return f"multiplied by {_of_channels(contrast, 2)}"


def _of_blocks(blocks: float) -> str:
    if blocks < BLOCKED:
        return "no blocks of 8 x 8 pixels found"
    return f"blocks of 8 x 8 pixels: steps at their borders are {blocks:.1f} times as high as others (not reproduced)"


def _of_channels(values: tuple[float, float, float], digits: int) -> str:
    names = ("red", "green", "blue")
    return ", ".join(f"{value:.{digits}f} ({name})" for name, value in zip(names, values, strict=True))


def _of_spread(spread: Spread, digits: int) -> str:
    low, _, high = (f"{value:.{digits}f}" for value in spread)
    return f"about {low}" if low == high else f"{low} to {high}"


def _encoded(picture: Tensor) -> bytes:
    """A PNG that says by what it was made, so that it may be replaced when the run has gone on."""
    made_by, buffer = PngInfo(), io.BytesIO()
    made_by.add_text(*MADE_BY)
    Image.fromarray(to_bytes(picture)).save(buffer, "PNG", pnginfo=made_by)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Raises OutputConflict where anything else is there, a folder or a link to nothing included."""
    if lexists(path) and not (path.is_file() and _is_made_here(path)):
        raise OutputConflict(
            f"{path} is there already and was not drawn by this command; move it away, or name another folder as `out`."
        )
    atomic_write(path, content)


def _is_made_here(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(BEGIN)
    return begin.startswith(PNG) and "\0".join(MADE_BY).encode() in begin
