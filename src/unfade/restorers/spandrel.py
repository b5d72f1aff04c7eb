"""Image-to-image networks that spandrel (MIT) can load, as restorers.

spandrel recognises a network by its weights and builds it. We use the network but not spandrel's way of calling it,
which cannot be trained, clamps results, and gives some families pictures in the wrong range.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadCheckpoint, BadInput, first_line
from unfade.images.filters import resize
from unfade.nets.architecture import Config
from unfade.restorers.image_level import ImageLevelRestorer, from_unit, to_unit
from unfade.store.checkpoints import image_size, read_card
from unfade.store.foreign import header_of, read_foreign, versions
from unfade.store.headers import whole_size

ARCHITECTURE = "spandrel"
FACE_SIZE = 512  # px, of the published face restorers; the card next to a file may give another "size"

Call = Callable[[nn.Module, Tensor], Any]  # the network and (B, 3, H, W) in [-1, 1] -> (B, 3, s * H, s * W) in [-1, 1]


def in_unit(net: nn.Module, face: Tensor) -> Tensor:
    """Call a network that takes and returns [0, 1], as most do."""
    return from_unit(net(to_unit(face)))


def first_in_unit(net: nn.Module, face: Tensor) -> Tensor:
    """Call a network that takes [0, 1] and returns a tuple that starts with the picture in [0, 1]."""
    return from_unit(net(to_unit(face))[0])


def first(net: nn.Module, face: Tensor) -> Tensor:
    """Call a network that takes [-1, 1] and returns a tuple that starts with the picture in [-1, 1]."""
    picture: Tensor = net(face)[0]
    return picture


def stored_noise(net: nn.Module, face: Tensor) -> Tensor:
    """Call GFPGAN with the noise stored in its file instead of fresh noise, so that results are reproducible."""
    picture: Tensor = net(face, randomize_noise=False)[0]
    return picture


def weighed(net: nn.Module, face: Tensor) -> Tensor:
    """Call CodeFormer at its usual fidelity, 0.5."""
    picture: Tensor = net(face, 0.5)[0]
    return picture


CALLS: dict[str, Call] = {  # by spandrel's name of the family; all others are called `in_unit`
    "FBCNN": first_in_unit,
    "MMRealSR": first_in_unit,
    "MPRNet": first_in_unit,
    "RestoreFormer": first,
    "GFPGAN": stored_noise,
    "CodeFormer": weighed,
}

REFUSED = {  # families that are not a plain function from picture to picture, and why
    "DRUNet": "it needs the noise level as an input",
    "DnCNN": "some of its networks need the noise level as an input",
    "IPT": "it works on tiles",
    "MixDehazeNet": "its input and output have different ranges",
    "AuraSR": "it draws its own random numbers",
    "DDColor": "it colours grey pictures",
    "CodeFormer": "it learns codes, not pictures; use its own weights with `unfade models import`",
}


class SpandrelRestorer(ImageLevelRestorer):
    """A network built by spandrel. Its state has the keys of its original file, so that spandrel can load it again.

    Pictures are padded by reflection to the multiple that the network needs, and cropped afterwards; the result of a
    network that enlarges is resized to the face's size. Raises BadInput for a network that does not map 3 channels to
    3, needs other inputs than the picture, or needs larger faces.
    """

    architecture = ARCHITECTURE
    published = True

    def __init__(self, descriptor: Any, size: int, keys: Mapping[str, str]) -> None:
        """`descriptor` is spandrel's ImageModelDescriptor, `size` in px, `keys` the file's keys of the network's."""
        super().__init__()
        self.family = str(descriptor.architecture.id)
        _check(descriptor, self.family, size)
        self.net: nn.Module = descriptor.model
        self.size = size
        self.padding: int = descriptor.size_requirements.get_padding(size, size)[0]
        self.scale: int = descriptor.scale
        self.net.register_state_dict_post_hook(partial(_to_file, keys=dict(keys)))
        self.net.register_load_state_dict_pre_hook(partial(_from_file, keys=dict(keys)))

    def forward(self, face: Tensor) -> Tensor:
        restored = self.enlarged(face)
        return restored if self.scale == 1 else resize(restored, *face.shape[-2:])

    def enlarged(self, face: Tensor) -> Tensor:
        """The network's own result for (B, 3, H, W), at its own scale: (B, 3, scale * H, scale * W)."""
        height, width = face.shape[-2:]
        padded = F.pad(face, (0, self.padding, 0, self.padding), "reflect") if self.padding else face
        seen = CALLS.get(self.family, in_unit)(self.net, padded)
        restored: Tensor = seen[..., : height * self.scale, : width * self.scale]
        return restored

    def config(self) -> Config:
        return {"family": self.family}


def load_spandrel(path: Path, device: torch.device | str = "cpu") -> SpandrelRestorer:
    """A restorer from a file of an architecture that spandrel knows, whatever the file's ending.

    No code in the file is executed. Raises BadInput without the extra, BadCheckpoint for weights that spandrel does not
    recognise.
    """
    _spandrel(path)
    return restorer_of(read_foreign(path), size=spandrel_size(path), source=path).to(device)


def spandrel_size(path: Path) -> int:
    """Side of the faces in px: as `save_restorer` recorded it, or "size" in the card next to the file, or 512."""
    return image_size(path) if "config" in header_of(path) else whole_size(read_card(path).get("size", FACE_SIZE), path)


