"""DiffBIR as a method: its published file, its walk from a restored face, and the command that runs it."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from command import Run
from networks import fake_prior
from recorded import picture
from test_targets import toy_restorer
from tiny_diffbir import TEXT, TINY, as_published, tiny_diffbir
from tiny_models import write_faces
from unfade.diffusion.guidance import RestorationGuidance
from unfade.diffusion.sampler import ImageNoise
from unfade.errors import BadCheckpoint, BadInput
from unfade.images.files import read_image
from unfade.images.wavelets import coarse
from unfade.nets.architecture import fixed
from unfade.nets.text_encoder import TextEncoder
from unfade.recipes.compare import load_own
from unfade.stages.methods import METHODS, Inputs, walk
from unfade.stages.restore import restore_batch
from unfade.store.checkpoints import read_weights, save_weights
from unfade.zoo.architectures import ARCHITECTURES
from unfade.zoo.convert import import_files
from unfade.zoo.load import load_network

Models = tuple[Path, Path]
METHOD = replace(METHODS["diffbir"], spacing="4")
PRIOR = fake_prior(lambda x, t: 0 * x)  # nobody asks it


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where imported models lie; the tiny shapes are known, and walks are short."""
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    known = ARCHITECTURES["diffbir"]
    both = replace(known, configs=lambda state: [*fixed(TINY)(state), *known.configs(state)])
    monkeypatch.setitem(ARCHITECTURES, "diffbir", both)
    monkeypatch.setitem(METHODS, "diffbir", METHOD)
    return tmp_path / "weights"


# The published file


def test_the_published_file_becomes_the_network_and_the_empty_text(run: Run, folder: Path, tmp_path: Path) -> None:
    net = tiny_diffbir()
    expected, published = net.state_dict(), as_published(net)
    torch.save({"state_dict": published, "global_step": 5}, tmp_path / "face_full_v1.ckpt")
    known = run("models", "import", tmp_path / "face_full_v1.ckpt")
    assert "is for 32 px, but diffbir-face is for 512 px" in known.err, "its name is the published file's"
    told = run("models", "import", tmp_path / "face_full_v1.ckpt", "--as", "mine", "--json").json
    assert told["path"] == str(folder / "mine.safetensors")
    assert read_weights(folder / "mine.safetensors").state.keys() == expected.keys(), "the rest is not kept"
    loaded = load_own("mine")
    assert not loaded.training
    assert loaded.config == TINY
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items() if k != "empty_prompt")
    text = TextEncoder(TEXT)
    text.load_state_dict({key.removeprefix("cond_stage_model.model."): value for key, value in published.items()
                          if key.startswith("cond_stage_model.model.") and "attn_mask" not in key})  # fmt: skip
    torch.testing.assert_close(loaded.empty_prompt, text.eval().empty())
    again = import_files([folder / "mine.safetensors"], name="again")
    assert torch.equal(load_own(str(again.path)).empty_prompt, loaded.empty_prompt)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("cond_encoder.encoder.conv_in.weight", "cond_encoder.encoder.conv_in.weight differs from the autoencoder's"),
        ("control_model.zero_convs.1.0.bias", "looks like a diffbir, but control_model.zero_convs.1.0.bias is missing"),
        ("cond_stage_model.model.ln_final.bias", "its text encoder is not whole"),
        ("cond_stage_model.model.positional_embedding", "its text encoder is not whole"),
    ],
)
def test_a_file_that_is_not_the_published_one_says_why(spoil: str, message: str, tmp_path: Path) -> None:
    state = as_published(tiny_diffbir())
    gone = state.pop(spoil)
    if spoil.startswith("cond_encoder"):
        state[spoil] = gone + 1
    torch.save(state, tmp_path / "a.ckpt")
    with pytest.raises(BadCheckpoint, match=message):
        import_files([tmp_path / "a.ckpt"], name="mine")
    assert not (tmp_path / "weights").exists()


def test_a_loaded_network_is_whole_though_it_is_built_without_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_weights(file, tiny_diffbir(), architecture="diffbir", config=asdict(TINY), dtype=torch.bfloat16)
    net = load_network(file, "guide").network
    assert all(not value.is_meta and value.dtype == torch.float32 for value in net.state_dict().values())


# The method


def faces() -> Tensor:
    return picture(32, 32, 3, count=2)


