"""How damaged a face is, from the face alone: the share of its octaves that are lost to blur or drowned in noise.

`lost_octaves` measures it against the truth. `DamageNet` estimates it without: from the energy of every octave, whose
fall shows blur, and from a robust deviation of the finest diagonal detail, which shows noise (Donoho & Johnstone 1994).
Both are taken of the inner face and of its regions: neither a sharp collar nor a fleck must hide a blurred face.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.images.filters import at_size
from unfade.nets.architecture import Architecture

SIZE = 128  # px, of the faces whose damage is estimated
OCTAVES = 5  # 128 px down to 8 px, finest first
NOISE_OCTAVES = 3  # of these the robust deviation is taken: coarser ones hold too few pixels
STATISTICS = 3 * (OCTAVES + NOISE_OCTAVES)
INNER = slice(24, 120), slice(32, 96)  # rows and columns that hold little but skin, eyes and mouth
REGION = 32  # px, side of a region
CLEAN_ENERGY = (0.0053, 0.0116, 0.0193, 0.0366, 0.0303)  # of the octaves of clean inner faces in [-1, 1], RGB
MEDIAN_OF_NORMAL = 0.6745  # of the absolute value of a standard normal variable


def octaves(image: Tensor, count: int = OCTAVES) -> Iterator[Tensor]:
    """Detail of (B, C, H, W) in octaves, finest first: what each halving by means loses (Haar)."""
    for _ in range(count):
        half = F.avg_pool2d(image, 2)
        yield image - F.interpolate(half, scale_factor=2.0)
        image = half


def lost_octaves(face: Tensor, truth: Tensor) -> Tensor:
    """(B, 3, H, W) twice to (B,) in 0..1: in each octave the error's share of the truth's energy, at most 1; the mean.

    0 for the truth itself, 1 where nothing of any octave is left.
    """
    pairs = zip(octaves(face), octaves(truth), strict=True)
    return torch.stack([_energy(a - b).div(_energy(b) + 1e-12).clamp(max=1) for a, b in pairs]).mean(0)


def octaves_drowned_by(deviation: Tensor) -> Tensor:
    """What white noise of these standard deviations, any shape, in [-1, 1] units, takes from a clean face: 0..1."""
    energy = torch.tensor(CLEAN_ENERGY, dtype=deviation.dtype, device=deviation.device)
    noise = 0.75 / 4.0 ** torch.arange(OCTAVES, dtype=deviation.dtype, device=deviation.device)
    return (deviation[..., None] ** 2 * noise / energy).clamp(max=1).mean(-1)


class DamageNet(nn.Module):
    """(B, 3, 128, 128) RGB in [-1, 1] to the estimated `lost_octaves` of the inner face, (B,) in 0..1.

    Small layers work on the logarithms of the statistics. The same layers see each region, together with the statistics
    of the whole inner face, and their outputs are pooled over the regions (Zaheer et al. 2017). The buffers normalise
    the statistics.
    """

    mean: Tensor
    deviation: Tensor
    mean_of_regions: Tensor
    deviation_of_regions: Tensor

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        for name in ("mean", "mean_of_regions"):
            self.register_buffer(name, torch.zeros(STATISTICS))
        for name in ("deviation", "deviation_of_regions"):
            self.register_buffer(name, torch.ones(STATISTICS))
        self.regions = nn.Sequential(nn.Linear(2 * STATISTICS, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.layers = nn.Sequential(
            nn.Linear(STATISTICS + 3 * width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, face: Tensor) -> Tensor:
        with torch.autocast(face.device.type, enabled=False):  # energies span six orders of magnitude
            return self.of_statistics(*all_statistics(inner(face.float()))).clamp(0, 1)

    @torch.no_grad()
    def estimate(self, face: Tensor) -> Tensor:
        """The same for faces of any size, (B, 3, H, H), which are resized."""
        return self(at_size(face, SIZE))  # type: ignore[no-any-return]

    def of_statistics(self, whole: Tensor, regions: Tensor) -> Tensor:
        """(B, STATISTICS) and (B, N, STATISTICS) of N regions to (B,), not clamped, so that it can be fitted."""
        whole = (whole - self.mean) / self.deviation
        regions = (regions - self.mean_of_regions) / self.deviation_of_regions
        seen = self.regions(torch.cat([regions, whole[:, None].expand_as(regions)], -1))
        pooled = torch.cat([whole, seen.mean(1), seen.amax(1), seen.amin(1)], 1)
        return self.layers(pooled)[:, 0]  # type: ignore[no-any-return]


def inner(face: Tensor) -> Tensor:
    """The inner face of (B, 3, SIZE, SIZE); its sides are multiples of REGION."""
    return face[..., INNER[0], INNER[1]]


def all_statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) to its statistics, (B, STATISTICS), and those of its N regions, row by row, (B, N, STATISTICS)."""
    rows, columns = image.shape[2] // REGION, image.shape[3] // REGION
    cut = image.reshape(-1, 3, rows, REGION, columns, REGION).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    return statistics(image), statistics(cut).reshape(-1, rows * columns, STATISTICS)


def statistics(face: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, STATISTICS): logarithms of energies, by octave and opponent channel."""
    image = opponent(face)
    found = []
    for octave, detail in enumerate(octaves(image)):
        found.append(detail.square().mean((2, 3)))
        if octave < NOISE_OCTAVES:
            found.append(noise_energy(image))
        image = F.avg_pool2d(image, 2)
    return torch.cat(found, 1).add(1e-6).log()


def opponent(face: Tensor) -> Tensor:
    """RGB to grey, red - green and blue - green: noise shows in the last two, where faces have little detail."""
    red, green, blue = face.unbind(1)
    return torch.stack([(red + 2 * green + blue) / 4, red - green, blue - green], 1)


def noise_energy(image: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C): the squared robust deviation of the finest diagonal detail."""
    a, b = image[..., ::2, ::2], image[..., 1::2, ::2]
    c, d = image[..., ::2, 1::2], image[..., 1::2, 1::2]
    sizes = ((a - b - c + d) / 2).abs().flatten(2).sort(-1).values
    return (sizes[..., sizes.shape[-1] // 2] / MEDIAN_OF_NORMAL).square()


def _energy(detail: Tensor) -> Tensor:
    return detail.square().mean((1, 2, 3))


ARCHITECTURE = Architecture(
    "damage",
    ("mean", "deviation", "regions.0.weight", "layers.0.weight"),
    lambda config: DamageNet(),
    lambda state: [{"size": SIZE}],
)
