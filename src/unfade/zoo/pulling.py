"""Downloading, checking and importing a model of the table by its name."""

from dataclasses import replace
from pathlib import Path

from unfade.errors import BadCheckpoint, BadInput, UnknownModel
from unfade.locks import locked
from unfade.progress import Progress, silent
from unfade.zoo.convert import Imported, import_files
from unfade.zoo.download import DownloadFailed, DownloadSettings, discard_parts, fetch
from unfade.zoo.models import how_to_get, import_command, is_accepted, offline, path_of, row_of, weights_folder
from unfade.zoo.published import Download, Model

USUAL = DownloadSettings()


def pull(name: str, *, mirror: str = "", progress: Progress = silent, settings: DownloadSettings = USUAL) -> Imported:
    """Download and import a model of the table. `mirror` is an address that is tried first; if it ends in "/", the
    file's name is added.

    Raises BadInput if its licence was not accepted or it comes with the package, UnknownModel if it has no address or
    the program is offline, OutputConflict while another process fetches it, and what `fetch` and `import_files` raise.
    """
    row = pullable(name)
    path = path_of(row)
    if path.exists():
        return Imported(name, path, row.architecture, ("it was there already; nothing was fetched",))
    addresses = [_addresses(row, download, mirror) for download in row.downloads]
    if not row.commercial and not is_accepted(row.licence):
        raise BadInput(
            f"{name} is under {row.licence}, not for commercial use; accept that with `unfade models pull {name}`."
        )
    folder = weights_folder() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{name} is being fetched by another process; wait for it, and run again."
    with locked(folder / f".{name}.lock", lambda: busy):  # others would append to the same files
        try:
            fetched = [
                fetch(download, folder, settings, urls=urls, progress=progress)
                for download, urls in zip(row.downloads, addresses, strict=True)
            ]
        except (DownloadFailed, BadCheckpoint) as error:
            way_out = f"A file from elsewhere can be imported with `{import_command(row)}`."
            raise type(error)(f"{error} {way_out}") from error
        try:
            result = import_files([file.path for file in fetched], name=name, urls=[file.url for file in fetched])
        except BadCheckpoint:
            _discard(row, folder)  # the next call must not resume a file that cannot be used
            raise
        _discard(row, folder)
    passed_over = tuple(f"passed over: {failure}" for file in fetched for failure in file.passed_over)
    return replace(result, notes=(*passed_over, *result.notes))


def pullable(name: str) -> Model:
    """The row of a model that is imported or can be fetched. Raises UnknownModel, BadInput if it is built in."""
    row = row_of(name)
    if row.built_in:
        raise BadInput(f"{name} comes with unfade; there is nothing to pull.")
    if offline() and not path_of(row).exists():
        raise UnknownModel(f"{name} is not here; {how_to_get(row)}.")
    return row


def _addresses(row: Model, download: Download, mirror: str) -> tuple[str, ...]:
    if mirror and not mirror.endswith("/") and len(row.downloads) > 1:
        raise BadInput(
            f"{row.name} is made of {len(row.downloads)} files; end `mirror` with / so that names are added."
        )
    first = (mirror + download.file if mirror.endswith("/") else mirror,) if mirror else ()
    if not (first or download.urls):
        raise UnknownModel(f"{row.name} has no address that unfade knows; {how_to_get(row)}.")
    return (*first, *download.urls)


def _discard(row: Model, folder: Path) -> None:
    for download in row.downloads:
        discard_parts(folder, download)
