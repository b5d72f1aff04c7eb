"""Restore videos, one after the other, each with `stages.film` and with its own entry in the journal.

A resumed run keeps the finished videos and starts the unfinished one again.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import copyfile

from unfade.atomic import atomic_write, room_for, temporary_beside, write_through
from unfade.errors import BadInput, UnfadeError
from unfade.faces.tracks import TrackSettings
from unfade.images.film_input import VideoReader, pyav, read_video, reason_of
from unfade.images.finding import Found
from unfade.jobs.journal import Entry
from unfade.jobs.outputs import Outputs, Writing
from unfade.jobs.runs import Run
from unfade.progress import Progress
from unfade.restorers.base import Restorer
from unfade.shown import json_text
from unfade.stages.film import Film, Work
from unfade.stages.photos import Finder, no_face_in
from unfade.stages.restore import choices, restore_batch
from unfade.stages.restore_photos import STAGE, Parts, PhotoSettings, check_run
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint

NO_MAP = "no trust map: they are made of photos only"
PLAIN, ALONE, TRACKED = PhotoSettings(), Parts(), TrackSettings()


def restore_videos(
    found: Found,
    run: Run,
    restorer: Restorer,
    find: Finder,
    settings: PhotoSettings = PLAIN,
    parts: Parts = ALONE,
    *,
    tracks: TrackSettings = TRACKED,
    strength: float = 1.0,
    batch: int = 8,
    key: str = "",
    place: Callable[[str], str] = str,
) -> list[Entry]:
    """Restore the faces of every video and write the videos to the run's folder under their own names.

    Returns one entry for each video. Works like `restore_photos`, except that `settings.kind` has no effect. A quality
    of 1..100 sets a constant rate factor; without one, a result has at most 1.5 times the bits of its source. `find`
    chooses the faces of every frame separately, so numbers of faces are counted within a frame. A video in which
    nothing changes is copied. Raises BadInput if PyAV is not installed.
    """
    check_run(settings, parts, strength, batch)
    pyav()
    key = fingerprint(key, settings, tracks, choices(restorer, strength), parts.provenance)
    outputs = Outputs(STAGE, run, key)
    work = Work(
        partial(restore_batch, restorer=restorer), strength, restorer.size, batch, find, settings, parts, tracks
    )
    for name in found.names:
        _restore(found.root / name, name.as_posix(), place(name.as_posix()), outputs, work, run.progress)
    return outputs.entries(name.as_posix() for name in found.names)


def _restore(path: Path, name: str, result: str, outputs: Outputs, work: Work, progress: Progress) -> None:
    """Restore one video, unless that is already done or it cannot be read."""
    content = ""
    with outputs.alone(name, path):
        outputs.claim(name, path, result, *[f"{result}.json"] * work.settings.sidecar)
        content = sha256_of(path)
    if not outputs.claimed(name) or outputs.settled(name, content):
        return
    target = outputs.out / result
    with outputs.alone(name, path, target), room_for(target), temporary_beside(target) as part:
        with read_video(path) as reader, progress(name, reader.expected) as advance, _as_one_sentence(reader):
            film = Film(reader, name, part, work, advance)
            film.restore()
        if not film.tracks and not work.settings.copy:
            outputs.no_face(name, content, no_face_in(path))
            return
        with outputs.writing(name, path, content, count=None if film.tracks else 1) as writing:
            _write(path, result, part, film, work, writing)


@contextmanager
def _as_one_sentence(reader: VideoReader) -> Iterator[None]:
    """Turn errors of encoding into one sentence; those of reading come as one sentence from the reader."""
    try:
        yield
    except UnfadeError:
        raise
    except (pyav().FFmpegError, ValueError) as error:
        kind = reader.kind.muxer
        message = f"{reader.path} cannot be written as {kind} ({reason_of(error)}); convert it to H.264 in .mkv first."
        raise BadInput(message) from error


def _write(path: Path, result: str, part: Path, film: Film, work: Work, writing: Writing) -> None:
    write_through(writing.path, part.replace if film.changed else partial(copyfile, path))
    os.utime(writing.path, (path.stat().st_mtime,) * 2)
    untold = (NO_MAP,) if work.parts.trust else ()
    writing.notes = (*film.notes, *untold) if film.tracks else ()
    writing.no_face = "" if film.tracks else no_face_in(path)
    if film.tracks and work.settings.sidecar:
        made = asdict(work.parts.provenance) if work.parts.provenance else {}
        about = {"video": film.name, "result": result, "tracks": film.tracks, "notes": list(film.notes), **made}
        atomic_write(writing.files[1], json_text(about, indent=1, ascii_only=False) + "\n")
