"""`unfade degrade --kind fitted`: faces get the damage of a folder, each by its own recorded draw."""

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from command import Result
from recorded import picture
from toy_degradations import contents
from toys import save_pictures
from unfade.degradations.fitted import fit
from unfade.degradations.fitted_file import DEGRADATION, load_degradation, save_degradation
from unfade.errors import BadInput
from unfade.images.files import read_image, to_bytes
from unfade.jobs import runs
from unfade.jobs.journal import Journal
from unfade.stages import degrade
from unfade.stages.degrade import RECORDS, FittedKind, degrade_faces, fitted_degradation, remake, settings_of

Run = Callable[..., Result]
SIZE = 32


def write_degradation(folder: Path, seed: int = 0) -> Path:
    """A file for faces of SIZE."""
    targets = torch.cat([picture(SIZE, SIZE, 70 + i) for i in range(6)])
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(seed))
    folder.mkdir(parents=True, exist_ok=True)
    save_degradation(folder / DEGRADATION, fit((targets + 0.2 * noise).clamp(-1, 1), targets))
    return folder / DEGRADATION


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With three faces of the right size, two larger ones, and the run of an adaptation."""
    monkeypatch.chdir(tmp_path)
    save_pictures(Path("truth"), ["a.png", "b.png", "c.png"], size=SIZE)
    save_pictures(Path("large"), ["d.png", "e.png"], size=48, first_seed=7)
    write_degradation(Path("run"))
    return Path()


def degraded(truth: str, out: str, **options: object) -> list[dict[str, object]]:
    paths, run = sorted(Path(truth).glob("*.png")), runs.Run(Path(out), Journal(Path(out, "journal.jsonl")))
    degrade_faces(paths, run, fitted_degradation("run"), **options)
    return [json.loads(line) for line in Path(out, RECORDS).read_text().splitlines()]


# The stage


@pytest.mark.parametrize(("truth", "size"), [("truth", None), ("large", SIZE)])
def test_every_picture_can_be_made_again(folder: Path, truth: str, size: int | None) -> None:
    lines = degraded(truth, "out", size=size)
    assert len(lines) > 1
    for line in lines:
        assert (line["kind"], line["size"]) == ("fitted", size)
        source, result = read_image(Path(truth, str(line["name"]))), read_image(Path("out", str(line["name"])))
        assert result.shape == (3, SIZE, SIZE)
        assert np.array_equal(to_bytes(remake(source, line, fitted="run")), to_bytes(result))


def test_a_face_does_not_depend_on_the_rest_nor_on_the_workers(folder: Path) -> None:
    save_pictures(Path("truth"), [f"{number}.png" for number in range(6)], size=SIZE, first_seed=20)
    for workers in (1, 2):
        degraded("truth", str(workers), workers=workers)
    assert len(contents(Path("1"))) == 10
    assert contents(Path("1")) == contents(Path("2"))
    save_pictures(Path("alone"), ["b.png"], size=SIZE, first_seed=1)
    degraded("alone", "3")
    assert Path("3", "b.png").read_bytes() == Path("1", "b.png").read_bytes()


def test_a_face_of_another_size_fails_alone(folder: Path) -> None:
    save_pictures(Path("truth"), ["z.png"], size=48)
    paths, run = sorted(Path("truth").glob("*.png")), runs.Run(Path("out"), Journal(Path("out/journal.jsonl")))
    entries = degrade_faces(paths, run, fitted_degradation("run"))
    assert [entry.status for entry in entries] == ["done", "done", "done", "failed"]
    assert re.search(r"faces of 32 x 32 pixels, not 48 x 48; resize them with a `size` of 32", entries[-1].reason)


def test_a_line_needs_its_own_file(folder: Path) -> None:
    (line, *_), face = degraded("truth", "out"), read_image(Path("truth/a.png"))
    with pytest.raises(BadInput, match="give that degradation as `fitted`"):
        remake(face, line)
    write_degradation(Path("other"), seed=1)
    with pytest.raises(BadInput, match=r"other/degradation\.safetensors did not degrade this face"):
        remake(face, line, fitted="other")
    with pytest.raises(BadInput, match=r"Expected a line of degradation\.jsonl"):
        remake(face, {**line, "draw": {"photo": 1}}, fitted="run")


def test_a_file_that_was_replaced_meanwhile_is_not_read(folder: Path) -> None:
    begun = fitted_degradation("run")
    write_degradation(Path("run"), seed=2)
    assert begun.loaded().size == SIZE, "this process has read it before"
    degrade._content_of.cache_clear()
    with pytest.raises(BadInput, match="has changed since this run began"):
        begun.loaded()
    assert fitted_degradation("run").sha256 != begun.sha256


def test_it_is_known_by_its_content_and_can_be_sent_to_another_process(folder: Path) -> None:
    begun = fitted_degradation("run")
    assert pickle.loads(pickle.dumps(begun)) == begun
    moved = replace(begun, file=Path("elsewhere"))
    assert (repr(moved), settings_of(moved)) == (repr(begun), settings_of(begun))
    assert json.loads(json.dumps(settings_of(begun))) == {"sha256": begun.sha256, "size": SIZE}
    assert FittedKind.kind == "fitted"


# The command


FITTED = ("--kind", "fitted", "--fitted", "run")


def test_every_flag_has_an_effect(run: Run, folder: Path) -> None:
    write_degradation(Path("other"), seed=1)
    found = set()
    for flags in (FITTED, (*FITTED, "--seed", "3"), ("--kind", "fitted", "--fitted", "other"), ()):
        out = f"out{len(found)}"
        assert run("degrade", "truth", "--out", out, *flags, "--json").code == 0
        found.add(Path(out, "a.png").read_bytes())
    assert len(found) == 4
    file = ("--kind", "fitted", "--fitted", Path("run", DEGRADATION))
    assert run("degrade", "truth", "--out", "again", *file).code == 0
    assert contents(Path("again")) == contents(Path("out0")), "a run stands for its file"


def test_faces_are_brought_to_its_size_and_that_is_said(run: Run, folder: Path) -> None:
    said = run("degrade", "large", "--out", "out", *FITTED)
    assert said.code == 0
    assert "resized to 32 px where needed, the size of the faces that run/degradation.safetensors" in said.out
    assert read_image(Path("out/d.png")).shape == (3, SIZE, SIZE)
    assert run("degrade", "large", "--out", "out", *FITTED, "--size", "32", "--json").json["size"] == SIZE
    refused = run("degrade", "large", "--out", "no", *FITTED, "--size", "48")
    assert (refused.code, refused.err.count("\n"), Path("no").exists()) == (2, 1, False)
    assert "faces of 32 x 32 pixels, not 48 x 48; resize them with a --size of 32" in refused.err


def test_settings_and_draws_are_recorded(run: Run, folder: Path) -> None:
    run("degrade", "truth", "--out", "out", *FITTED)
    recorded = json.loads(Path("out/run.json").read_text())
    sha256 = fitted_degradation("run").sha256
    assert recorded["settings"]["degrade"] == {
        "kind": "fitted",
        "size": SIZE,
        "seed": 0,
        "sha256": sha256,
    }
    assert recorded["about"]["fitted"] == str(Path("run", DEGRADATION))
    draws = [json.loads(line)["draw"] for line in Path("out", RECORDS).read_text().splitlines()]
    assert all(draw["sha256"] == sha256 and 0 <= draw["photo"] < 6 for draw in draws)
    assert len({draw["seed"] for draw in draws}) == 3


def test_another_degradation_is_another_run(run: Run, folder: Path) -> None:
    run("degrade", "truth", "--out", "out", *FITTED)
    Path("run").rename("moved")
    moved = ("--kind", "fitted", "--fitted", "moved")
    assert run("degrade", "truth", "--out", "out", *moved).code == 0
    write_degradation(Path("moved"), seed=1)
    assert "made with sha256" in run("degrade", "truth", "--out", "out", *moved).err


REFUSED = {
    ("--kind", "fitted"): "--kind fitted needs --fitted with a run folder, or the file",
    ("--fitted", "run"): "--fitted has no effect with --kind blind; leave it out, or choose --kind fitted",
    (*FITTED, "--preset", "mild"): "--preset has no effect with --kind fitted; leave it out, or choose --kind blind or",
    (*FITTED, "--scale", "4"): "--scale has no effect with --kind fitted",
    (*FITTED, "--iso", "800"): "--iso has no effect with --kind fitted; leave it out, or choose --kind camera",
    (
        "--kind",
        "fitted",
        "--fitted",
        "truth",
    ): "truth holds no degradation.safetensors, which an adaptation with enough",
    ("--kind", "fitted", "--fitted", "truth/a.png"): "truth/a.png holds no fitted degradation",
    ("--kind", "fitted", "--fitted", "nothing"): "There is no file or folder nothing",
    ("--kind", "rain"): "there are: blind, camera, fitted",
}


@pytest.mark.parametrize("flags", REFUSED, ids=" ".join)
def test_what_does_not_go_together_is_refused_in_one_sentence(run: Run, folder: Path, flags: tuple[str, ...]) -> None:
    said = run("degrade", "truth", "--out", "out", *flags)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert REFUSED[flags] in said.err
    assert not Path("out").exists()


def test_a_rehearsal_takes_it_for_faces_of_its_size(run: Run, folder: Path, models: tuple[Path, Path]) -> None:
    save_pictures(Path("faces"), [f"{number}.png" for number in range(6)], size=SIZE)
    words = ("rehearse", "faces", "--restorer", models[0], "--prior", models[1], "--steps", "1", "--start", "1",
             "--free-from", "0", *FITTED)  # fmt: skip
    done = run(*words, "--out", "out", "--json")
    assert done.code == 0
    assert done.json["degradation"] == {"sha256": fitted_degradation("run").sha256, "size": SIZE}
    (photo, *_) = sorted(Path("out/photos/learn").glob("*.png"))
    assert not np.array_equal(to_bytes(read_image(photo)), to_bytes(read_image(Path("out/truth/learn", photo.name))))
    targets = torch.cat([picture(16, 16, i) for i in range(6)])
    save_degradation(Path("small.safetensors"), fit(targets, targets))
    refused = run(*words[:-1], "small.safetensors", "--out", "no")
    assert (refused.code, Path("no").exists()) == (2, False)
    assert "small.safetensors is the degradation of faces of 16 x 16 pixels, not 32 x 32" in refused.err


def test_the_result_is_that_of_the_library(run: Run, folder: Path) -> None:
    """Faces in the command's folder have the noise of the photos, by size of the change."""
    run("degrade", "truth", "--out", "out", *FITTED)
    made = load_degradation("run").damaged(read_image(Path("truth/a.png")), np.random.default_rng(0))
    changes = [(image - read_image(Path("truth/a.png"))).std() for image in (made, read_image(Path("out/a.png")))]
    assert float(changes[0]) == pytest.approx(float(changes[1]), rel=0.2)