def restored(face: Tensor) -> Tensor:
    return restore_batch(face, toy_restorer())


def test_each_face_is_alone_and_has_its_own_noise() -> None:
    face, net, restorer = faces(), tiny_diffbir(), toy_restorer()
    together = walk(METHOD, face, restorer, PRIOR, ImageNoise([1, 2]), net)
    assert together.shape == face.shape
    alone = walk(METHOD, face[1:], restorer, PRIOR, ImageNoise([2]), net)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)
    assert not torch.equal(together[1:], walk(METHOD, face[1:], restorer, PRIOR, ImageNoise([3]), net))


def test_colours_are_those_of_the_restored_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown by a picture that has no detail, whatever its colour."""
    face, net = faces(), tiny_diffbir()
    monkeypatch.setattr(net, "picture", lambda latent: torch.full((2, 3, 32, 32), 0.7))
    result = walk(METHOD, face, toy_restorer(), PRIOR, ImageNoise([1, 2]), net)
    torch.testing.assert_close(result, coarse(restored(face)), atol=1e-5, rtol=0)


def test_a_restorer_of_another_size_gets_its_size_back() -> None:
    face = picture(64, 64, 3)
    result = walk(METHOD, face, toy_restorer(64), PRIOR, ImageNoise([1]), tiny_diffbir())
    assert result.shape == face.shape
    assert result.abs().max() <= 1


def test_guidance_is_off_as_published_and_draws_to_the_restored_face_once_it_is_on() -> None:
    face, net = faces()[:1], tiny_diffbir()
    given = Inputs(face, restored(face), net)
    published = METHODS["diffbir"].guide(given)
    assert isinstance(published, RestorationGuidance)
    assert (published.scale, published.weight, published.repeats, published.band) == (0.0, 0.5, 5, (-1, 1001))
    mean, deviation = net.encode(given.restored)
    zeros, ones = (published.target_of(lambda like, value=value: torch.full_like(like, value)) for value in (0, 1))
    assert torch.equal(zeros, mean)
    torch.testing.assert_close(ones, mean + deviation)
    guided = replace(METHOD, guide=lambda given: RestorationGuidance(given.own_target_latent, 100.0))
    free, drawn = (walk(m, face, toy_restorer(), PRIOR, ImageNoise([1]), net) for m in (METHOD, guided))
    assert (drawn - given.restored).abs().mean() != (free - given.restored).abs().mean()


def test_without_its_network_the_method_is_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs the network that it was published with"):
        walk(METHOD, faces(), toy_restorer(), PRIOR, ImageNoise([1, 2]))


# The commands


@pytest.fixture
def there(folder: Path) -> Path:
    """The tiny network under the published name."""
    folder.mkdir()
    path = folder / "diffbir-face.safetensors"
    save_weights(path, tiny_diffbir(), architecture="diffbir", config=asdict(TINY), dtype=torch.float32)
    return path


@pytest.mark.usefixtures("computes_in_bf16")
def test_compare_runs_it_beside_others(run: Run, models: Models, there: Path, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    command = ("compare", tmp_path / "faces", "--restorer", models[0], "--prior", models[1], "--device", "cpu")
    both = ("--methods", "restorer,diffbir", "--truth", tmp_path / "faces", "--json")
    told = run(*command, "--out", tmp_path / "out", *both).json
    assert [row["method"] for row in told["rows"]] == ["restorer", "diffbir"]
    assert (told["done"], told["failed"]) == (4, 0)
    first, second = (read_image(tmp_path / "out" / "results" / m / "face00.png") for m in ("restorer", "diffbir"))
    assert not torch.equal(first, second)
    half = ("--methods", "diffbir", "--precision", "bfloat16", "--json")
    assert run(*command, "--out", tmp_path / "half", *half).json["done"] == 2
    assert not torch.equal(second, read_image(tmp_path / "half" / "results" / "diffbir" / "face00.png"))


def test_missing_weights_are_one_sentence_with_the_command(run: Run, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 1)
    command = ("compare", tmp_path / "faces", "--out", tmp_path / "out", "--methods", "diffbir")
    failed = run(*command, "--restorer", models[0], "--prior", models[1], "--quiet")
    assert failed.code == 2
    assert "unfade models pull diffbir-face" in failed.err
    assert failed.err.count("\n") == 1
