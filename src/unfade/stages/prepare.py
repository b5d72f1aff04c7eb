"""Downloaded sets of faces to a folder of square pictures of one size, split, with a manifest. Nothing is fetched."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unfade.atomic import atomic_write
from unfade.errors import BadInput, DiskFull, OutputConflict, UnfadeError, UnreadableImage
from unfade.images.files import encode
from unfade.images.filters import fit_square
from unfade.progress import Progress, silent
from unfade.stages.data_sets import OWN_SPLITS, SETS, DataSet, Face, PrepareSettings
from unfade.stages.items import SMALLEST
from unfade.stages.manifest import Line, write_manifest
from unfade.stages.picture_sources import Source, open_source
from unfade.stages.splits import Split, split_by_list, split_by_rule
from unfade.stages.wider import Square, cut
from unfade.stages.workers import one_thread
from unfade.store.checkpoints import sha256_of
from unfade.store.runs import Entry, Journal, Status, open_run

STAGE = "prepared"
VERIFIED = "MD5 as published"


@dataclass(frozen=True)
class Prepared:
    """What came of it."""

    entries: list[Entry]  # one for each picture and for each photo without a face
    expected: int  # pictures (or annotated photos) that the set, or the split, has
    missing: tuple[str, ...]  # those of them that are not in the source
    left_out: Mapping[str, int]  # faces in photos: why not taken, how many

    @property
    def verified(self) -> int:
        """Pictures whose source is the published file, by its MD5."""
        return sum(VERIFIED in entry.notes for entry in self.entries)


@dataclass(frozen=True)
class _Task:
    """A picture to be made and where it goes."""

    face: Face
    split: str
    before: Entry | None = None  # what the journal says of it

    @property
    def file(self) -> str:
        return f"{self.split}/{self.face.name}.png" if self.split else f"{self.face.name}.png"

    @property
    def item(self) -> str:
        return self.face.source if self.face.square is None else f"{self.face.source} {self.face.name}"

    @property
    def is_ours(self) -> bool:
        """The file of that name, if there is one, was written by this run."""
        return self.before is not None and self.before.output == self.file


@dataclass(frozen=True)
class _Made:
    """What a thread has made of a picture."""

    task: _Task
    source_sha256: str = ""
    png: bytes = b""  # empty: it is there already, or failed
    sha256: str = ""  # of the PNG
    key: str = ""
    notes: tuple[str, ...] = ()
    error: str = ""


def prepare(
    kind: str,
    source: Path,
    out: Path,
    *,
    settings: PrepareSettings | None = None,
    limit: int | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Prepared:
    """Fill `out` with the faces of a downloaded set, as PNG of `settings.size` pixels, in `workers` threads.

    `kind` is one of SETS. Writes out/manifest.jsonl (a line for each picture that is there), and with a split
    out/train, out/test and the lists out/train.txt and out/test.txt, whose pictures may be missing from the source.
    `limit` takes the first so many only. Of files with the same content the first is taken and the others are skipped.
    Run again, it goes on where it stopped. Raises BadInput for a source that is not what it should be, OutputConflict
    for an `out` made with other settings or lying in the source; a picture that is bad fails alone.
    """
    settings = settings or PrepareSettings()
    _check(kind, source, out, settings, limit, workers)
    with open_source(source) as opened:
        found = SETS[kind](opened, settings)
        split = _split(found, settings, OWN_SPLITS.get(kind))
        chosen = _chosen(found, split)
        journal = open_run(out, {"prepare": {"kind": kind, **settings.identity()}}, about={"source": str(source)})
        for part, names in split.items():
            if part:
                atomic_write(out / f"{part}.txt", _as_text(names))
        tasks = [_begun(face, part, journal) for face, part in chosen[:limit]]
        with one_thread():
            made, lines = _run(tasks, opened, out, settings, journal, workers, progress)
        write_manifest(out, lines)
    without = [] if limit else [_no_face(photo, journal) for photo in found.without]
    wanted = [name for names in split.values() for name in names]
    missing = (*found.missing, *(name for name in wanted if name not in found.faces))
    return Prepared(made + without, found.photos or len(wanted), missing, found.left_out)


def _check(kind: str, source: Path, out: Path, settings: PrepareSettings, limit: int | None, workers: int) -> None:
    if kind not in SETS:
        raise BadInput(f"There is no set of faces named {kind}; there are: {', '.join(SETS)}.")
    least = {"--size": (settings.size, SMALLEST), "--limit": (limit, 1), "--workers": (workers, 1)}
    for flag, (value, lowest) in {**least, "--min-face": (settings.min_face, 1)}.items():
        if value is not None and value < lowest:
            raise BadInput(f"Expected {flag} to be at least {lowest}, got {value}.")
    if settings.stems and not (settings.split or kind in OWN_SPLITS):
        raise BadInput("A list of stems is of use to a split only; say how many train and test with --split.")
    if out.resolve().is_relative_to(source.resolve()):
        raise OutputConflict(f"{out} lies in the source {source}; name a folder outside with --out.")


def _split(found: DataSet, settings: PrepareSettings, own: tuple[int, int] | None) -> Split:
    sizes = settings.split or own
    if sizes is None:
        return {"": tuple(found.names)}
    return split_by_list(found.names, sizes, settings.stems) if settings.stems else split_by_rule(found.names, sizes)


def _as_text(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")


def _chosen(found: DataSet, split: Split) -> list[tuple[Face, str]]:
    """The faces that are there, each with its part of the split. Raises BadInput when there is none."""
    chosen = [(found.faces[name], part) for part, names in split.items() for name in names if name in found.faces]
    if not chosen:
        raise BadInput("None of the pictures that the split asks for are in the source; check the list and the source.")
    return chosen


def _begun(face: Face, part: str, journal: Journal) -> _Task:
    task = _Task(face, part)
    return replace(task, before=journal.entry(STAGE, task.item))


def _run(
    tasks: Sequence[_Task],
    source: Source,
    out: Path,
    settings: PrepareSettings,
    journal: Journal,
    workers: int,
    progress: Progress,
) -> tuple[list[Entry], list[Line]]:
    """Threads read, decode, resize and encode; this one writes, in the order of the tasks, so that runs agree."""
    entries, lines = [], []
    taken: dict[tuple[str, Square | None], str] = {}
    with progress(STAGE, len(tasks)) as advance, ThreadPoolExecutor(workers) as pool:
        for made in _in_order(pool, lambda task: _make(task, source, out, settings), tasks, ahead=2 * workers):
            entry = _settle(made, taken, source, out, journal)
            entries.append(entry)
            if entry.status == "done":
                lines.append(_line(made, settings.size))
            advance(1)
    return entries, lines


def _in_order(
    pool: ThreadPoolExecutor, make: Callable[[_Task], _Made], tasks: Sequence[_Task], *, ahead: int
) -> Iterator[_Made]:
    """The results in the order of the tasks; so many are made or waiting at a time, for the sake of memory."""
    waiting: deque[Future[_Made]] = deque()
    for task in tasks:
        waiting.append(pool.submit(make, task))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _make(task: _Task, source: Source, out: Path, settings: PrepareSettings) -> _Made:
    """In a thread: the picture as PNG, unless the one that is there was made of the same."""
    face, target, before = task.face, out / task.file, task.before
    try:
        data = source.read(face.source)
        content = hashlib.sha256(data).hexdigest()
        key = hashlib.sha256(f"{settings.identity()}/{face.square}/{face.md5}/{content}".encode()).hexdigest()[:16]
        if before is not None and before.status == "done" and task.is_ours and target.is_file():
            there = sha256_of(target)
            if before.key == f"{key}/{there}":
                return _Made(task, content, sha256=there, key=before.key)
        picture = source.picture(face.source)
        notes = picture.notes + _verified(face, picture.pixels, data, source)
        png = encode(_fitted(picture.pixels, face, settings, source.place(face.source)))
    except DiskFull:
        raise
    except UnfadeError as error:
        return _Made(task, error=str(error))
    made = hashlib.sha256(png).hexdigest()
    return _Made(task, content, png, made, f"{key}/{made}", notes)


def _verified(face: Face, pixels: Tensor, data: bytes, source: Source) -> tuple[str, ...]:
    """Raises UnreadableImage for a file of the published size that is not the published file."""
    if not face.md5 or pixels.shape[-1] != face.published_side:
        return ()
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != face.md5:
        raise UnreadableImage(
            f"{source.place(face.source)} has the MD5 {found}, its publisher's list says {face.md5}; download it again."
        )
    return (VERIFIED,)


def _fitted(pixels: Tensor, face: Face, settings: PrepareSettings, place: Path) -> Tensor:
    """The square picture of the size asked for. Raises BadInput for one that is not square or too small."""
    if face.square is not None:
        pixels = cut(pixels, face.square)
    height, width = pixels.shape[-2:]
    if settings.crop and height != width:
        side = min(height, width)
        pixels = cut(pixels, Square((width - side) // 2, (height - side) // 2, side))
        height, width = side, side
    if height == width < settings.size and not settings.enlarge:
        raise BadInput(
            f"{place} is {width} x {height} pixels, smaller than --size {settings.size}; "
            "choose a smaller size, or say --enlarge."
        )
    return fit_square(pixels, settings.size, place)


def _settle(
    made: _Made, taken: dict[tuple[str, Square | None], str], source: Source, out: Path, journal: Journal
) -> Entry:
    task = made.task
    target, place = out / task.file, source.place(task.face.source)
    if made.error:
        return _without(task, "failed", made.error, out, journal)
    first = taken.setdefault((made.source_sha256, task.face.square), task.file)
    if first != task.file:
        reason = f"{place} has the same content as what became {first}; it is taken once."
        return _without(task, "skipped", reason, out, journal)
    if not made.png and task.before is not None:
        return task.before
    if target.exists() and not task.is_ours:
        reason = f"{target} is there already and was not made from {place} by this run; move it or name another folder."
        return _recorded(Entry(STAGE, task.item, "skipped", reason=reason), journal)
    journal.record(Entry(STAGE, task.item, "begun", output=task.file))
    atomic_write(target, made.png)
    return _recorded(Entry(STAGE, task.item, "done", made.key, notes=made.notes, output=task.file), journal)


def _without(task: _Task, status: Status, reason: str, out: Path, journal: Journal) -> Entry:
    if task.is_ours:
        (out / task.file).unlink(missing_ok=True)  # of an earlier pass: it must not pass for the result
    return _recorded(Entry(STAGE, task.item, status, reason=reason), journal)


def _no_face(photo: str, journal: Journal) -> Entry:
    return _recorded(Entry(STAGE, photo, "no_face", reason=f"{photo} has no face to take."), journal)


def _recorded(entry: Entry, journal: Journal) -> Entry:
    """Recorded unless the journal says so already."""
    if journal.entry(entry.stage, entry.item) != entry:
        journal.record(entry)
    return entry


def _line(made: _Made, size: int) -> Line:
    face, square = made.task.face, made.task.face.square
    cut_out = None if square is None else (square.left, square.top, square.side)
    return Line(made.task.file, made.task.split, face.source, made.source_sha256, made.sha256, size, cut_out)
