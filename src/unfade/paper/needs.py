"""What each table needs: photos, models, and about how much time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from unfade.paper.costs import steps_of
from unfade.paper.printed import REAL, cameras_of, printed_tables
from unfade.paper.settings import missing, needs
from unfade.paper.tables import (
    CODEFORMER,
    COSTS,
    SWINIR,
    TABLES,
    By,
    Learning,
    Pseudo,
    Scale,
    Share,
    Way,
    learning_of,
    tables_named,
)
from unfade.stages.methods import METHODS

K = 600  # of 1000, where the paper's sampling starts
MOST = 24  # default number of photos to adapt to, and of photos to score, in these estimates


@dataclass(frozen=True)
class Speed:
    """Measured seconds per item; the time of a table follows from the number of items it needs."""

    where: str
    evaluation: float  # of the prior, for one face
    trained: Mapping[str, float]  # part -> a face in one step of fine-tuning


@dataclass(frozen=True)
class Pace:
    """The amount of work at a scale, and its speed."""

    kept: int  # number of the 1000 steps that are used for targets
    trained: Mapping[str, int]  # part -> faces seen in a fine-tuning: steps times batch
    speeds: tuple[Speed, ...]


# builtin, two cores: half the processor time of one, measured while other work slowed it; a face in a step of
# `small-restorer` is taken for three evaluations of the prior, which it is a step of. No discriminator is counted.
# paper: two cores and the RTX 3090 of table 27; a face in a step is taken for three passes of its restorer.
PACES = {
    "builtin": Pace(50, {SWINIR: 150 * 8, CODEFORMER: 80 * 8}, (
        Speed("two cores", 0.12, {SWINIR: 0.17, CODEFORMER: 3 * 0.12}),
    )),
    "paper": Pace(250, {SWINIR: 20_000 * 16, CODEFORMER: 40_000 * 8}, (
        Speed("two cores", 2.2, {SWINIR: 3 * 1.3, CODEFORMER: 3 * 4.6}),
        Speed("RTX 3090", 0.0402, {SWINIR: 3 * 0.0311, CODEFORMER: 3 * 0.0274}),
    )),
}  # fmt: skip


@dataclass
class Work:
    """Pieces that tables are made of, each counted once even if several tables share it."""

    scale: Scale
    pace: Pace
    most: int
    pieces: dict[tuple[object, ...], tuple[int, str, int]] = field(default_factory=dict)

    def add(self, way: Way, camera: str) -> None:
        """The work for a row besides restoring: evaluations of the prior and faces trained on."""
        if isinstance(way, Share) or missing(self.scale, way):
            return
        learning = learning_of(way)
        if isinstance(way, Pseudo):
            self._targets(way.restorer, Learning(way.targets), camera, "score")
        if learning is not None:
            self._learned(getattr(way, "restorer", SWINIR), learning, camera)
        if isinstance(way, By) and self.scale.methods[way.method][0] in METHODS:
            self._method(way.method, learning, camera, "score")

    def seconds(self, speed: Speed) -> float:
        """The time for all pieces, one after the other."""
        return sum(
            evaluations * speed.evaluation + (faces * speed.trained[part] if faces else 0.0)
            for evaluations, part, faces in self.pieces.values()
        )

    def _learned(self, part: str, learning: Learning, camera: str) -> None:
        if learning.photos is not None and learning.photos >= self.most:
            return
        if learning.targets.method:
            self._method(learning.targets.method, None, camera, "learn")
        elif not learning.on_truth:
            self._targets(part, learning, camera, "learn")
        self.pieces["learned", part, learning, camera] = (0, part, self.pace.trained[part])

    def _targets(self, part: str, learning: Learning, camera: str, side: str) -> None:
        steps = (learning.targets.start or K) * self.pace.kept // 1000
        key = ("targets", part, learning.targets, learning.start_from, camera, side)
        self.pieces[key] = (self.most * steps, part, 0)

    def _method(self, method: str, learning: Learning | None, camera: str, side: str) -> None:
        steps = steps_of(METHODS[self.scale.methods[method][0]])
        self.pieces["method", method, learning, camera, side] = (self.most * steps, SWINIR, 0)


def work_of(names: Iterable[str], scale_name: str, scale: Scale, most: int) -> Work:
    """The time for several tables together."""
    work = Work(scale, PACES[scale_name], most)
    for name in names:
        for photos in printed_tables()[name].sets if name != COSTS else ():
            for camera in cameras_of(photos):
                for way in TABLES[name].values():
                    work.add(way, camera)
    return work


def listed(scale_name: str, scale: Scale, most: int = 0) -> list[dict[str, str]]:
    """A row for each table, and one for all of them together."""
    return [_listed(name, scale_name, scale, most or MOST) for name in (*tables_named("all"), "all")]


def _listed(name: str, scale_name: str, scale: Scale, most: int) -> dict[str, str]:
    names = tables_named(name)
    pace = PACES[scale_name]
    work = work_of(names, scale_name, scale, most)
    times = {speed.where: "minutes" if name == COSTS else _duration(work.seconds(speed)) for speed in pace.speeds}
    models = dict.fromkeys(model for each in names if each != COSTS for model in needs(each, scale))
    caption = "all tables; shared work is counted once" if name == "all" else printed_tables()[name].caption
    return {"table": name, "what": caption, "photos": _photos(names), "models": ", ".join(models) or "none", **times}


def _photos(names: Iterable[str]) -> str:
    real = {REAL in printed_tables()[name].sets for name in names if name != COSTS}
    return " and ".join(["faces"] * (False in real) + ["photos"] * (True in real)) or "none"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return (
        f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
        if seconds < 172_800
        else f"{seconds / 86_400:.0f} d"
    )