def restorer_of(state: Mapping[str, Tensor], *, size: int = FACE_SIZE, source: Path) -> SpandrelRestorer:
    """A restorer for faces of `size` px from a state dict, which is not changed; `source` is named in errors."""
    spandrel = _spandrel(source)
    loader = spandrel.ModelLoader(registry=_registry(spandrel))
    state, descriptor = _placed(loader, state, source, spandrel.UnsupportedModelError)
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise BadInput(f"{source} is an inpainting network, which also needs a mask; choose another.")
    return SpandrelRestorer(descriptor, size, _keys(loader, state, descriptor.model)).eval()


def restored_by_spandrel(path: Path, face: Tensor) -> Tensor:
    """The result, for faces (B, 3, size, size) in [-1, 1], of the network that spandrel itself builds from a file.

    Raises BadInput if spandrel cannot be imported, or does not know the network.
    """
    try:
        spandrel = import_module("spandrel")
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises the second
        raise BadInput(f"it cannot be imported ({first_line(error)}); run `pip install unfade[archs]`.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `_load`
            found = spandrel.ModelLoader(registry=_registry(spandrel)).load_from_file(path)
    except spandrel.UnsupportedModelError as error:
        raise BadInput("it knows this network only with the package spandrel_extra_arches.") from error
    call = CALLS.get(str(found.architecture.id), in_unit)
    with torch.no_grad():
        return call(found.model.eval(), face)  # type: ignore[no-any-return]


def _placed(loader: Any, state: Mapping[str, Tensor], source: Path, unknown: type[Exception]) -> tuple[Any, Any]:
    """The first version of a state that spandrel recognises, and the descriptor that it makes from it."""
    reasons: list[Exception] = []
    for version in versions(state):
        try:
            return version, _load(loader, version)
        except unknown:
            continue
        except Exception as error:  # any of spandrel's forty architectures may fail on a file that is not its own
            reasons.append(error)
    if reasons:
        raise BadCheckpoint(
            f"{source} resembles an architecture that spandrel knows, but does not fit it ({first_line(reasons[0])}); "
            "try `unfade models import`, which knows others, or download it again."
        ) from reasons[0]
    raise BadCheckpoint(
        f"{source} has no architecture that spandrel knows; try `unfade models import`, which knows others."
    )


def _check(descriptor: Any, family: str, size: int) -> None:
    channels = (descriptor.input_channels, descriptor.output_channels)
    needs = descriptor.size_requirements
    if family in REFUSED:
        raise BadInput(f"A {family} cannot be used as a restorer here: {REFUSED[family]}.")
    if channels != (3, 3):
        raise BadInput(
            f"A restorer maps 3 channels to 3, but this {family} maps {channels[0]} to {channels[1]}; choose another."
        )
    if size < max(needs.minimum, needs.multiple_of):
        raise BadInput(
            f"This {family} needs faces of {max(needs.minimum, needs.multiple_of)} px or more, got {size}; "
            'write a larger "size" into the card next to its file.'
        )


def _keys(loader: Any, state: Mapping[str, Tensor], net: nn.Module) -> dict[str, str]:
    """The file's key for each key of the network.

    If they differ, spandrel loads a second copy in which each tensor is filled with its index in the file; where an
    index ends up shows which key it came from. If that fails, the network's own keys are kept, which spandrel can load
    too.
    """
    own = {key: key for key in net.state_dict()}
    if own.keys() == state.keys():
        return own
    numbered = {k: torch.full_like(v, i, dtype=torch.float32) for i, (k, v) in enumerate(state.items(), 1)}
    try:
        found = _load(loader, numbered).model.state_dict()
    except Exception:  # an architecture that derives its shape from values cannot load the indices
        return own
    names = dict(enumerate(state, 1))
    keys = {key: names.get(int(value.flatten()[0]), key) if value.numel() else key for key, value in found.items()}
    return keys if keys.keys() == own.keys() and len(set(keys.values())) == len(own) else own


def _load(loader: Any, state: Mapping[str, Tensor]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the code of its networks, which a user cannot change
        return loader.load_from_state_dict(dict(state))  # a copy: spandrel renames keys in it


def _to_file(net: nn.Module, state: dict[str, Any], prefix: str, *_: object, keys: Mapping[str, str]) -> None:
    found = [(prefix + theirs, state.pop(prefix + ours)) for ours, theirs in keys.items()]
    state.update(found)


def _from_file(net: nn.Module, state: dict[str, Any], prefix: str, *_: object, keys: Mapping[str, str]) -> None:
    found = [(prefix + ours, state.pop(prefix + theirs)) for ours, theirs in keys.items() if prefix + theirs in state]
    state.update(found)


def _registry(spandrel: Any) -> Any:
    """spandrel's architectures, and those with restrictive licences if the user has installed them."""
    registry = spandrel.MAIN_REGISTRY.copy()
    if find_spec("spandrel_extra_arches"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `_load`
            registry.add(*import_module("spandrel_extra_arches").EXTRA_REGISTRY)
    return registry


def _spandrel(path: Path) -> Any:
    try:
        return import_module("spandrel")
    except ImportError as error:
        raise BadInput(
            f"{path} was not written by unfade, so reading it needs spandrel ({error}): run `pip install "
            "unfade[archs]`, or try `unfade models import`."
        ) from error
