"""The report of a run: one HTML page from its records, which needs only the pictures beside it and no network."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template

from unfade.report.curves import Curve, figures
from unfade.report.listings import Listing
from unfade.report.pictures import Picture

BEFORE, AFTER = "pre-trained", "adapted"  # the rows of scores that are compared
MAP = "trust"  # a column that is no version of the face
_OUTCOMES = {"done": "done", "skipped": "skipped", "failed": "failed", "no_face": "without a face"}
_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}

WORDS = {  # columns of pictures, explained where they are shown
    "input": "the face as it was cut from the photo.",
    "face": "the face as it came.",
    "pre-trained": "what the restorer made of the face before it learned from these photos.",
    "target": "what the diffusion prior made of the first attempt: a clean guess that the restorer learned from. It is "
    "not the truth, and not a result.",
    "adapted": "the result: what the restorer made of the face after it had learned from the targets.",
    "result": "what the restorer made of the face, as it is in the restored photo.",
    "trust": "how much of the result is guessed: the redder a region, the further the true picture may be from it. In "
    "nine of ten regions it is within the bound, which is 64 grey levels or more where all is red.",
    "truth": "a clean picture of the same face, for the scores alone.",
    "supervised": "a restorer that learned from the truth itself: as much as fine-tuning can give.",
}
WORDS["targets"] = WORDS["target"]


@dataclass(frozen=True)
class Face:
    """One face and its pictures."""

    name: str
    pictures: Mapping[str, Picture]  # by column, in the order in which they are shown
    note: str = ""  # one line under the name, e.g. the scores of this face
    change: float | None = None  # between input and result: mean absolute difference in levels of 0..255


@dataclass(frozen=True)
class WholePhoto:
    """One photo and its result, to be compared with a slider."""

    name: str
    before: Picture
    after: Picture
    address: str = ""  # of the restored file, relative to the page and quoted
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    title: str
    summary: str  # one sentence on the outcome
    counts: Mapping[str, int]  # found, done, skipped, failed, no_face; the last four may be left out
    scores: Sequence[Mapping[str, object]]  # rows of a table; the first entry of each is its label
    curves: Sequence[Curve]
    settings: Mapping[str, object]  # may be nested
    faces: Sequence[Face]
    photos: Sequence[WholePhoto] = ()
    lists: Sequence[Listing] = ()  # what failed, what was noted, ...
    files: Mapping[str, str] = field(default_factory=dict)  # from a label to an address, relative to the page, quoted
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Metric:
    """How a score is shown."""

    label: str
    better: int  # +1: higher is better, -1: lower is better
    digits: int  # after the decimal point


METRICS = {
    "psnr": Metric("PSNR (dB)", +1, 2),
    "ssim": Metric("SSIM", +1, 4),
    "psnr_matched": Metric("PSNR, colours matched (dB)", +1, 2),
    "ssim_matched": Metric("SSIM, colours matched", +1, 4),
    "feature_distance": Metric("feature distance", -1, 4),
    "lpips": Metric("LPIPS", -1, 4),
    "fid": Metric("FID", -1, 2),
    "identity_distance": Metric("identity distance", -1, 3),
    "deg": Metric("identity angle (°)", -1, 2),
    "lmd": Metric("landmark distance (px)", -1, 2),
    "musiq": Metric("MUSIQ", +1, 2),
    "maniqa": Metric("MANIQA", +1, 4),
    "maniqa_pipal": Metric("MANIQA of PIPAL", +1, 4),
    "niqe": Metric("NIQE", -1, 2),
}


@dataclass(frozen=True)
class Cell:
    """One cell of the table of scores."""

    text: str
    verdict: str = ""  # better, worse, equal, or nothing


def render(report: Report) -> str:
    """The page as HTML text; writing it to a file is the caller's.

    Style, script and the small pictures are inside, the full ones beside it. All texts are escaped. Raises ValueError
    if the counts do not add up (found = done + skipped + failed + no_face), or if a small picture is no PNG, JPEG or
    WebP.
    """
    columns = list(dict.fromkeys(column for face in report.faces for column in face.pictures))
    return _template().render(
        report=report,
        counts=count_line(report.counts),
        table=score_table(report.scores),
        curves=figures(report.curves),
        columns=columns,
        words={column: WORDS[column] for column in columns if column in WORDS},
        widest=max((len(face.pictures) for face in report.faces), default=1),
        before=next(iter(columns), ""),
        after=AFTER if AFTER in columns else next((name for name in reversed(columns) if name != MAP), ""),
    )


def most_changed_first(faces: Iterable[Face]) -> list[Face]:
    """The faces by falling change; faces of equal or unknown change keep their order."""
    return sorted(faces, key=lambda face: -(face.change or 0.0))


def count_line(counts: Mapping[str, int]) -> str:
    """The counts as a sum: "22 found = 20 done + 0 skipped + 2 failed + 0 without a face"."""
    unknown = set(counts) - {"found", *_OUTCOMES}
    parts = {name: counts.get(name, 0) for name in _OUTCOMES}
    if unknown or counts.get("found") != sum(parts.values()):
        raise ValueError(
            f"expected found = done + skipped + failed + no_face, got {dict(counts)}; every item counts once"
        )
    return f"{counts['found']:,} found = " + " + ".join(f"{n:,} {_OUTCOMES[name]}" for name, n in parts.items())


def score_table(scores: Sequence[Mapping[str, object]]) -> tuple[list[str], list[list[Cell]]]:
    """Head and rows; where there are rows "pre-trained" and "adapted", a last row gives the change."""
    columns = list(dict.fromkeys(key for row in scores for key in row))
    if not columns:
        return [], []
    rows = [[Cell(_text(key, row.get(key))) for key in columns] for row in scores]
    by_label = {row.get(columns[0]): row for row in scores}
    if BEFORE in by_label and AFTER in by_label:
        changes = [_change(key, by_label[BEFORE].get(key), by_label[AFTER].get(key)) for key in columns[1:]]
        rows.append([Cell("change"), *changes])
    return [_head(key) for key in columns], rows


def data_uri(picture: bytes) -> str:
    """Encoded PNG, JPEG or WebP as an address that holds the picture itself."""
    for magic, mime in _MAGIC.items():
        if picture.startswith(magic):
            return f"data:{mime};base64,{base64.b64encode(picture).decode('ascii')}"
    found = f"{len(picture)} bytes that begin with {picture[:8]!r}"
    raise ValueError(f"expected an encoded PNG, JPEG or WebP, got {found}")


@cache
def _template() -> Template:
    page = resources.files("unfade.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = data_uri
    environment.tests["group"] = lambda value: isinstance(value, Mapping)
    environment.tests["many"] = lambda value: isinstance(value, list | tuple)
    return environment.from_string(page)


def _head(key: str) -> str:
    metric = METRICS.get(key)
    if metric is None:
        return key.replace("_", " ")
    return f"{metric.label} {'↑' if metric.better > 0 else '↓'}"


def _text(key: str, value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, float):
        return f"{value:.{METRICS[key].digits}f}" if key in METRICS else f"{value:.4g}"
    return str(value)


def _change(key: str, before: object, after: object) -> Cell:
    """The difference with its sign, and whether it is for the better. Empty where that is not known."""
    numbers = [float(v) for v in (before, after) if isinstance(v, int | float) and math.isfinite(v)]
    if key not in METRICS or len(numbers) < 2:
        return Cell("")
    difference = round(numbers[1] - numbers[0], METRICS[key].digits)
    if difference == 0:
        return Cell("±0", "equal")
    text = f"{difference:+.{METRICS[key].digits}f}".replace("-", "−")
    return Cell(text, "better" if difference * METRICS[key].better > 0 else "worse")
