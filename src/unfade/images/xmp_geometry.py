"""Updates the sizes and regions in XMP, in pixels or shares of the picture, when it is turned or scaled.

Positions refer to the stored picture, before its EXIF orientation is applied, as cameras and Lightroom write them
(MWG Guidelines 2.0, Sec. 5.9), so applying the orientation turns them too.
"""

import contextlib
from xml.etree.ElementTree import Element

from unfade.images.geometry import Move
from unfade.images.packets import RDF, children, edited, local, space_of, texts_of

EXIF, TIFF = "{http://ns.adobe.com/exif/1.0/}", "{http://ns.adobe.com/tiff/1.0/}"
WIDTHS, HEIGHTS = (EXIF + "PixelXDimension", TIFF + "ImageWidth"), (EXIF + "PixelYDimension", TIFF + "ImageLength")
FOCAL_PLANE = (EXIF + "FocalPlaneXResolution", EXIF + "FocalPlaneYResolution")
SUBJECTS = (EXIF + "SubjectArea", EXIF + "SubjectLocation")
AREA, DIMENSIONS = "sType/Area#", "sType/Dimensions#"  # endings of the name spaces of MWG and ACDSee
RECTANGLE = "{http://ns.microsoft.com/photo/1.2/t/Region#}Rectangle"
IPTC_REGION = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}ImageRegion"
PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
PANORAMA_ACROSS = ("CroppedAreaImageWidthPixels", "FullPanoWidthPixels", "CroppedAreaLeftPixels")
PANORAMA_DOWN = ("CroppedAreaImageHeightPixels", "FullPanoHeightPixels", "CroppedAreaTopPixels")
ANGLES = ("AngleInfoRoll", "AngleInfoYaw", "Rotation")  # angles of a face, relative to the stored picture


def moved_packet(packet: bytes, move: Move, notes: list[str]) -> bytes:
    """An XMP packet with updated sizes and regions; entries that cannot be updated are removed, with a note."""

    def edit(root: Element) -> bool:
        return any([_sizes(root, move), _regions(root, move), _taken_out(root, move, notes)])

    return edited(packet, edit) if move.moves else packet


def _sizes(root: Element, move: Move) -> bool:
    changed = False
    for element in root.iter():
        for names, side in ((WIDTHS, move.after[0]), (HEIGHTS, move.after[1])):
            for name in names:
                for _, put in texts_of(element, name):
                    put(str(side))
                    changed = True
        for name in SUBJECTS:
            for child in element.findall(name):
                changed |= _subject(child, move)
        factors = (move.after[0] / move.before[0], move.after[1] / move.before[1])
        for entries, factor in ((PANORAMA_ACROSS, factors[0]), (PANORAMA_DOWN, factors[1])):
            for name in entries if move.orientation == 1 else ():
                for text, put in texts_of(element, f"{{{PANORAMA}}}{name}"):
                    with contextlib.suppress(ValueError):
                        put(str(round(float(text) * factor)))
                        changed = True
    return changed


def _subject(element: Element, move: Move) -> bool:
    items = list(element.iter(f"{RDF}li"))
    numbers = _floats([item.text or "" for item in items])
    if numbers is None or not 2 <= len(numbers) <= 4:
        return False
    for item, number in zip(items, move.subject(numbers), strict=True):
        item.text = str(round(number))
    return True


def _regions(root: Element, move: Move) -> bool:
    """Updates the regions of MWG and ACDSee, and Microsoft's, which are given by their upper left corner."""
    sized = _dimensions(root)
    upright = move.is_quarter and sized is not None and sized[0] != sized[1] and _alike(sized, move.after, move.before)
    changed = False
    for element in root.iter():
        if not upright:
            changed |= _area(element, move)
            for text, put in texts_of(element, RECTANGLE):
                numbers = _floats(text.split(","))
                if numbers is not None and len(numbers) == 4:
                    left, top, width, height = numbers
                    x, y = move.in_shares.point(left + width / 2, top + height / 2)
                    width, height = move.in_shares.extent(width, height)
                    put(", ".join(f"{number:.6g}" for number in (x - width / 2, y - height / 2, width, height)))
                    changed = True
        if local(element.tag) == "AppliedToDimensions":
            for name, side in (("w", move.after[0]), ("h", move.after[1])):
                for inside in element.iter():
                    for space in {space_of(key) for key in (*inside.attrib, *(child.tag for child in inside))}:
                        for _, put in texts_of(inside, f"{{{space}}}{name}") if space.endswith(DIMENSIONS) else ():
                            put(str(side))
                            changed = True
    return changed


def _area(element: Element, move: Move) -> bool:
    """Updates an area's centre and sides, which are shares unless the unit is pixels."""
    spaces = {space_of(name) for name in (*element.attrib, *(child.tag for child in element))}
    changed = False
    for space in (space for space in spaces if space.endswith(AREA)):
        entries = {name: list(texts_of(element, f"{{{space}}}{name}")) for name in ("x", "y", "w", "h", "d", "unit")}
        in_px = any(text == "pixel" for text, _ in entries["unit"])
        how = move if in_px else move.in_shares
        for names, turn in ((("x", "y"), how.point), (("w", "h"), how.extent)):
            numbers = _floats([entries[name][0][0] for name in names if entries[name]])
            if numbers is not None and len(numbers) == 2:
                for name, number in zip(names, turn(*numbers), strict=True):
                    entries[name][0][1](f"{number:.6g}")
                    changed = True
        if in_px and entries["d"] and (diameter := _floats([entries["d"][0][0]])):
            entries["d"][0][1](f"{move.extent(diameter[0], diameter[0])[0]:.6g}")
    return changed


def _dimensions(root: Element) -> tuple[float, float] | None:
    """The size of the picture to which the regions say they apply."""
    for element in root.iter():
        if local(element.tag) != "AppliedToDimensions":
            continue
        found = {
            local(name): text
            for inside in element.iter()
            for name, text in (*inside.attrib.items(), (inside.tag, inside.text or ""))
            if space_of(name).endswith(DIMENSIONS)
        }
        sides = _floats([found.get("w", ""), found.get("h", "")])
        return (sides[0], sides[1]) if sides and min(sides) > 0 else None
    return None


def _alike(first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]) -> bool:
    """Whether the first size is closer in shape to the second than to the third."""
    shape, like, unlike = (sides[0] / sides[1] for sides in (first, second, third))
    return abs(shape - like) < abs(shape - unlike)


def _taken_out(root: Element, move: Move, notes: list[str]) -> bool:
    """Removes entries about the stored picture that lack what an update would need."""
    names = set(FOCAL_PLANE)
    turned = move.orientation != 1
    found: set[str] = set()

    def goes(name: str) -> bool:
        if turned and name == IPTC_REGION:
            found.add("image regions of IPTC")
        elif turned and space_of(name) == PANORAMA:
            found.add("panorama's geometry")
        elif turned and local(name) in ANGLES and space_of(name) != EXIF[1:-1]:
            found.add("angles of faces")
        elif name in names:
            found.add("")
        else:
            return False
        return True

    for parent, child in children(root):
        if goes(child.tag):
            parent.remove(child)
    for element in root.iter():
        for name in [name for name in element.attrib if goes(name)]:
            del element.attrib[name]
    notes.extend(f"{word} left out of XMP, as the picture was turned" for word in sorted(found - {""}))
    return bool(found)


def _floats(texts: list[str]) -> list[float] | None:
    try:
        return [float(text) for text in texts]
    except ValueError:
        return None
