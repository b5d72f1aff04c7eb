"""Importing published files: they are recognised, checked against the network and converted to safetensors."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unfade.atomic import write_through
from unfade.errors import BadCheckpoint, BadInput, OutputConflict
from unfade.nets.architecture import Architecture, Config, State
from unfade.shown import first_few
from unfade.store.checkpoints import card_path, read_card, sha256_of, sort_header, write_card
from unfade.store.foreign import header_of, read_foreign, versions
from unfade.store.onnx_files import refuse_external
from unfade.zoo.architectures import ARCHITECTURES, shapes
from unfade.zoo.models import MODELS, path_of, weights_folder
from unfade.zoo.published import Model

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
NAMED = 4  # keys that an error lists by name; it counts the others


@dataclass(frozen=True)
class Imported:
    """A model that was imported."""

    name: str
    path: Path
    architecture: str
    notes: tuple[str, ...] = ()  # what the user should know


@dataclass(frozen=True)
class Recognised:
    """A network found in a file."""

    architecture: str
    config: Config
    state: State


def import_files(files: Sequence[Path], *, name: str = "", urls: Sequence[str] = ()) -> Imported:
    """Convert the published file (or files) of one model; `urls` are their sources, for the card.

    A file with a known hash gets the name of its model, any other file `name`. Nothing in the files is executed, and
    nothing is written unless everything fits. Raises BadInput, BadCheckpoint for other weights than expected,
    OutputConflict if the name is taken by another file, DiskFull.
    """
    for file in files:
        if not file.is_file():
            raise BadInput(f"There is no file {file}; name the file of weights that you fetched.")
    hashes = [sha256_of(file) for file in files]
    row = row_for(files, hashes, name)
    seen = [
        {"file": _plain_name(f), "sha256": h, "bytes": f.stat().st_size} for f, h in zip(files, hashes, strict=True)
    ]
    card: dict[str, Any] = {"files": [entry | _address(urls, i) for i, entry in enumerate(seen)]}
    if row is None and (licence := header_of(files[0]).get("licence")):
        card["licence"] = licence
    if row is not None and row.architecture == "onnx":
        refuse_external(files[0])
        return _keep(row, files[0], card)
    state = _merged(files, _key_of(row))
    found = _untested(row, state) if row and row.architecture not in ARCHITECTURES else recognise(state, files)
    if row is not None:
        _check_row(row, found, files)
    return _write(row, row.name if row else name, found, card)


def recognise(state: State, files: Sequence[Path]) -> Recognised:
    """The network to whose keys and shapes the tensors fit exactly. Raises BadCheckpoint, naming what does not fit."""
    where = " and ".join(str(file) for file in files)
    for version in versions(state):
        if (found := _known(version, where, len(files))) is not None:
            return found
    raise BadCheckpoint(
        f"{where} is of no network that unfade has (first keys: {', '.join(sorted(state)[:NAMED])}); "
        f"known are {', '.join(ARCHITECTURES)}."
    )


def _known(state: State, where: str, files: int) -> Recognised | None:
    for name, known in ARCHITECTURES.items():
        if all(mark in state for mark in known.marks):
            return _fitting(name, known, _converted(name, known, state, where), state, where)
        if known.files > files and any(mark in state for mark in known.marks):
            raise BadInput(f"{where} is one of the {known.files} files of {name}; give all of them.")
    return None


def row_for(files: Sequence[Path], hashes: Sequence[str], name: str) -> Model | None:
    """The row of the table for these files: by hash, by the given `name`, or by a file's name where no hash is known.

    Raises BadInput for a name that cannot be used, BadCheckpoint if a row of that name has another hash.
    """
    for row in MODELS.values():
        if {download.sha256 for download in row.downloads} & set(hashes):
            if name not in ("", row.name):
                raise BadInput(f"{files[0]} is the published {row.name}; leave `name` {name} out.")
            return _same_files(row, files, hashes)
    if name in MODELS:
        return _same_files(MODELS[name], files, hashes)
    names = {file.name.lower() for file in files}
    for row in MODELS.values():
        if not name and any(d.sha256 is None and d.file.lower() in names for d in row.downloads):
            return _same_files(row, files, hashes)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        why = f"the name {name} cannot be used" if name else f"{files[0]} is no published file that unfade knows"
        raise BadInput(f"To import a file of your own, give `name` (letters, digits, . _ -): {why}.")
    return None


def _same_files(row: Model, files: Sequence[Path], hashes: Sequence[str]) -> Model:
    if row.built_in:
        raise BadInput(f"{row.name} comes with unfade; give the file another `name`.")
    if len(files) != len(row.downloads):
        names = " and ".join(download.file for download in row.downloads)
        raise BadInput(f"{row.name} is made of {len(row.downloads)} file(s), {names}; got {len(files)}.")
    if unmet := {download.sha256 for download in row.downloads} - {None, *hashes}:
        unknown = sorted(set(hashes) - {download.sha256 for download in row.downloads})
        raise BadCheckpoint(
            f"{row.name} is a file of sha256 {' '.join(sorted(map(str, unmet)))}, but this one has {' '.join(unknown)}"
            "; fetch it again, or give another `name` to import it under."
        )
    return row


def _converted(name: str, known: Architecture, state: State, where: str) -> State:
    try:
        return known.convert(state)
    except ValueError as error:
        raise BadCheckpoint(f"{where} looks like a {name}, but {error}; give the file as it was published.") from error


def _fitting(name: str, known: Architecture, state: State, published: State, where: str) -> Recognised:
    """The network in the configuration that all shapes fit. Raises BadCheckpoint about the one that fits best."""
    complaints: list[list[str]] = []
    for config in known.configs(published):
        complaints.append(differences(shapes(known, config), state))
        if not complaints[-1]:
            return Recognised(name, config, state)
    best = min(complaints, key=len)
    raise BadCheckpoint(
        f"{where} looks like a {name}, but {first_few(best, NAMED)}; give the file as it was published."
    )


def differences(network: State, file: State) -> list[str]:
    """The differences between a network's tensors and a file's, one phrase for each key."""
    phrases = [f"{key} is missing" for key in network if key not in file]
    phrases += [f"{key} is unknown" for key in file if key not in network]
    for key in network.keys() & file.keys():
        want, have = network[key], file[key]
        if want.shape != have.shape:
            phrases.append(f"{key} has shape {tuple(have.shape)} instead of {tuple(want.shape)}")
        elif have.dtype not in DTYPES or want.is_floating_point() != have.is_floating_point():
            phrases.append(f"{key} is {have.dtype} instead of {want.dtype}")
    return phrases


def _untested(row: Model, state: State) -> Recognised:
    """A file with a known hash, of a network that unfade does not have; its tensors are kept for other programs."""
    return Recognised(row.architecture, {"size": row.size} if row.size else {}, state)


def _check_row(row: Model, found: Recognised, files: Sequence[Path]) -> None:
    if found.architecture != row.architecture:
        what, wanted = f"holds a {found.architecture}", f"a {row.architecture}"
    elif row.size and found.config.get("size", row.size) != row.size:
        what, wanted = f"is for {found.config['size']} px", f"for {row.size} px"
    else:
        return
    raise BadCheckpoint(
        f"{files[0]} {what}, but {row.name} is {wanted}; give its own file, or another `name` for this one."
    )


def _merged(files: Sequence[Path], key: str) -> State:
    state: dict[str, Tensor] = {}
    for file in files:
        part = read_foreign(file, key=key)
        if both := sorted(part.keys() & state.keys()):
            raise BadInput(f"{file} holds {both[0]} too, like the file before it; give each file of the model once.")
        state |= part
    return state


def _write(row: Model | None, name: str, found: Recognised, card: dict[str, Any]) -> Imported:
    path = weights_folder() / f"{name}.safetensors"
    notes = _notes(row, found, card)
    state = {key: value.contiguous() for key, value in found.state.items()}
    about = _about(row, name, found) | card | {"notes": notes}

    def write(temporary: Path) -> None:
        save_file(_apart(state), temporary, _header(found))
        sort_header(temporary)
        write_card(path, about | {"sha256": sha256_of(temporary)})

    _check_free(path, card)
    write_through(path, write)
    return Imported(name, path, found.architecture, tuple(notes))


def _keep(row: Model, file: Path, card: dict[str, Any]) -> Imported:
    """Imports a file that is used as it was published, without conversion."""
    path = path_of(row)
    about = _about(row, row.name, Recognised(row.architecture, {}, {})) | card | {"notes": []}

    def write(temporary: Path) -> None:
        shutil.copyfile(file, temporary)
        write_card(path, about | {"sha256": sha256_of(temporary)})

    _check_free(path, card)
    write_through(path, write)
    return Imported(row.name, path, row.architecture)


def _check_free(path: Path, card: Mapping[str, Any]) -> None:
    """Raises OutputConflict where the file or its card exists, unless both were made from the same file before."""
    there = next((file for file in (path, card_path(path)) if lexists(file)), None)
    if there is not None and _sources(read_card(path)) != _sources(card):
        raise OutputConflict(f"{there} is there already and was made from another file; choose another `name`.")


def _sources(card: Mapping[str, Any]) -> set[str] | None:
    """The hashes of the files that a model was made from; None for a card that names none."""
    try:
        return {entry["sha256"] for entry in card["files"]}
    except (KeyError, TypeError):
        return None


def _header(found: Recognised) -> dict[str, str]:
    """The header that `read_weights` reads."""
    return {"architecture": found.architecture, "config": json.dumps(found.config)}


def _apart(state: State) -> dict[str, Tensor]:
    """The tensors, with copies of those that share memory with an earlier one, which safetensors refuses."""
    seen: set[int] = set()
    result = {}
    for key, value in state.items():
        place = value.untyped_storage().data_ptr()
        result[key] = value.clone() if place in seen else value
        seen.add(place)
    return result


def _about(row: Model | None, name: str, found: Recognised) -> dict[str, Any]:
    if row is None:
        known = found.architecture
        return {"name": name, "kind": ARCHITECTURES[known].kind, "architecture": known, "licence": "not stated"}
    kept = ("kind", "architecture", "licence", "commercial", "author", "source")
    return {"name": name, **{field: getattr(row, field) for field in kept}}


def _notes(row: Model | None, found: Recognised, card: Mapping[str, Any]) -> list[str]:
    hashes = " ".join(entry["sha256"] for entry in card["files"])
    notes = []
    if row is None:
        whose = f"it names the licence {card['licence']}" if "licence" in card else "its licence is for you to find out"
        notes.append(f"unfade does not know this file (SHA-256 {hashes}): {whose}")
    elif any(download.sha256 is None for download in row.downloads):
        notes.append(f"no hash was known for it; the one seen, {hashes}, is recorded in its card")
    if found.architecture not in ARCHITECTURES:
        notes.append(f"unfade has no network {found.architecture}: its keys and shapes were not checked")
    return notes


def _address(urls: Sequence[str], index: int) -> dict[str, str]:
    return {"url": urls[index]} if urls else {}


def _plain_name(file: Path) -> str:
    return file.name.removesuffix(".part")


def _key_of(row: Model | None) -> str:
    return row.downloads[0].key if row else ""
