"""Preparing downloaded sets of faces as square pictures of one size, split, with a manifest. Nothing is downloaded."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unfade.atomic import atomic_write
from unfade.datasets.data_sets import OWN_SPLITS, SETS, DataSet, Face, PrepareSettings
from unfade.datasets.manifest import MANIFEST, Line, read_manifest, write_manifest
from unfade.datasets.picture_sources import Source, open_source
from unfade.datasets.splits import Split, split_by_list, split_by_rule
from unfade.datasets.wider import Square, cut
from unfade.errors import BadInput, DiskFull, OutputConflict, UnreadableImage
from unfade.images.files import encode
from unfade.images.filters import fit_square
from unfade.images.finding import real_path
from unfade.jobs.journal import Entry
from unfade.jobs.outputs import Outputs
from unfade.jobs.run_stage import SMALLEST
from unfade.jobs.runs import open_run
from unfade.jobs.workers import one_thread
from unfade.progress import Progress, silent
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint

STAGE = "prepared"
VERIFIED = "MD5 as published"


@dataclass(frozen=True)
class Prepared:
    """The result of a preparation."""

    entries: list[Entry]  # one for each picture and for each photo without a face
    expected: int  # pictures (or annotated photos) that the set, or the split, has
    missing: tuple[str, ...]  # expected pictures that are not in the source
    left_out: Mapping[str, int]  # faces in photos: why not taken, how many
    odd: tuple[str, ...] = ()  # pictures in the source whose names are not of the set

    @property
    def verified(self) -> int:
        """Pictures whose source is the published file, by its MD5."""
        return sum(VERIFIED in entry.notes for entry in self.entries)


@dataclass(frozen=True)
class _Task:
    """A picture to be made and where it goes."""

    face: Face
    split: str

    @property
    def file(self) -> str:
        return f"{self.split}/{self.face.name}.png" if self.split else f"{self.face.name}.png"

    @property
    def item(self) -> str:
        return self.face.source if self.face.square is None else f"{self.face.source} {self.face.name}"


@dataclass(frozen=True)
class _Made:
    """A thread's result for a picture."""

    task: _Task
    source_sha256: str = ""
    png: bytes = b""  # empty: the file exists already, or the picture failed
    sha256: str = ""  # of the PNG
    notes: tuple[str, ...] = ()
    error: Exception | None = None

    @property
    def content(self) -> str:
        """A key of the picture's source and of its own hash, so that a changed picture is made again."""
        return fingerprint(self.task.face.square, self.task.face.md5, self.source_sha256, self.sha256)


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
    `limit` takes only the first pictures. Of files with the same content the first is taken and the others are skipped.
    Run again, it continues where it stopped. Raises BadInput for a source that does not hold such a set, OutputConflict
    for an `out` made with other settings or inside the source; a bad picture fails alone.
    """
    settings = settings or PrepareSettings()
    _check(kind, source, out, settings, limit, workers)
    with open_source(source) as opened:
        found = SETS[kind](opened, settings)
        split = _split(found, settings, OWN_SPLITS.get(kind))
        chosen = _chosen(found, split)
        about, files = {"source": str(source)}, [out / MANIFEST, *(out / f"{part}.txt" for part in split if part)]
        identity = {"prepare": {"kind": kind, **settings.identity()}}
        with open_run(out, identity, about=about, files=files) as run, one_thread():
            for part, names in split.items():
                if part:
                    atomic_write(out / f"{part}.txt", _as_text(names))
            preparing = _Preparing(opened, settings, Outputs(STAGE, run, fingerprint(settings.identity())))
            tasks = [_Task(face, part) for face, part in chosen]
            entries = preparing.work(tasks[:limit], workers, progress)
            if not limit:
                entries += preparing.without_face(found.without)
            beyond = tasks[limit:] if limit else []
            write_manifest(out, [*preparing.lines, *_made_before(out, [task.file for task in beyond])])
    wanted = [name for names in split.values() for name in names]
    missing = (*found.missing, *(name for name in wanted if name not in found.faces))
    return Prepared(entries, found.photos or len(wanted), missing, found.left_out, found.odd)


def _check(kind: str, source: Path, out: Path, settings: PrepareSettings, limit: int | None, workers: int) -> None:
    if kind not in SETS:
        raise BadInput(f"There is no set of faces named {kind}; there are: {', '.join(SETS)}.")
    least = {"size": (settings.size, SMALLEST), "limit": (limit, 1), "workers": (workers, 1)}
    for name, (value, lowest) in {**least, "min_face": (settings.min_face, 1)}.items():
        if value is not None and value < lowest:
            raise BadInput(f"Expected `{name}` to be at least {lowest}, got {value}.")
    if settings.stems and not (settings.split or kind in OWN_SPLITS):
        raise BadInput("A list of stems is of use to a split only; say how many train and test with `split`.")
    if real_path(out).is_relative_to(real_path(source)):
        raise OutputConflict(f"{out} lies in the source {source}; name a folder outside as `out`.")


def _split(found: DataSet, settings: PrepareSettings, own: tuple[int, int] | None) -> Split:
    sizes = settings.split or own
    if sizes is None:
        return {"": tuple(found.names)}
    return split_by_list(found.names, sizes, settings.stems) if settings.stems else split_by_rule(found.names, sizes)


def _as_text(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")


def _chosen(found: DataSet, split: Split) -> list[tuple[Face, str]]:
    """The faces in the source, each with its part of the split. Raises BadInput when there is none."""
    chosen = [(found.faces[name], part) for part, names in split.items() for name in names if name in found.faces]
    if not chosen:
        raise BadInput("None of the pictures that the split asks for are in the source; check the list and the source.")
    return chosen


def _made_before(out: Path, files: Sequence[str]) -> list[Line]:
    """The lines of those of these pictures that an earlier run has made and that are still there."""
    known: dict[str, Line] = {}
    with suppress(BadInput):  # there is no manifest, or a damaged one
        known = {line.name: line for line in read_manifest(out)}
    return [known[file] for file in files if file in known and (out / file).is_file()]


class _Preparing:
    """The state of one run. Threads read, decode, resize and encode; one writes, in the order of the tasks."""

    def __init__(self, source: Source, settings: PrepareSettings, outputs: Outputs) -> None:
        self.source, self.settings, self.outputs = source, settings, outputs
        self.lines: list[Line] = []  # of the manifest
        self._first: dict[tuple[str, Square | None], str] = {}  # from a content to the file that was made from it

    def work(self, tasks: Sequence[_Task], workers: int, progress: Progress) -> list[Entry]:
        """An entry for each task, in their order."""
        with progress(STAGE, len(tasks)) as advance, ThreadPoolExecutor(workers) as pool:
            for made in _in_order(pool, self._make, tasks, ahead=2 * workers):
                self._settle(made)
                advance(1)
        return self.outputs.entries(task.item for task in tasks)

    def without_face(self, photos: Sequence[str]) -> list[Entry]:
        """An entry for each photo that has no face to take."""
        for photo in photos:
            self.outputs.no_face(photo, "", f"{photo} has no face to take.")
        return self.outputs.entries(photos)

    def _make(self, task: _Task) -> _Made:
        """In a thread: the picture as PNG, unless the existing one was made from the same source."""
        face, target = task.face, self.outputs.out / task.file
        try:
            data = self.source.read(face.source)
            made = _Made(task, hashlib.sha256(data).hexdigest())
            there = replace(made, sha256=sha256_of(target)) if target.is_file() else made
            if self.outputs.settled(task.item, there.content):
                return there
            picture = self.source.picture(face.source)
            notes = picture.notes + _verified(face, picture.pixels, data, self.source)
            png = encode(_fitted(picture.pixels, face, self.settings, self.source.place(face.source)))
            return replace(made, png=png, sha256=hashlib.sha256(png).hexdigest(), notes=notes)
        except DiskFull:
            raise
        except Exception as error:
            return _Made(task, error=error)

    def _settle(self, made: _Made) -> None:
        """Write a picture and its line of the manifest, or record why there is none."""
        task, place, outputs = made.task, self.source.place(made.task.face.source), self.outputs
        first = task.file if made.error else self._first.setdefault((made.source_sha256, task.face.square), task.file)
        if first != task.file:
            reason = f"{place} has the same content as what became {first}; it is taken once."
            outputs.skipped(task.item, reason, made.content)
            return
        with outputs.alone(task.item, place):
            outputs.claim(task.item, place, task.file)
            if made.error:
                raise made.error
        if not outputs.claimed(task.item):
            return
        if made.png:
            with outputs.writing(task.item, place, made.content) as writing:
                writing.notes = made.notes
                atomic_write(writing.path, made.png)
        if outputs.settled(task.item, made.content):
            self.lines.append(_line(made, self.settings.size))


def _in_order(
    pool: ThreadPoolExecutor, make: Callable[[_Task], _Made], tasks: Sequence[_Task], *, ahead: int
) -> Iterator[_Made]:
    """The results in the order of the tasks; at most `ahead` are made or waiting at a time, to limit memory."""
    waiting: deque[Future[_Made]] = deque()
    for task in tasks:
        waiting.append(pool.submit(make, task))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


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
            f"{place} is {width} x {height} pixels, smaller than `size` {settings.size}; "
            "choose a smaller size, or say `enlarge`."
        )
    return fit_square(pixels, settings.size, place)


def _line(made: _Made, size: int) -> Line:
    face, square = made.task.face, made.task.face.square
    cut_out = None if square is None else (square.left, square.top, square.side)
    return Line(made.task.file, made.task.split, face.source, made.source_sha256, made.sha256, size, cut_out)
