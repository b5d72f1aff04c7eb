"""The tool that draws the faces that adaptation degrades: they get the detail of real ones."""

import torch
from torch import Tensor

from draw_faces import MIDDLE, with_detail_of
from recorded import picture
from unfade.degradations.rings import by_ring, filtered, power, rings_of, spectrum
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.recipes.adapt_settings import DRAWN, SAMPLES

SIZE = 128
FINE = slice(MIDDLE.stop + 2, -1)  # gains are interpolated between rings, so that those next to MIDDLE change partly


def power_of(faces: Tensor) -> Tensor:
    return by_ring(power(spectrum(faces))).mean(0)


def test_soft_faces_get_the_detail_of_others() -> None:
    """Its share of the power, whatever their contrast, and nothing else of them changes."""
    faces = 0.6 * torch.cat([picture(SIZE, SIZE, 10 + i) for i in range(8)])
    colour = faces.mean((2, 3), keepdim=True)
    faint = 0.5 * (faces - colour)  # with the same share
    gains = torch.ones(3, len(rings_of(SIZE)))
    gains[:, MIDDLE.stop :] = 0.7
    soft = filtered(faint, gains)
    sharp = with_detail_of(faces, soft + colour)
    assert (power_of(soft) / power_of(faint))[FINE].max() < 0.55
    assert ((power_of(sharp) / power_of(faint))[FINE] - 1).abs().max() < 0.1
    assert (sharp.mean((2, 3)) - colour[..., 0, 0]).abs().max() < 1e-3
    torch.testing.assert_close(with_detail_of(faces, faint + colour), faint + colour, atol=1e-4, rtol=0)


def test_the_drawn_faces_of_the_package_are_not_soft() -> None:
    """What adapts to them becomes as soft as they are; the truths of the sample set are drawn by the same prior."""
    drawn, truth = (
        power_of(torch.stack([read_image(path) for path in list_images(folder)]))
        for folder in (DRAWN[128], SAMPLES / "truth")
    )
    share_of = [float(found[FINE].sum() / found[MIDDLE].sum()) for found in (drawn, truth)]
    assert share_of[0] > share_of[1]
