"""Whole photos in reports, and the report of restored photos."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unfade.atomic import atomic_write
from unfade.images.finding import REPORT, REPORTED, RUN, Found
from unfade.jobs.journal import Counts, Entry, notes_of
from unfade.jobs.runs import JOURNAL, Run
from unfade.report.document import Face, Report, WholePhoto, most_changed_first, render
from unfade.report.listings import Line, Listing, notes, undone
from unfade.report.pictures import address_of, change_between, picture_of, side_for
from unfade.stages.trust_maps import MAP
from unfade.stages.views import FacesToo, Views, write_views
from unfade.store.seeds import fingerprint

SHOWN = 1000  # at most so many photos, and so many faces, are on a page
CHANGED_MOST = "faces, those that changed most"  # the faces that `shown_faces` keeps
RESULTS = ("adapted", "result")  # titles of columns that hold results
COLUMNS = ("face", "result", "trust")  # of the report of restored photos


def photo_views(
    run: Run, found: Found, entries: Sequence[Entry], results: Path, faces: FacesToo | None = None, key: str = ""
) -> dict[str, Views]:
    """Write views of the finished photos, whose results are in the folder `results`, to `report` in that of a run."""
    done = {e.item: (found.root / e.item, *_results(e, results)) for e in entries if e.status == "done"}
    shown = {name: done[name] for name in list(done)[:SHOWN]}
    return write_views(shown, run.within(REPORTED), faces, key=key)


def _results(entry: Entry, folder: Path) -> Iterator[Path]:
    """The result of a photo and, if there is one, its trust map."""
    yield folder / entry.output
    yield from (folder / file for file in entry.outputs[1:] if file.endswith(MAP))


def shown_photos(entries: Sequence[Entry], results: Path, views: Mapping[str, Views], folder: Path) -> list[WholePhoto]:
    """The photos that have views, for a page in `folder`."""
    side = side_for(2 * len(views))

    def shown(entry: Entry) -> WholePhoto:
        before, after = (picture_of(path, folder, side) for path in views[entry.item].photo)
        notes = [note for _, note in notes_of([entry])]
        return WholePhoto(entry.item, before, after, address_of(results / entry.output, folder), notes)

    return [shown(entry) for entry in entries if entry.item in views]


def shown_faces(
    faces: Mapping[str, Mapping[str, Path]], folder: Path, *, notes: Mapping[str, str] | None = None
) -> list[Face]:
    """The faces that changed most, for a page in `folder`: at most SHOWN of them, the most changed first.

    Each face has a file for each column; its change is measured from the first column to its result.
    """
    changes = {name: change_between(next(iter(files.values())), _result(files)) for name, files in faces.items()}
    known = [Face(name, {}, (notes or {}).get(name, ""), change) for name, change in changes.items()]
    shown = most_changed_first(known)[:SHOWN]
    side = side_for(sum(len(faces[face.name]) for face in shown))
    return [
        replace(face, pictures={column: picture_of(path, folder, side) for column, path in faces[face.name].items()})
        for face in shown
    ]


def _result(files: Mapping[str, Path]) -> Path:
    return next(files[column] for column in RESULTS if column in files)


def report_restored(
    run: Run,
    found: Found,
    entries: Sequence[Entry],
    settings: Mapping[str, object],
    *,
    faces: FacesToo | None = None,
    films: Found | None = None,
) -> None:
    """Write the report of restored photos to their folder; `films` names the entries that are videos."""
    out = run.folder
    names = {name.as_posix() for name in films.names} if films else set[str]()
    photos = [entry for entry in entries if entry.item not in names]
    views = photo_views(run, found, photos, out, faces, fingerprint(settings))
    counts, pairs = Counts.of(entries), _pairs(views)
    page = Report(
        title="unfade: restored photos",
        summary=f"{counts.found} photos{' and videos' * bool(names)} found, {counts.done} restored.",
        counts=counts.as_dict(),
        scores=[],
        curves=[],
        settings=settings,
        faces=shown_faces(pairs, out),
        photos=shown_photos(photos, out, views, out),
        lists=[*undone(entries), *_films(entries, names, out), *notes(entries)],
        files={"the journal: what became of every item": JOURNAL, "the settings of the run": RUN},
        warnings=cut_short(Counts.of(photos).done, "photos") + cut_short(len(pairs), CHANGED_MOST),
    )
    atomic_write(out / REPORT, render(page))


def _pairs(views: Mapping[str, Views]) -> dict[str, dict[str, Path]]:
    """The files of every face, by the photo's name and the number of the face in it."""
    return {
        f"{name}, face {index}": dict(zip(COLUMNS, pictures, strict=False))
        for name, view in views.items()
        for index, pictures in view.faces.items()
    }


def _films(entries: Sequence[Entry], names: Collection[str], out: Path) -> list[Listing]:
    lines = [Line(e.item, address=address_of(out / e.output, out)) for e in entries if e.item in names and e.output]
    return [Listing("Videos", lines, "A link opens the video if the browser can play it.")] if lines else []


def cut_short(count: int, what: str, folder: str = "the folder") -> list[str]:
    """A warning if the page does not show everything that is in the folder."""
    return [f"The page shows {SHOWN:,} of {count:,} {what}; {folder} holds all."] if count > SHOWN else []
