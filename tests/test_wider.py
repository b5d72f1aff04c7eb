"""WIDER FACE: the annotation as published, and the squares that its boxes become."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toys import levels
from unfade.datasets.wider import CENTRE_X, CENTRE_Y, EXTENT, Box, Square, cut, framed, read_annotation
from unfade.errors import BadInput
from unfade.images.files import from_bytes

PATH = Path("wider_face_val_bbx_gt.txt")

boxes = st.builds(
    Box,
    left=st.integers(-20, 2000),
    top=st.integers(-20, 2000),
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    invalid=st.booleans(),
    occlusion=st.integers(0, 2),
)
names = st.from_regex(r"[0-9]{1,2}--[A-Z][a-z]{1,8}/[0-9a-zA-Z_ ]{1,12}\.jpg", fullmatch=True).map(str.strip)
listings = st.lists(st.tuples(names, st.lists(boxes, max_size=4)), max_size=5)


def as_text(listing: list[tuple[str, list[Box]]], *, end: str = "\n") -> str:
    """The published format: a trailing space after each box, and a line of zeros where there is none."""
    rows = []
    for photo, found in listing:
        rows += [photo, str(len(found))]
        rows += [f"{b.left} {b.top} {b.width} {b.height} 1 0 0 {int(b.invalid)} {b.occlusion} 0 " for b in found]
        rows += [] if found else ["0 0 0 0 0 0 0 0 0 0 "]
    return "".join(row + end for row in rows)


# The annotation


@given(listings, st.sampled_from(["\n", "\r\n"]))
def test_what_was_written_is_read(listing: list[tuple[str, list[Box]]], end: str) -> None:
    assert read_annotation(as_text(listing, end=end), PATH) == listing


@given(listings)
def test_empty_lines_between_photos_are_passed_over(listing: list[tuple[str, list[Box]]]) -> None:
    assert read_annotation("\n".join(as_text([entry]) for entry in listing), PATH) == listing


def test_a_photo_without_faces_may_lack_its_line_of_zeros() -> None:
    box = "1 2 30 40 0 0 0 0 0 0"
    for zeros in ("0 0 0 0 0 0 0 0 0 0 \n", ""):
        text = f"0--Parade/a.jpg\n0\n{zeros}0--Parade/b.jpg\n1\n{box}\n"
        assert read_annotation(text, PATH) == [("0--Parade/a.jpg", []), ("0--Parade/b.jpg", [Box(1, 2, 30, 40)])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg\n", "the number of faces was expected in line 2, the file ends."),
        ("a.jpg\nb.jpg\n", "the number of faces was expected in line 2, found 'b.jpg'."),
        ("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "a face of 10 numbers was expected in line 4, the file ends."),
        ("a.jpg\n1\n1 2 3 4\n", "a face of 10 numbers was expected in line 3, found '1 2 3 4'."),
        (
            "a.jpg\n1\n1 2 3 4 0 0 0 0 x 0\n",
            "a face of 10 numbers was expected in line 3, found '1 2 3 4 0 0 0 0 x 0'.",
        ),
    ],
)
def test_a_malformed_annotation_is_named_with_its_line(text: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_annotation(text, PATH)
    assert str(caught.value) == f"{PATH} is not WIDER FACE's annotation: {expected}"


@given(boxes)
def test_only_plain_faces_are_usable(box: Box) -> None:
    assert box.is_usable == (not box.invalid and box.occlusion in (0, 1))
    assert box.side == min(box.width, box.height)


# The square


@given(boxes)
def test_the_box_lies_in_its_square_as_in_ffhq(box: Box) -> None:
    square = framed(box)
    assert math.isclose(square.side * EXTENT, math.sqrt(box.width * box.height), abs_tol=EXTENT / 2 + 1e-9)
    assert abs(square.left + CENTRE_X * square.side - (box.left + box.width / 2)) <= 1
    assert abs(square.top + CENTRE_Y * square.side - (box.top + box.height / 2)) <= 1


@given(boxes, st.integers(-500, 500), st.integers(-500, 500))
def test_a_box_that_moves_takes_its_square_along(box: Box, right: int, down: int) -> None:
    moved = Box(box.left + right, box.top + down, box.width, box.height)
    square = framed(box)
    assert framed(moved) == Square(square.left + right, square.top + down, square.side)


@given(boxes, st.integers(2, 5))
def test_a_box_that_grows_takes_its_square_along(box: Box, times: int) -> None:
    small, large = framed(box), framed(Box(*(times * v for v in (box.left, box.top, box.width, box.height))))
    for name in ("left", "top", "side"):
        assert abs(getattr(large, name) - times * getattr(small, name)) <= (times + 1) / 2 + 1


def test_a_typical_box_becomes_the_published_square() -> None:
    """The measured median box of a 512 px picture: 0.558 x 0.747 of it."""
    width, height = round(0.558 * 512), round(0.747 * 512)
    box = Box(round(0.5 * 512 - width / 2), round(0.55 * 512 - height / 2), width, height)
    square = framed(box)
    assert max(abs(square.left), abs(square.top), abs(square.side - 512)) <= 2


# The cut


@given(st.integers(-60, 40), st.integers(-60, 40), st.integers(1, 90))
def test_a_square_that_leaves_the_photo_is_mirrored(left: int, top: int, side: int) -> None:
    photo = from_bytes(levels(0, 12))[:, :9]
    padded = np.pad(photo.numpy(), ((0, 0), (100, 200), (100, 200)), mode="symmetric")
    expected = padded[:, 100 + top :, 100 + left :][:, :side, :side]
    assert np.array_equal(cut(photo, Square(left, top, side)).numpy(), expected)


def test_a_square_inside_the_photo_is_what_is_there() -> None:
    photo = from_bytes(levels(0, 12))
    assert torch.equal(cut(photo, Square(3, 2, 5)), photo[:, 2:7, 3:8])
