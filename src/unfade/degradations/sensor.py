"""The calibration of a camera's sensor: its levels, its noise at every ISO, its illuminants, its colour matrix.

Another camera is another `Sensor`, made in code or read from a file by `load_sensor`. Its colour filter is assumed to
be GRBG.
"""

import json
import sys
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unfade.errors import BadInput

Four = tuple[float, float, float, float]  # one number per place of the colour filter: Gr, R, B, Gb
Pair = tuple[float, float]
Triple = tuple[float, float, float]

SHAPES: dict[str, tuple[int, ...]] = {  # shape of every field of a Sensor; 0: any length
    "black": (),
    "white": (),
    "isos": (0,),
    "shot": (0, 4),
    "read": (0, 4),
    "illuminant_mean": (2,),
    "illuminant_covariance": (2, 2),
    "illuminant_low": (2,),
    "illuminant_high": (2,),
    "matrix": (3, 3),
}
SINGULAR = 1e6  # a colour matrix of this condition number or above is far from invertible in 8 bits
LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Sensor:
    """The numbers of one camera. DN are its raw levels.

    JSON through `dataclasses.asdict`, and back through `Sensor(**json)`. Raises BadInput for tables of another shape,
    values that are not finite numbers, ISOs that do not rise or lack a row of noise, and an illuminant or a colour
    matrix that no camera can have.
    """

    name: str
    black: float  # DN of no light
    white: float  # DN of saturation
    isos: tuple[float, ...]  # calibrated ISOs, rising
    shot: tuple[Four, ...]  # beta1 at each ISO, DN: the part of the variance that is proportional to the level
    read: tuple[Four, ...]  # beta2 at each ISO, DN^2: the constant part, negative where black is included in DN
    illuminant_mean: Pair  # mean of (R/G, B/G) of white under the light of a photo, camera-linear
    illuminant_covariance: tuple[Pair, Pair]  # covariance of (R/G, B/G)
    illuminant_low: Pair  # draws at or below this are drawn again
    illuminant_high: Pair  # draws at or above this are drawn again
    matrix: tuple[Triple, Triple, Triple]  # colour matrix: white-balanced camera RGB (column) to linear sRGB

    def __post_init__(self) -> None:
        freeze_lists(self)
        self._check_shapes()
        self._check_noise()
        self._check_colours()

    def _check_shapes(self) -> None:
        for name, shape in SHAPES.items():
            value = getattr(self, name)
            if not _fits(value, shape):
                raise BadInput(
                    f"Expected {name} of {self.name} to be {_in_words(shape)}, got {_short(value)}; correct it."
                )

    def _check_noise(self) -> None:
        if not len(self.isos) == len(self.shot) == len(self.read) > 0:
            raise BadInput(
                f"Expected one row of shot and read noise per ISO for {self.name}, got {len(self.isos)} ISOs, "
                f"{len(self.shot)} and {len(self.read)} rows; complete the tables."
            )
        if any(later <= earlier for earlier, later in pairwise(self.isos)):
            raise BadInput(f"Expected rising ISOs for {self.name}, got {self.isos}; sort the tables.")
        if not self.black < self.white:
            raise BadInput(
                f"Expected black below white for {self.name}, got {self.black} and {self.white}; correct the levels."
            )

    def _check_colours(self) -> None:
        low, high, covariance = (
            np.array(value) for value in (self.illuminant_low, self.illuminant_high, self.illuminant_covariance)
        )
        if not ((low >= 0) & (low < high)).all():
            raise BadInput(
                f"Expected illuminant_low of {self.name} from 0 to below illuminant_high, got "
                f"{self.illuminant_low} and {self.illuminant_high}; correct the bounds."
            )
        if (covariance != covariance.T).any() or np.linalg.eigvalsh(covariance)[0] <= 0:
            raise BadInput(
                f"Expected illuminant_covariance of {self.name} to be symmetric and positive definite, got "
                f"{self.illuminant_covariance}; correct it."
            )
        sums = np.sum(self.matrix, axis=1, keepdims=True)
        if (sums == 0).any() or not np.linalg.cond(self.matrix / sums) < SINGULAR:
            raise BadInput(
                f"Expected a colour matrix of {self.name} that can be inverted, its rows not summing to 0, got "
                f"{self.matrix}; correct it."
            )

    def noise(self, iso: float) -> tuple[Four, Four]:
        """(beta1, beta2) at `iso`: linear and cubic (not-a-knot spline) between the calibrated ISOs.

        The variance of a raw level DN, black included, is beta1 * DN + beta2. Raises BadInput outside the calibrated
        range, where the noise is unknown.
        """
        if not self.isos[0] <= iso <= self.isos[-1]:
            raise BadInput(
                f"Expected an ISO of {self.isos[0]:g} to {self.isos[-1]:g}, where the noise of {self.name} is known, "
                f"got {iso:g}; choose one in that range."
            )
        shot = [float(np.interp(iso, self.isos, column)) for column in np.transpose(self.shot)]
        read = [float(value) for value in _cubic(np.array(self.isos), np.array(self.read), iso)]
        return (shot[0], shot[1], shot[2], shot[3]), (read[0], read[1], read[2], read[3])

    def draw_illuminant(self, rng: np.random.Generator) -> Triple:
        """(R/G, 1, B/G) of white under a light drawn at random: a Gaussian truncated at the sensor's bounds."""
        low, high = np.array(self.illuminant_low), np.array(self.illuminant_high)
        for _ in range(1000):
            light = rng.multivariate_normal(self.illuminant_mean, self.illuminant_covariance, method="cholesky")
            if (low < light).all() and (light < high).all():
                return float(light[0]), 1.0, float(light[1])
        raise BadInput(
            f"Expected illuminants of {self.name} between {self.illuminant_low} and {self.illuminant_high}, got none "
            "in 1000 draws; correct its mean, covariance or bounds."
        )


