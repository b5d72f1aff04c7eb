"""Networks that spandrel knows: the right range and size, their own keys, adapted like any other restorer."""

import json
import pickle
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt_settings import small
from recorded import fill_module, picture
from tiny_models import RESTORER, write_faces
from unfade.errors import BadCheckpoint, BadInput
from unfade.images.filters import resize
from unfade.nets.swinir import SwinIR
from unfade.recipes.adapt import adapt
from unfade.restorers.image_level import SwinIRRestorer, from_unit, to_unit
from unfade.restorers.load import head_of, load_restorer, save_restorer
from unfade.restorers.spandrel import CALLS, REFUSED, SpandrelRestorer, restorer_of
from unfade.store.checkpoints import is_own, read_weights

HERE = find_spec("spandrel") is not None
needs_extra = pytest.mark.skipif(not HERE, reason="the extra `archs` is not installed: pip install unfade[archs]")
ANYWHERE = Path("tiny.pth")
State = dict[str, Tensor]


def compact(*, scale: int = 1, channels: int = 3) -> State:
    """An SRVGG network of 8 features and one layer under its published keys."""
    shapes = {
        "body.0.weight": (8, channels, 3, 3),
        "body.0.bias": (8,),
        "body.1.weight": (8,),
        "body.2.weight": (8, 8, 3, 3),
        "body.2.bias": (8,),
        "body.3.weight": (8,),
        "body.4.weight": (channels * scale**2, 8, 3, 3),
        "body.4.bias": (channels * scale**2,),
    }
    return drawn(shapes)


def rrdb() -> State:
    """A Real-ESRGAN network of one block under its published keys, which spandrel knows by other names."""
    convs = {"conv_first": (8, 3), "conv_body": (8, 8), "conv_up1": (8, 8), "conv_up2": (8, 8), "conv_hr": (8, 8)}
    convs |= {"conv_last": (3, 8)}
    for block in ("rdb1", "rdb2", "rdb3"):
        for i in range(1, 6):
            convs[f"body.0.{block}.conv{i}"] = (32 if i < 5 else 8, 8 + 32 * (i - 1))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (out, into) in convs.items():
        shapes |= {f"{name}.weight": (out, into, 3, 3), f"{name}.bias": (out,)}
    return drawn(shapes)


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(0)
    return {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def swinir() -> SwinIR:
    return fill_module(SwinIR(RESTORER)).eval()


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key].float(), b[key].float()) for key in a)


@needs_extra
def test_a_network_sees_and_gives_its_own_range() -> None:
    import spandrel

    state, face = compact(), picture(32, 32, 1)
    restorer = restorer_of(state, size=32, source=ANYWHERE)
    descriptor = spandrel.ModelLoader().load_from_state_dict(dict(state))
    restored = restorer(face)
    assert (restored.clamp(-1, 1) - from_unit(descriptor(to_unit(face)))).abs().max() <= 1e-6
    assert restored.requires_grad, "it can be trained"
    assert (restorer(face * 0 + 3) - 3).abs().max() > 0, "not clamped"


@needs_extra
def test_a_swinir_gives_what_ours_gives_and_keeps_its_keys() -> None:
    """spandrel renames keys of an unshuffled SwinIR, and would build another network from the new names."""
    ours, face = SwinIRRestorer(swinir(), 32).eval(), picture(32, 32, 2)
    state = ours.net.state_dict()
    before = dict(state)
    theirs = restorer_of(state, size=32, source=ANYWHERE)
    assert list(state) == list(before), "the caller's dictionary is as it was"
    assert "conv_first.1.weight" in state
    assert same(theirs.net.state_dict(), before)
    with torch.no_grad():
        assert (theirs(face) - ours(face)).abs().max() <= 1e-5


@needs_extra
@pytest.mark.parametrize(
    "make", [compact, rrdb, lambda: dict(swinir().state_dict())], ids=["compact", "rrdb", "swinir"]
)
def test_it_is_saved_under_its_own_keys(make: Any, tmp_path: Path) -> None:
    import spandrel

    state = make()
    torch.save({"params_ema": state}, tmp_path / "published.PTH")
    (tmp_path / "published.json").write_text('{"size": 32}')
    restorer = load_restorer(tmp_path / "published.PTH")
    assert isinstance(restorer, SpandrelRestorer)
    assert restorer.size == 32
    with torch.no_grad():
        for parameter in restorer.parameters():  # as training would
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.01)
    save_restorer(tmp_path / "adapted.safetensors", restorer)
    saved = read_weights(tmp_path / "adapted.safetensors").state
    assert saved.keys() == state.keys()
    assert {k: v.shape for k, v in saved.items()} == {k: v.shape for k, v in state.items()}
    assert head_of(tmp_path / "adapted.safetensors").size == 32
    again = load_restorer(tmp_path / "adapted.safetensors")
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / "adapted.safetensors")
    face = picture(32, 32, 3)
    with torch.no_grad():
        restored = restorer(face)
        assert torch.equal(restored, again(face))
        shown = resize(from_unit(theirs.model.eval()(to_unit(face))), 32, 32)
        assert (restored - shown).abs().max() <= 1e-5


