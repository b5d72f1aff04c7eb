"""Flags about whole photos: which faces are found, and how results are written."""

from typing import TYPE_CHECKING, Annotated, Any

from unfade.cli.options import BASIC, FACES, OUTPUT, option
from unfade.errors import BadInput

if TYPE_CHECKING:
    from unfade.recipes.sources import FindSettings
    from unfade.stages.restore_photos import PhotoSettings

Aligned = Annotated[bool, option(BASIC, "The pictures are square face crops in FFHQ's framing.", "--aligned")]
Size = Annotated[
    str,
    option(
        OUTPUT,
        "With --aligned. photo: results of the size and format that came in; restorer: PNG of the network's own.",
    ),
]
Faces = Annotated[
    str | None, option(FACES, "all, largest, or numbers like 0,2 from left to right. Default: all.", "--faces")
]
MinFace = Annotated[
    float | None, option(FACES, "Width of the smallest face that is taken, px. Default: all that a quick look shows.")
]
MaxFace = Annotated[float | None, option(FACES, "Width of the largest face that is taken, px. Default: any.")]
MinScore = Annotated[float | None, option(FACES, "How sure the detector must be, 0.3..1. Default: 0.6.")]
Detector = Annotated[str | None, option(FACES, "yunet (default), retinaface-mobilenet, ... or a file.")]
Paste = Annotated[
    str | None,
    option(
        OUTPUT,
        "change (default): what the restorer changed is added, finer detail of the photo stays; "
        "face: the restored face replaces it; published: as facexlib and CodeFormer do.",
    ),
]
MatchColour = Annotated[
    bool, option(OUTPUT, "Match the colours of each face to the photo around it.", "--match-colour")
]
Colour = Annotated[bool, option(OUTPUT, "Faces of grey and sepia photos may come out in colour.", "--colour")]
Format = Annotated[str | None, option(OUTPUT, "png, jpeg, webp, tiff, bmp or avif. Default: the photo's own.")]
Quality = Annotated[int | None, option(OUTPUT, "1..100, of lossy formats. Default: that of the photo.")]
Copy = Annotated[bool, option(OUTPUT, "Copy photos without a face.", "--copy")]
Mask = Annotated[
    str | None,
    option(
        OUTPUT,
        "What tells face from hat and background when pasting: parsenet, a file, or none. Default: parsenet if it "
        "was pulled.",
    ),
]
Sidecar = Annotated[bool, option(OUTPUT, "Write a JSON file beside each result: boxes, landmarks, ...", "--sidecar")]
Background = Annotated[
    str | None,
    option(
        OUTPUT,
        "What lies around the faces. none: left as it is (usual); lanczos: enlarged (usual with --scale); "
        "realesrgan-x2 or a file: restored by that model, which needs the extra archs.",
    ),
]
Scale = Annotated[int | None, option(OUTPUT, "1, 2 or 4: how many times as large results are. Default: 1.")]
Identity = Annotated[
    str | None,
    option(
        OUTPUT,
        "What tells whether results resemble the faces: dlib-face (usual), sface, arcface-18, adaface-ir50, a "
        "file, or none.",
    ),
]
NoProvenance = Annotated[
    bool, option(OUTPUT, "Do not write into the result's metadata what made it.", "--no-provenance")
]
Report = Annotated[
    bool, option(OUTPUT, "Write report.html beside the results: photos before and after, faces, notes.", "--report")
]


def find_settings(aligned: bool, **given: Any) -> "FindSettings":
    """What the flags say of finding faces.

    `given` has which, min_face, max_face, min_score and detector; None where a flag was not used. Raises BadInput for
    flags that aligned faces have no use for.
    """
    from unfade.cli.options import changed
    from unfade.recipes.sources import FindSettings
    from unfade.stages.photos import Choice

    if aligned:
        _unused(given)
    usual = FindSettings()
    numbers = {name: given[name] for name in ("min_face", "max_face", "min_score")}
    choice = None if given["which"] is None else Choice(given["which"])
    return changed(usual, detector=given["detector"], detect=changed(usual.detect, **numbers), choice=choice)


def photo_settings(aligned: bool, **given: Any) -> "PhotoSettings":
    """What the flags say of pasting and writing. Raises BadInput for flags that aligned faces have no use for.

    `given` has way, match_colour, colour, format, quality, copy, sidecar and scale; background and mask are no
    settings of these, but refused as well.
    """
    from unfade.cli.options import changed
    from unfade.stages.restore_photos import PhotoSettings

    if aligned:
        _unused({name: given[name] for name in ("way", "match_colour", "copy", "scale", "background", "mask")})
    usual = PhotoSettings()
    ring = "ring" if given["match_colour"] else None
    return changed(
        usual,
        paste=changed(usual.paste, way=given["way"], colour=ring),
        colour=given["colour"], kind=given["format"], quality=given["quality"], copy=given["copy"],
        sidecar=given["sidecar"], scale=given["scale"],
    )  # fmt: skip


def _unused(given: dict[str, Any]) -> None:
    names = {"which": "faces", "way": "paste"}
    for name, value in given.items():
        if value not in (None, False):
            flag = names.get(name, name).replace("_", "-")
            raise BadInput(f"--{flag} is about whole photos, and --aligned says that these are faces: leave one out.")
