"""Which targets are learned from."""

from pathlib import Path

import pytest
import torch

from recorded import picture
from unfade.errors import BadInput
from unfade.faces.identity import Likeness
from unfade.images.files import read_image, write_png
from unfade.images.filters import resize
from unfade.stages.agreement import agreeing, disagreement
from unfade.stages.finetune import Pair


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Eight noisy faces with sharp targets; the target of the fourth is another face's."""
    made = []
    for i in range(8):
        face = picture(64, 64, i)[0]
        noise = 0.1 * torch.randn(face.shape, generator=torch.Generator().manual_seed(i))
        made.append(Pair(tmp_path / f"face{i}.png", tmp_path / f"target{i}.png"))
        write_png(made[-1].face, (face + noise).clamp(-1, 1))
        write_png(made[-1].target, face if i != 3 else picture(64, 64, 99)[0])
    return made


def test_a_target_of_another_picture_is_left_out(pairs: list[Pair]) -> None:
    found = agreeing(pairs, 3)
    assert found.left_out == [pairs[3]]
    assert found.kept == [pair for pair in pairs if pair is not pairs[3]]
    assert agreeing(pairs, 0).kept == pairs
    assert agreeing([], 3).kept == []


def test_a_target_of_another_person_is_left_out(pairs: list[Pair]) -> None:
    """By the first attempt, here the face itself, whose mean brightness stands for the person."""
    dark = pairs[5].target
    write_png(dark, read_image(dark) * 0.8 - 0.02)
    apart = Likeness(lambda one, other: float((one.mean() - other.mean()).abs()), limit=0.01)
    found = agreeing([pair for pair in pairs if pair is not pairs[3]], 50, apart, pairs[0].face.parent)
    assert found.left_out == [pairs[5]]
    always = Likeness(lambda one, other: 2.0, limit=0.6)
    assert agreeing(pairs, 50, always, pairs[0].face.parent).left_out == []  # an embedder that knows nobody


def test_what_agrees_is_never_left_out_for_being_worse_than_the_best(tmp_path: Path) -> None:
    image = picture(64, 64, 1)[0]
    pairs = [Pair(tmp_path / "face.png", tmp_path / f"target{i}.png") for i in range(4)]
    write_png(pairs[0].face, image)
    for i, pair in enumerate(pairs):
        write_png(pair.target, (image + 0.01 * i).clamp(-1, 1))
    assert agreeing(pairs, 1).left_out == []


def test_another_colour_is_a_disagreement_and_blur_is_not() -> None:
    face = picture(64, 64, 2)
    blurred = resize(resize(face, 16, 16), 64, 64)
    tinted = face + torch.tensor([0.2, 0.0, -0.2]).view(1, 3, 1, 1)
    assert float(disagreement(face, blurred)) < 0.02
    assert float(disagreement(face, tinted)) == pytest.approx(0.2 / 3, abs=1e-3)
    assert float(disagreement(face, face)) == 0


def test_a_limit_below_the_median_is_refused(pairs: list[Pair]) -> None:
    with pytest.raises(BadInput, match="to be 1 or more"):
        agreeing(pairs, 0.5)