@needs_extra
def test_what_enlarges_is_brought_back() -> None:
    restorer = restorer_of(compact(scale=2), size=32, source=ANYWHERE)
    face = picture(32, 32, 4)
    assert restorer.scale == 2
    assert torch.equal(restorer(face), resize(from_unit(restorer.net(to_unit(face))), 32, 32))


@needs_extra
def test_it_is_adapted_like_any_other(models: tuple[Path, Path], tmp_path: Path) -> None:
    import spandrel

    state = compact()
    torch.save(state, tmp_path / "tiny.pth")
    (tmp_path / "tiny.json").write_text('{"size": 32}')
    write_faces(tmp_path / "photos", 4)
    settings = small(tmp_path / "tiny.pth", models[1])
    done = adapt(
        tmp_path / "photos",
        tmp_path / "run",
        replace(settings, targets=replace(settings.targets, start=3, free_from=1)),
        aligned=True,
    )
    assert done.counts.as_dict()["done"] == 4
    assert json.loads((tmp_path / "run" / "restorer.json").read_text())["pairs"] == 4
    adapted = read_weights(done.restorer).state
    assert adapted.keys() == state.keys()
    assert not same(adapted, state)
    assert isinstance(spandrel.ModelLoader().load_from_file(done.restorer), spandrel.ImageModelDescriptor)
    assert load_restorer(tmp_path / "run").size == 32


@needs_extra
def test_a_safetensors_file_of_another_program(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(compact(), tmp_path / "plain.safetensors", {"format": "pt"})
    assert not is_own(tmp_path / "plain.safetensors")
    assert head_of(tmp_path / "plain.safetensors").size == 512, "of faces, unless a card says otherwise"
    assert same(load_restorer(tmp_path / "plain.safetensors").net.state_dict(), compact())


@needs_extra
def test_what_no_restorer_can_be_is_refused() -> None:
    with pytest.raises(BadInput, match="maps 1 to 1"):
        restorer_of(compact(channels=1), size=32, source=ANYWHERE)
    with pytest.raises(BadCheckpoint, match="has no architecture that spandrel knows"):
        restorer_of({"weight": torch.zeros(1)}, size=32, source=ANYWHERE)
    with pytest.raises(BadCheckpoint, match="but does not fit it"):
        restorer_of(compact() | {"body.2.bias": torch.zeros(3)}, size=32, source=ANYWHERE)


def described(family: str) -> Any:
    """What spandrel says of a network, as far as it is asked."""
    needs = SimpleNamespace(minimum=0, multiple_of=1, get_padding=lambda width, height: (0, 0))
    return SimpleNamespace(
        architecture=SimpleNamespace(id=family),
        model=nn.Identity(),
        input_channels=3,
        output_channels=3,
        scale=1,
        size_requirements=needs,
    )


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_need_more_than_a_picture_are_refused(family: str) -> None:
    with pytest.raises(BadInput, match="cannot be used as a restorer here"):
        SpandrelRestorer(described(family), 32, {})


@pytest.mark.parametrize(("family", "low"), [("Compact", 0.0), ("FBCNN", 0.0), ("RestoreFormer", -1.0), ("GFPGAN", -1)])
def test_families_see_their_own_range(family: str, low: float) -> None:
    class Net(nn.Module):
        def forward(self, image: Tensor, **choices: bool) -> Any:
            assert image.min() == low
            assert choices == ({"randomize_noise": False} if family == "GFPGAN" else {})
            return (image, None) if family in CALLS else image

    face = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)
    seen = described(family)
    seen.model = Net()
    assert torch.allclose(SpandrelRestorer(seen, 4, {})(face), face, atol=1e-6)


def test_a_face_is_padded_to_what_the_network_asks_for() -> None:
    class Net(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            assert image.shape[-2:] == (48, 48)
            assert torch.equal(image[..., 40:, :40], image[..., 31:39, :40].flip(-2)), "mirrored at the last row"
            return image

    asks = described("Compact")
    asks.model = Net()
    asks.size_requirements = SimpleNamespace(minimum=32, multiple_of=16, get_padding=lambda width, height: (8, 8))
    face = picture(40, 40, 5)
    assert torch.allclose(SpandrelRestorer(asks, 40, {})(face), face, atol=1e-6)
    with pytest.raises(BadInput, match="needs faces of 32 px or more, got 24"):
        SpandrelRestorer(asks, 24, {})


@needs_extra
def test_nothing_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "old.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"body.0.weight": Trap()}, tmp_path / "new.pth")
    torch.save(compact(), tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:500])
    damaged = "is damaged or no file of weights"
    for name, message in {"old": damaged, "new": "holds more than plain weights", "half": damaged}.items():
        with pytest.raises(BadCheckpoint, match=message) as caught:
            load_restorer(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    torch.save(compact(), tmp_path / "tiny.pth")
    with pytest.raises(BadInput, match=r"tiny\.pth .*pip install unfade\[archs\]"):
        load_restorer(tmp_path / "tiny.pth")


def test_what_unfade_wrote_is_not_for_spandrel(models: tuple[Path, Path], tmp_path: Path) -> None:
    assert all(map(is_own, models))
    (tmp_path / "half.safetensors").write_bytes(models[0].read_bytes()[:100])
    assert is_own(tmp_path / "half.safetensors")
    with pytest.raises(BadCheckpoint, match="not a readable safetensors file"):
        load_restorer(tmp_path / "half.safetensors")