def load_sensor(path: Path) -> Sensor:
    """The sensor that a JSON file describes: an object with the fields of `Sensor`, as `dataclasses.asdict` gives them.

    Raises BadInput, naming the file, where the file cannot be read, a field is missing or unknown, or `Sensor` refuses
    the values.
    """
    try:
        numbers = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} cannot be opened ({error.strerror}); check that it exists and can be read.") from error
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error}); describe the sensor by one JSON object.") from error
    known = [field.name for field in fields(Sensor)]
    if not isinstance(numbers, dict) or set(numbers) != set(known):
        raise BadInput(f"{path} {_difference(numbers, known)}; a sensor has exactly {', '.join(known)}.")
    try:
        return Sensor(**numbers)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def freeze_lists(record: Any) -> None:
    """Turns the lists of a frozen dataclass, as JSON gives them, back into tuples, in place."""
    for field in fields(record):
        object.__setattr__(record, field.name, _tuples(getattr(record, field.name)))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list | tuple) else value


def _fits(value: Any, shape: tuple[int, ...]) -> bool:
    if not shape:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    length = isinstance(value, tuple) and len(value)
    return length == (shape[0] or length) and length > 0 and all(_fits(part, shape[1:]) for part in value)


def _in_words(shape: tuple[int, ...]) -> str:
    counts = [f"{length} " if length else "" for length in shape]
    return ["one finite number", "{}finite numbers", "{}rows of {}finite numbers"][len(shape)].format(*counts)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _difference(numbers: Any, known: list[str]) -> str:
    """How the fields of a sensor's file differ from the known ones; completes a sentence that starts with the file."""
    if not isinstance(numbers, dict):
        return f"holds {_short(numbers)} and not one JSON object"
    missing = [name for name in known if name not in numbers]
    return f"lacks {', '.join(missing)}" if missing else f"has {', '.join(sorted(set(numbers) - set(known)))} too"


def _cubic(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], at: float) -> npt.NDArray[np.float64]:
    """The not-a-knot cubic spline through (x, y), for each column of y separately, evaluated at `at`.

    In truncated powers: one cubic, plus (x - k)^3 from each knot k on. The outer two points at either end are no
    knots. Fewer than four points get the polynomial through them.
    """

    def basis(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        u = (places - x[0]) / max(1e-9, x[-1] - x[0])  # to 0..1, which keeps the powers well-conditioned
        knots = (x[2:-2] - x[0]) / max(1e-9, x[-1] - x[0])
        powers = [u**k for k in range(min(4, len(x)))]
        return np.stack([*powers, *[np.maximum(u - knot, 0) ** 3 for knot in knots]], axis=1)

    return np.asarray((basis(np.array([at])) @ np.linalg.solve(basis(x), y))[0], dtype=np.float64)


# The phone sensor that the authors' code for Eq. 10 / 12 is calibrated for. Its beta2 are negative because they are the
# variance extrapolated to DN 0, while the sensor's lowest level, black, is at DN 64.
PHONE = Sensor(
    name="phone",
    black=64,
    white=1023,
    isos=(100, 200, 400, 800, 1200, 1500, 1600, 2000, 2400, 3000, 3200),
    shot=(
        (0.4628, 0.5411, 0.5341, 0.4590),
        (0.8771, 1.0578, 1.0402, 0.8765),
        (1.6875, 2.0490, 2.0312, 1.7034),
        (3.1260, 3.6658, 3.6795, 3.1604),
        (4.3154, 5.0642, 5.0614, 4.3082),
        (5.3375, 6.3413, 6.3763, 5.3737),
        (5.6791, 6.7677, 6.8154, 5.7292),
        (7.3822, 8.7606, 8.8664, 7.2898),
        (8.6715, 10.3519, 10.2558, 8.6340),
        (11.0653, 13.0484, 12.7878, 11.0497),
        (11.8633, 13.9469, 13.6314, 11.8544),
    ),
    read=(
        (-29.91, -33.63, -32.50, -29.38),
        (-55.35, -65.23, -62.20, -55.15),
        (-98.52, -120.79, -117.81, -102.67),
        (-173.59, -192.95, -198.26, -177.34),
        (-215.73, -235.21, -241.86, -217.98),
        (-246.48, -270.65, -284.92, -245.41),
        (-258.71, -286.08, -304.56, -255.60),
        (-307.68, -350.98, -385.35, -289.24),
        (-310.68, -377.68, -398.80, -287.46),
        (-327.29, -427.61, -416.28, -313.26),
        (-335.60, -445.02, -420.08, -315.91),
    ),
    illuminant_mean=(0.616793, 0.475002),
    illuminant_covariance=((0.0210217, -0.0102863), (-0.0102863, 0.0076467)),
    illuminant_low=(0.422094, 0.300000),
    illuminant_high=(1.022461, 0.650572),
    matrix=(
        (1.64174, -0.59456, -0.05094),
        (-0.23143, 1.37561, -0.14418),
        (0.04149, -0.92837, 1.88312),
    ),
)
