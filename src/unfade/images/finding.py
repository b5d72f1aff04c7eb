"""Finding the pictures below a folder, and counting those of kinds that are not read."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unfade.errors import BadInput, OutputConflict

JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo")
JPEGS_2000 = (".jp2", ".j2k", ".j2c", ".jpf", ".jpx")
HEICS = (".heic", ".heif", ".hif")
PLAIN = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = (
    *(".png", *JPEGS, ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", *PLAIN),
    *(".avif", ".avifs", *HEICS, ".jxl", *JPEGS_2000),
)
RAW = (
    *(".dng", ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
OTHER = (  # suffixes of pictures that are not read
    *(".apng", ".bpg", ".cin", ".cur", ".dcm", ".dds", ".djvu", ".dpx", ".emf", ".eps", ".exr", ".fit", ".fits"),
    *(".hdp", ".hdr", ".icns", ".ico", ".jng", ".jxr", ".kra", ".pam", ".pcd", ".pcx", ".pdf", ".pfm", ".pict", ".psb"),
    *(".psd", ".qoi", ".ras", ".sgi", ".svg", ".tga", ".wdp", ".wmf", ".xbm", ".xcf", ".xpm"),
)
ENDINGS = (  # of films
    *(".mp4", ".m4v", ".f4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".3gp2", ".mkv", ".webm", ".avi", ".divx"),
    *(".mts", ".m2ts", ".m2t", ".vob", ".mpg", ".mpeg", ".mpe", ".m2p", ".wmv", ".asf", ".flv", ".dv", ".mxf"),
)
NOT_READ = (  # films that FFmpeg cannot write, or only their sound
    *(".264", ".265", ".amv", ".bik", ".braw", ".flc", ".fli", ".gxf", ".h264", ".h265", ".hevc", ".ivf", ".m1v"),
    *(".m2v", ".mj2", ".mlv", ".mve", ".nsv", ".nut", ".ogm", ".ogv", ".r3d", ".rm", ".rmvb", ".swf", ".wtv", ".y4m"),
)
WRITTEN = "folders written by unfade"  # counted among what is passed over
NESTED = "in subfolders"  # the pictures there, counted where only those of the folder itself are read
REPORT, REPORTED = "report.html", "report"  # the page of a run, and the folder next to it that holds its pictures
RUN, JOURNALS = "run.json", "journal*.jsonl"  # files of a folder that a run has filled
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"GIF8", b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")
WEBP, HEIF_BRANDS = b"WEBP", (b"avif", b"heic", b"heix", b"mif1")


@dataclass(frozen=True)
class Found:
    """Photos below one folder."""

    root: Path
    names: Sequence[Path]  # relative to `root`, sorted: outputs of the same names keep the structure of folders
    passed_over: tuple[tuple[str, int], ...] = ()  # suffixes of pictures that are not read ("": none), with counts

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of the files, in the order of `names`."""
        return tuple(self.root / name for name in self.names)


def find_photos(place: Path, *, without: Path | None = None) -> Found:
    """Every file below a folder with the suffix of a photo; or the file itself, whatever its name, if `place` is one.

    Hidden files and folders are passed over, and so is the folder `without` (the output's). Folders below `place` that
    runs have filled are passed over and counted, as results are no photos. A link to a folder is followed once, unless
    it leads to a folder that holds `place`. Broken links and folders that cannot be read count as photos, so that they
    are reported as failures. Films, and files that are pictures by their suffix or first bytes but of kinds that are
    not read, are counted. Raises BadInput when `place` is missing or holds no photo, OutputConflict when it is
    `without` itself.
    """
    if place.is_file():
        return Found(place.parent, (Path(place.name),))
    if not place.is_dir():
        raise BadInput(f"{place} {why_not(place)}; name a photo or the folder that holds the photos.")
    if without is not None and real_path(without) == real_path(place):
        raise OutputConflict(f"{without} is also the input; name another folder as `out`, nothing is overwritten.")
    runs: list[Path] = []
    everything = tuple(_below(place, without, runs))
    names = tuple(sorted(name for name, is_photo in everything if is_photo or name.suffix.lower() in SUFFIXES))
    passed_over = count_passed_over(place / name for name, is_photo in everything if not is_photo)
    passed_over = join_passed_over(passed_over, ((WRITTEN, len(runs)),) if runs else ())
    if not names:
        others = (f" but {in_words(passed_over)}" if passed_over else "") + _left_in(without, place)
        raise BadInput(f"{place} holds no photos{others}; expected files ending in {', '.join(SUFFIXES)}.")
    return Found(place, names, passed_over)


def find_pictures(place: Path) -> Found:
    """The files directly in a folder with the suffix of a picture; or the file itself, whatever its name.

    Hidden files, pipes and devices are left out. A folder with such a suffix is listed, so that it is reported as a
    failure. Pictures that are not read are counted as in `find_photos`, and so are those in subfolders, other than of
    runs and reports. Raises BadInput when `place` is missing or holds no picture.
    """
    if place.is_file():
        return Found(place.parent, (Path(place.name),))
    if not place.is_dir():
        raise BadInput(f"{place} {why_not(place)}; name a picture or the folder that holds the pictures.")
    shown = _shown(place)
    found, passed_over = _pictures_of(shown), join_passed_over(count_passed_over(shown), _nested(place))
    if not found:
        others = f" but {in_words(passed_over)}" if passed_over else ""
        raise BadInput(f"{place} holds no pictures{others}; expected files ending in {', '.join(SUFFIXES)}.")
    return Found(place, tuple(Path(path.name) for path in found), passed_over)


