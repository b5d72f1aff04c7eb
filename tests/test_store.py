"""Run folders, seeds, weights on disk and the table of models."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import unfade
from toys import ToyRestorer, same_state, state_of
from unfade.errors import BadCheckpoint, OutputConflict, UnknownModel
from unfade.jobs.journal import Counts, Entry, Journal
from unfade.jobs.runs import open_run
from unfade.store.checkpoints import (
    card_path,
    load_state,
    read_card,
    read_weights,
    save_weights,
    sha256_of,
    write_card,
)
from unfade.store.seeds import fingerprint, seed_for
from unfade.zoo.models import MODELS, find_weights, installed, path_of

PACKAGE = Path(unfade.__file__).parent

# Seeds


@given(st.lists(st.one_of(st.integers(), st.text(), st.binary()), max_size=4))
def test_a_seed_suits_every_generator(parts: list[object]) -> None:
    seed = seed_for(*parts)
    assert 0 <= seed < 2**63
    assert seed == seed_for(*parts)


def test_a_seed_depends_on_every_part_and_on_where_it_ends() -> None:
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", ""), ("ab", "d"), (1, 2), (12,), (2, 1)]
    assert len({seed_for(*each) for each in parts}) == len(parts)


def test_seeds_stay_as_they_are() -> None:
    """Runs are continued by later versions, and on other machines."""
    assert seed_for("target", 0, "face") == 4360022322183069190
    assert seed_for() == 0xE3B0C44298FC1C14 >> 1  # SHA-256 of nothing


def test_a_fingerprint_depends_on_every_part_and_not_on_the_order_of_a_mapping() -> None:
    parts = [(DONE,), ("a", "b"), (["a", "b"],), ("ab",), ({"a": 1, "b": (2.5, None)},), ({"a": 1},), (1,), ("1",), ()]
    assert len({fingerprint(*each) for each in parts}) == len(parts)
    assert fingerprint({"b": 1, "a": Path("x")}) == fingerprint({"a": "x", "b": 1})
    assert fingerprint("target", {"seed": 0}) == "b4f80d75394bd059"


# The journal

DONE = Entry("restored", "a.png", "done", key="k", notes=("grey converted to RGB",), outputs=("a.png",))


def test_entries_are_read_back(tmp_path: Path) -> None:
    entries = [DONE, Entry("restored", "b.png", "failed", reason="b.png is damaged.")]
    journal = Journal(tmp_path / "new" / "journal.jsonl")
    for entry in entries:
        journal.record(entry)
    again = Journal(journal.path)
    assert again.stage("restored") == journal.stage("restored") == entries
    assert again.entry("restored", "a.png") == DONE
    assert again.entry("targets", "a.png") is None
    assert again.stage("targets") == []


def test_the_last_entry_of_an_item_counts_at_its_first_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    other = replace(DONE, item="b.png")
    for entry in (replace(DONE, status="begun"), other, DONE):
        journal.record(entry)
    assert journal.stage("restored") == Journal(journal.path).stage("restored") == [DONE, other]


def test_a_begun_item_stays_begun_after_a_kill(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.jsonl").record(Entry("restored", "a.png", "begun", outputs=("a.png",)))
    assert Journal(tmp_path / "journal.jsonl").entry("restored", "a.png") == Entry(
        "restored", "a.png", "begun", outputs=("a.png",)
    )


ODD_NAMES = ["写真 ü.png", "two\nlines.png", "separator\u2028.png", "\udcff.png", " .png", '"quoted\\".png']


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_file_name_can_be_recorded(tmp_path: Path, name: str) -> None:
    Journal(tmp_path / "journal.jsonl").record(replace(DONE, item=name))
    assert Journal(tmp_path / "journal.jsonl").stage("restored") == [replace(DONE, item=name)]


def test_a_half_written_line_is_forgotten_wherever_it_ends(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record(DONE)
    whole = journal.path.read_bytes()
    journal.record(replace(DONE, item="b.png"))
    second = journal.path.read_bytes()[len(whole) :]
    for length in range(len(second) - 1):
        journal.path.write_bytes(whole + second[:length])
        assert Journal(journal.path).stage("restored") == [DONE]


def test_the_next_line_after_a_half_written_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).record(DONE)
    path.write_bytes(path.read_bytes() + b'{"stage": "restored", "item": "b\xc3')  # cut inside a letter
    Journal(path).record(replace(DONE, item="c.png"))
    assert [entry.item for entry in Journal(path).stage("restored")] == ["a.png", "c.png"]


def test_a_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps(asdict(DONE)))
    Journal(path).record(replace(DONE, item="b.png"))
    assert [entry.item for entry in Journal(path).stage("restored")] == ["a.png", "b.png"]


@given(st.lists(st.sampled_from(["done", "skipped", "failed", "no_face"])))
def test_counts_add_up(statuses: list[str]) -> None:
    counts = Counts.of([Entry("faces", str(i), status) for i, status in enumerate(statuses)])
    assert counts.found == len(statuses) == counts.done + counts.skipped + counts.failed + counts.no_face
    assert counts.as_dict() == {"found": len(statuses)} | {
        kind: statuses.count(kind) for kind in ("done", "skipped", "failed", "no_face")
    }


# Run folders


def open_and_close(folder: Path, settings: dict[str, object], **options: object) -> None:
    with open_run(folder, settings, **options):
        pass


def test_a_run_is_opened_again_with_the_same_settings(tmp_path: Path) -> None:
    settings = {"seed": 1, "targets": {"start": 150, "spacing": "250"}, "betas": (0.9, 0.999), "real": None}
    with open_run(tmp_path / "run", settings, about={"photos": "écrit"}) as run:
        run.journal.record(DONE)
    with open_run(tmp_path / "run", settings, about={"photos": "elsewhere"}) as run:
        assert run.journal.stage("restored") == [DONE]
    content = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert content["settings"] == settings | {"betas": [0.9, 0.999]}
    assert content["about"]["photos"] == "écrit"
    assert content["about"].keys() >= {"unfade", "torch"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 2}, "seed = 1, now it is 2;"),
        ({"targets": {"start": 100, "spacing": "250"}}, "start = 150, now it is 100;"),
        ({"targets": None}, 'targets = {"start": 150, "spacing": "250"}, now it is its usual value;'),
        ({"more": "x" * 200}, 'more = its usual value, now it is "' + "x" * 76 + "...;"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    settings = {"seed": 1, "targets": {"start": 150, "spacing": "250"}}
    open_and_close(tmp_path / "run", settings)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(OutputConflict) as caught:
        open_and_close(tmp_path / "run", settings | changed)
    assert said in str(caught.value)
    assert str(tmp_path / "run") in str(caught.value)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", "3"])
def test_somebody_elses_run_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(OutputConflict, match="not written by unfade"):
        open_and_close(tmp_path, {"seed": 1})
    assert (tmp_path / "run.json").read_text() == content


def test_the_input_is_refused_as_output(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "link").symlink_to(photos)
    for out in (photos, tmp_path / "photos" / ".." / "photos", tmp_path / "link"):
        with pytest.raises(OutputConflict, match="is also the input; name another folder"):
            open_and_close(out, {}, inputs=[tmp_path / "truth", photos])
    assert not list(photos.iterdir())


# Weights on disk


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)


def test_weights_are_read_back(tmp_path: Path) -> None:
    config = {"depths": [2, 2], "patch": 2}
    net = Net()
    save_weights(tmp_path / "a.safetensors", net, architecture="toy", config=config, dtype=torch.float32)
    weights = read_weights(tmp_path / "a.safetensors")
    assert (weights.architecture, weights.config) == ("toy", config)
    assert same_state(weights.state, state_of(net))
    other = Net()
    load_state(other, weights.state, tmp_path / "a.safetensors")
    assert same_state(state_of(other), state_of(net))


def test_half_precision_halves_the_file_and_counts_stay_whole(tmp_path: Path) -> None:
    net = nn.Linear(64, 64)
    net.register_buffer("count", torch.tensor(2**40 + 1))
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        save_weights(tmp_path / name, net, architecture="toy", config={}, dtype=dtype)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "full").stat().st_size
    state = read_weights(tmp_path / "half").state
    assert state["count"] == 2**40 + 1
    assert state["weight"].dtype == torch.float32
    assert torch.equal(state["weight"], net.weight.half().float())
    assert net.weight.dtype == torch.float32


def test_another_architecture_is_refused_by_its_first_key() -> None:
    state = state_of(ToyRestorer())
    for broken, said in (
        ({k: v for k, v in state.items() if k != "encoder.bias"}, "encoder.bias is missing in the file and of shape"),
        (state | {"a.more": torch.zeros(2)}, "a.more is of shape (2,) in the file and missing in the network"),
        (state | {"decoder.weight": torch.zeros(1, 2)}, "decoder.weight is of shape (1, 2) in the file and of shape"),
        (state_of(Net()), "conv.bias is of shape (4,) in the file and missing in the network"),
    ):
        net = ToyRestorer(seed=3)
        with pytest.raises(BadCheckpoint) as caught:
            load_state(net, broken, Path("some/file.safetensors"))
        assert str(caught.value).startswith("some/file.safetensors is of another architecture: " + said)
        assert same_state(state_of(net), state_of(ToyRestorer(seed=3))), "nothing may be half loaded"


def test_a_folder_with_the_results_of_another_command_is_named_as_such(tmp_path: Path) -> None:
    with open_run(tmp_path, {"adapt": {"restorer": "a", "seed": 0}}):
        pass
    with (
        pytest.raises(OutputConflict, match=r"another command \(adapt\)"),
        open_run(tmp_path, {"degrade": {"seed": 0}}),
    ):
        pass


def test_damaged_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, nn.Linear(8, 8), architecture="toy", config={}, dtype=torch.float32)
    content = path.read_bytes()
    for broken in (b"", content[:5], content[:100], content[:-1], b"not weights at all"):
        path.write_bytes(broken)
        with pytest.raises(
            BadCheckpoint, match="is not a readable safetensors file" if broken else "is empty"
        ) as caught:
            read_weights(path)
        assert str(caught.value).startswith(str(path))
    with pytest.raises(BadCheckpoint, match=r"nowhere\.safetensors is not a readable"):
        read_weights(tmp_path / "nowhere.safetensors")


def test_weights_of_another_program(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for header in (None, {"format": "pt"}, {"architecture": "toy"}):
        save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", header)
        with pytest.raises(BadCheckpoint, match="does not say which network"):
            read_weights(tmp_path / "a.safetensors")


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_card_lies_beside_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "face.safetensors"
    assert read_card(weights) == {}
    write_card(weights, {"licence": "CC BY-NC-SA 4.0", "made by": "Zoë", "steps": 3})
    assert card_path(weights) == tmp_path / "face.json"
    assert read_card(weights) == {"licence": "CC BY-NC-SA 4.0", "made by": "Zoë", "steps": 3}


# The table of models


def test_built_in_models_lie_in_the_package_and_others_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    for name, model in MODELS.items():
        assert model.name == name
        folder = PACKAGE / "weights" if model.built_in else tmp_path
        assert path_of(model) == folder / f"{name}{'.onnx' if model.architecture == 'onnx' else '.safetensors'}"
    monkeypatch.delenv("UNFADE_WEIGHTS")
    assert all(path_of(model).is_absolute() for model in MODELS.values())


def test_a_name_is_found_for_its_kind_once_its_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("unfade.zoo.models.files", lambda package: tmp_path)
    (tmp_path / "weights").mkdir()
    for name, model in MODELS.items():
        with pytest.raises(UnknownModel, match=f"The weights of {name} are not at .*; (install|fetch|find) "):
            find_weights(name, model.kind)
        path_of(model).touch()
        assert find_weights(name, model.kind) == path_of(model)


def test_installed_are_those_whose_files_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    built_in = [name for name, model in MODELS.items() if model.built_in]
    assert installed() == built_in
    assert installed("restorer") == [name for name in built_in if MODELS[name].kind == "restorer"]
    path_of(MODELS["codeformer"]).touch()
    for name, kind in (("mine", "restorer"), ("yours", "prior")):
        (tmp_path / f"{name}.safetensors").touch()
        write_card(tmp_path / f"{name}.safetensors", {"kind": kind})
    assert {*installed("restorer")} - {*built_in} == {"codeformer", "mine"}
    assert {*installed()} - {*built_in} == {"codeformer", "mine", "yours"}


def test_files_and_run_folders_are_found(tmp_path: Path) -> None:
    for name in ("restorer.safetensors", "mine.safetensors"):
        (tmp_path / name).touch()
    assert find_weights(tmp_path, "restorer") == tmp_path / "restorer.safetensors"
    assert find_weights(str(tmp_path / "mine.safetensors"), "prior") == tmp_path / "mine.safetensors"


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    for spec, kind in (("nobody", "restorer"), ("small-prior", "restorer"), ("small-restorer", "prior")):
        with pytest.raises(UnknownModel) as caught:
            find_weights(spec, kind)
        names = [name for name, model in MODELS.items() if model.kind == kind]
        assert str(caught.value).startswith(f"There is no {kind} named {spec},")
        assert str(caught.value).endswith(f"there are: {', '.join(names)}.")
    with pytest.raises(UnknownModel):
        find_weights(tmp_path, "restorer")  # a folder, but of no run


def test_equal_networks_are_equal_files(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    kept = set()
    for i in range(20):
        path = tmp_path / f"{i}.safetensors"
        save_weights(path, net, architecture="tiny", config={"b": [1, 2], "a": 'é\n"'}, dtype=torch.float32)
        kept.add(path.read_bytes())
    assert len(kept) == 1
    found = read_weights(tmp_path / "0.safetensors")
    assert (found.architecture, found.config) == ("tiny", {"b": [1, 2], "a": 'é\n"'})
    assert torch.equal(found.state["weight"], net.weight)