def _shown(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if not path.name.startswith("."))


def _pictures_of(shown: Iterable[Path]) -> list[Path]:
    return [path for path in shown if path.suffix.lower() in SUFFIXES and (_is_file(path) or _is_folder(path))]


def _nested(place: Path) -> tuple[tuple[str, int], ...]:
    of_report = REPORTED if (place / REPORT).is_file() else None
    below = (name for name, _ in _below(place, None, []) if len(name.parts) > 1 and name.parts[0] != of_report)
    count = sum(name.suffix.lower() in SUFFIXES for name in below)
    return ((NESTED, count),) if count else ()


def list_images(folder: Path) -> list[Path]:
    """The pictures of a folder, found as by `find_pictures`. Raises BadInput as that does, and for a file."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; name the folder that holds the pictures.")
    return _pictures_of(_shown(folder)) or [*find_pictures(folder).paths]  # which raises, and says what else is there


def files_below(
    root: Path, suffixes: tuple[str, ...] = (), *, without: Path | None = None, runs: bool = True
) -> tuple[Path, ...]:
    """The files with the given suffixes, or all files, relative to `root` and sorted, searched as by `find_photos`.

    Other than there, folders that runs have filled are searched too, unless `runs` is False.
    """
    found = _below(root, without, None if runs else [])
    chosen = (name for name, is_closed in found if is_closed or not suffixes or name.suffix.lower() in suffixes)
    return tuple(sorted(chosen))


def real_path(path: Path) -> Path:
    """Without links. `Path.resolve` raises for links that lead to themselves; here the rest of those stays as it is."""
    return Path(os.path.realpath(path))


def why_not(place: Path) -> str:
    """Why a place that is neither a file nor a folder is none, as the end of a sentence."""
    if _mode(place) is not None:
        return "is neither a file nor a folder"
    return "is a link that leads nowhere" if place.is_symlink() else "is not there"


def count_passed_over(paths: Iterable[Path]) -> tuple[tuple[str, int], ...]:
    """Suffixes of the files that are films, or pictures but not read, with their counts, the most frequent first.

    Films are recognized by the suffix; so are pictures, or where it is unknown, by the first bytes.
    """
    endings = Counter(path.suffix.lower() for path in paths if _is_passed_over(path))
    return join_passed_over(tuple(endings.items()))


def join_passed_over(*counts: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """The sum of several such counts, of several folders or kinds of files."""
    together = sum((Counter(dict(count)) for count in counts), Counter[str]())
    return tuple(sorted(together.items(), key=lambda item: (-item[1], item[0])))


def in_words(passed_over: tuple[tuple[str, int], ...]) -> str:
    """The counts in words, like "3 .dng, 1 without an ending"."""
    return ", ".join(_in_words(ending, count) for ending, count in passed_over)


def _in_words(ending: str, count: int) -> str:
    if ending == WRITTEN:
        written = WRITTEN if count > 1 else WRITTEN.replace("folders", "folder")
        return f"{count} {written} (name one as the input to use what is in it)"
    return f"{count} {ending or 'without an ending'}"


def _left_in(without: Path | None, place: Path) -> str:
    """How many photos of `place` lie in the folder that is passed over, in words."""
    if without is None or not without.is_dir() or not real_path(without).is_relative_to(real_path(place)):
        return ""
    count = len(files_below(without, SUFFIXES))
    return f", apart from {count} in the output folder {without}" if count else ""


def _below(root: Path, without: Path | None, runs: list[Path] | None = None) -> Iterator[tuple[Path, bool]]:
    """Every file that is not hidden, relative to `root`, with True for a folder that cannot be read.

    Folders below that runs have filled are not searched but appended to `runs`, if that is given.
    """
    seen = {None if without is None else real_path(without)}
    folders, links = [root], list[Path]()  # links last, so that files get a path without a link if they have one
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = real_path(folder)
        if real in seen or (folder != root and real_path(root).is_relative_to(real)):
            continue
        seen.add(real)
        if runs is not None and folder != root and _is_of_a_run(folder):
            runs.append(folder)
            continue
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            yield folder.relative_to(root), True
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(entry)
            elif _is_file(entry):
                yield entry.relative_to(root), False


def _is_of_a_run(folder: Path) -> bool:
    try:
        return (folder / RUN).is_file() and any(folder.glob(JOURNALS))
    except OSError:
        return False


def _is_passed_over(path: Path) -> bool:
    ending = path.suffix.lower()
    if ending in SUFFIXES or not _is_file(path):
        return False
    return ending in (*RAW, *OTHER, *ENDINGS, *NOT_READ) or _begins_like_a_picture(path)


def _begins_like_a_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(STARTS) or head[8:] == WEBP or (head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _is_folder(path: Path) -> bool:
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _is_file(path: Path) -> bool:
    """Whether a path is a file, or its kind cannot be determined; pipes and devices are not, as they may never end."""
    mode = _mode(path)
    return mode is None or stat.S_ISREG(mode)
