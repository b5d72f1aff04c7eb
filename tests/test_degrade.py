"""The stage that degrades clean faces: each face has its own draw, whatever its company, and the draw is kept."""

import hashlib
import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from toy_degradations import Numbers, contents
from toys import levels, save_pictures
from unfade.degradations.blind import BLIND_PRESETS, blind, draw_blind
from unfade.degradations.camera import CAMERA_PRESETS, camera, draw_camera
from unfade.errors import BadInput
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.run_stage import load_item
from unfade.jobs.runs import Run
from unfade.stages.degrade import (
    APPLY,
    KINDS,
    RECORDS,
    Degradation,
    FittedKind,
    blind_degradation,
    camera_degradation,
    degrade_faces,
    remake,
)

SIZE = 32
PRESETS = {"blind": BLIND_PRESETS, "camera": CAMERA_PRESETS}
NAMES = ["a.png", "b.jpg", "c.png", "d.png"]


def degraded(truth: list[Path], out: Path, degradation: Degradation, **options: object) -> list[Entry]:
    return degrade_faces(truth, Run(out, Journal(out / "journal.jsonl")), degradation, **options)


def records(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]


@pytest.mark.parametrize("kind", PRESETS)
def test_faces_become_degraded_faces_of_the_same_size(tmp_path: Path, kind: str) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png", "b.jpg"], size=SIZE)
    entries = degraded(truth, tmp_path / "out", KINDS[kind]())
    assert [(e.stage, e.item, e.status, e.output) for e in entries] == [
        ("degraded", "a.png", "done", "a.png"),
        ("degraded", "b.jpg", "done", "b.png"),
    ]
    for seed, name in enumerate(("a.png", "b.png")):
        picture = to_bytes(read_image(tmp_path / "out" / name))
        assert picture.shape == (SIZE, SIZE, 3)
        assert not np.array_equal(picture, levels(seed, SIZE))


@pytest.mark.parametrize("kind", PRESETS)
def test_a_face_does_not_depend_on_the_rest_of_its_batch(tmp_path: Path, kind: str) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png", "b.png", "c.png"], size=SIZE)
    degraded(truth, tmp_path / "all", KINDS[kind]())
    degraded(truth[::-1], tmp_path / "backwards", KINDS[kind]())
    for path in truth:
        degraded([path], tmp_path / "alone", KINDS[kind]())
    for out in ("backwards", "alone"):
        assert sorted(record["name"] for record in records(tmp_path / out)) == ["a.png", "b.png", "c.png"]
        (tmp_path / out / RECORDS).write_bytes((tmp_path / "all" / RECORDS).read_bytes())
        assert contents(tmp_path / "all") == contents(tmp_path / out)


@pytest.mark.parametrize("kind", PRESETS)
def test_any_number_of_workers_makes_the_same_bytes(tmp_path: Path, kind: str) -> None:
    truth = save_pictures(tmp_path / "truth", [f"{number:02}.png" for number in range(12)], size=48)
    for workers in (1, 2, 3):
        degraded(truth, tmp_path / str(workers), KINDS[kind](), size=SIZE, workers=workers)
    assert len(contents(tmp_path / "1")) == 13
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_draws_follow_from_seed_and_content(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png", "b.png"])
    truth += save_pictures(tmp_path / "truth", ["like a.png"])
    first, again, other = Numbers(), Numbers(), Numbers()
    degraded(truth, tmp_path / "1", first, seed=1)
    degraded(truth, tmp_path / "2", again, seed=1)
    degraded(truth, tmp_path / "3", other, seed=2)
    assert first.seeds == again.seeds
    assert first.seeds[2] == first.seeds[0]
    assert len({*first.seeds, *other.seeds}) == 4
    assert first.seeds[0] == np.random.default_rng(load_item(truth[0], None).seed(1, "degrade")).integers(2**40)


def test_a_second_run_degrades_nothing_and_another_degradation_all(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png"])
    for seeds, options in (([], {}), ([], {"seed": 1}), ([], {"size": 24})):
        for _ in range(2):
            degraded(truth, tmp_path / "out", Numbers(seeds=seeds), **options)
        assert len(seeds) == 1
    degraded(truth, tmp_path / "out", Numbers("other", seeds=seeds), size=24)
    assert len(seeds) == 2


def test_faces_are_brought_to_size_first(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png"], size=64)
    degradation = Numbers()
    degraded(truth, tmp_path / "small", degradation, size=SIZE)
    degraded(truth, tmp_path / "as it is", degradation)
    assert degradation.sizes == [(SIZE, SIZE), (64, 64)]
    assert [read_image(tmp_path / out / "a.png").shape[-1] for out in ("small", "as it is")] == [SIZE, 64]


def test_a_size_that_no_face_has(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least 16 pixels, got 8"):
        degraded(save_pictures(tmp_path, ["a.png"]), tmp_path / "out", Numbers(), size=8)


@pytest.mark.parametrize("make", [blind_degradation, camera_degradation])
def test_a_face_too_small_for_the_scale_fails_alone(tmp_path: Path, make: Callable[..., Degradation]) -> None:
    truth = save_pictures(tmp_path / "truth", ["big.png"], size=64)
    truth += save_pictures(tmp_path / "truth", ["small.png"], size=31)
    entries = degraded(truth, tmp_path / "out", make(scale=16))
    assert [entry.status for entry in entries] == ["done", "failed"]
    assert entries[1].reason.startswith("small.png: Expected a picture of at least 32 x 32 pixels for scale 16, got ")
    assert [record["name"] for record in records(tmp_path / "out")] == ["big.png"]


# The lines


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("preset", [(kind, preset) for kind in PRESETS for preset in PRESETS[kind]], ids="-".join)
def test_every_picture_can_be_made_again(tmp_path: Path, preset: tuple[str, str], size: int | None) -> None:
    truth = save_pictures(tmp_path / "truth", NAMES, size=SIZE)
    degraded(truth, tmp_path / "out", KINDS[preset[0]](preset[1]), size=size)
    lines = records(tmp_path / "out")
    assert [line["name"] for line in lines] == NAMES
    for path, line in zip(truth, lines, strict=True):
        assert line["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (line["kind"], line["size"]) == (preset[0], size)
        again = to_bytes(remake(read_image(path), line))
        assert np.array_equal(again, to_bytes(read_image(tmp_path / "out" / f"{path.stem}.png")))


def test_every_drawn_number_is_in_the_line(tmp_path: Path) -> None:
    (path,) = save_pictures(tmp_path / "truth", ["a.png"], size=SIZE)
    for kind, draw in (("blind", draw_blind), ("camera", draw_camera)):
        degraded([path], tmp_path / kind, KINDS[kind](), seed=3)
        seed = load_item(path, None).seed(3, "degrade")
        expected = draw(np.random.default_rng(seed), size=SIZE)
        (line,) = records(tmp_path / kind)
        assert type(expected)(**line["draw"]) == expected


@pytest.mark.parametrize(
    "line",
    [{}, {"kind": "rain"}, {"draw": None}, {"draw": {}}, {"draw": {"iso": 3}}, {"name": None, "size": 8, "draw": 3}],
    ids=str,
)
def test_malformed_lines_are_refused(tmp_path: Path, line: dict[str, object]) -> None:
    (path,) = save_pictures(tmp_path / "truth", ["a.png"])
    degraded([path], tmp_path / "out", blind_degradation())
    changed = line and records(tmp_path / "out")[0] | line
    with pytest.raises(BadInput, match=r"Expected a line of degradation\.jsonl"):
        remake(read_image(path), changed)


def test_lines_follow_the_sources_and_those_that_failed_have_none(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", NAMES)
    truth[1].write_text("no picture")
    degraded(truth[::-1], tmp_path / "out", blind_degradation())
    assert [line["name"] for line in records(tmp_path / "out")] == ["d.png", "c.png", "a.png"]
    degraded(truth, tmp_path / "out", blind_degradation())
    assert [line["name"] for line in records(tmp_path / "out")] == ["a.png", "c.png", "d.png"]
    save_pictures(tmp_path / "truth", ["c.png"], first_seed=9)  # another content: another line, not two
    degraded(truth, tmp_path / "out", blind_degradation())
    lines = records(tmp_path / "out")
    assert [line["name"] for line in lines] == ["a.png", "c.png", "d.png"]
    assert lines[1]["sha256"] == hashlib.sha256(truth[2].read_bytes()).hexdigest()


def test_pictures_of_other_runs_keep_their_lines(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", NAMES)
    degraded(truth[:2], tmp_path / "out", blind_degradation())
    (tmp_path / "out" / "a.png").unlink()
    degraded(truth[2:], tmp_path / "out", blind_degradation())
    assert [line["name"] for line in records(tmp_path / "out")] == ["c.png", "d.png", "b.jpg"]


def test_a_file_of_lines_that_was_lost_comes_back(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", NAMES, size=SIZE)
    degraded(truth, tmp_path / "out", camera_degradation(), size=24)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / RECORDS).unlink()
    degraded(truth, tmp_path / "out", camera_degradation(), size=24)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("cut", range(0, 200, 40))
def test_a_line_that_was_cut_off_is_written_anew(tmp_path: Path, cut: int) -> None:
    truth = save_pictures(tmp_path / "truth", NAMES)
    degraded(truth, tmp_path / "out", blind_degradation())
    before = contents(tmp_path / "out")
    (tmp_path / "out" / RECORDS).write_bytes(before[RECORDS][: -1 - cut])
    (tmp_path / "out" / "d.png").unlink()
    degraded(truth, tmp_path / "out", blind_degradation())
    assert contents(tmp_path / "out") == before


def test_no_picture_is_ever_without_its_line_by_several_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any picture's begin or end, the folder has a line for each picture; run again, it is as if not."""
    truth = save_pictures(tmp_path / "truth", NAMES)
    degraded(truth, tmp_path / "undisturbed", camera_degradation())
    record = Journal.record
    for at in range(2, 9, 3):
        out, left = tmp_path / str(at), at

        def killing(journal: Journal, entry: Entry) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            record(journal, entry)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "record", killing)
            with pytest.raises(KeyboardInterrupt):
                degraded(truth, out, camera_degradation(), workers=2)
        named = {f"{Path(line['name']).stem}.png" for line in records(out)}
        assert {path.name for path in out.glob("*.png")} <= named
        degraded(truth, out, camera_degradation(), workers=2)
        assert contents(out) == contents(tmp_path / "undisturbed")


# The kinds


def drawn(degradation: Degradation, size: int = 128) -> list[Tensor]:
    truth = from_bytes(levels(1, size))
    draws = [degradation.draw(np.random.default_rng(seed), height=size, width=size) for seed in range(2)]
    return [{"blind": blind, "camera": camera}[degradation.kind](truth, draw) for draw in draws]


def test_each_kind_can_be_applied_and_sent_to_another_process() -> None:
    assert {*APPLY, FittedKind.kind} == {*KINDS}, "see test_degrade_fitted.py"
    for kind in APPLY:
        degradation = KINDS[kind]()
        assert degradation.kind == kind
        assert pickle.loads(pickle.dumps(degradation)) == degradation


@pytest.mark.parametrize(("kind", "presets"), [("blind", BLIND_PRESETS), ("camera", CAMERA_PRESETS)])
def test_presets_differ_as_their_settings_do(kind: str, presets: dict[str, object]) -> None:
    results = {name: torch.stack(drawn(KINDS[kind](name, None))) for name in PRESETS[kind]}
    for one, other in itertools.combinations(presets, 2):
        assert torch.equal(results[one], results[other]) == (presets[one] == presets[other])


def test_the_isos_of_code_and_text() -> None:
    isos = {name: settings.iso for name, settings in CAMERA_PRESETS.items()}
    assert isos == {"mild": 800, "moderate": 1500, "severe": 3000, "moderate-text": 1600, "severe-text": 3200}


@pytest.mark.parametrize("size", [32, 128])
def test_scale_is_the_ratio_at_any_size(size: int) -> None:
    for scale in (1, 2, 8):
        expected = []
        for seed in range(2):
            draw = draw_blind(np.random.default_rng(seed), size=size)
            expected.append(blind(from_bytes(levels(1, size)), replace(draw, ratio=scale)))
        assert all(map(torch.equal, drawn(blind_degradation(scale=scale), size), expected))


@pytest.mark.parametrize("make", [blind_degradation, camera_degradation])
def test_scale_has_an_effect(make: Callable[..., Degradation]) -> None:
    results = [drawn(make(scale=scale))[0] for scale in (None, 2, 8)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(results, 2))


@pytest.mark.parametrize("make", [blind_degradation, camera_degradation])
def test_no_scale_below_one(make: Callable[..., Degradation]) -> None:
    with pytest.raises(BadInput, match="at least 1, got 0"):
        make(scale=0)


def test_a_preset_is_the_settings_of_that_name() -> None:
    for name, settings in BLIND_PRESETS.items():
        assert blind_degradation(name).settings == settings
    for name, settings in CAMERA_PRESETS.items():
        assert camera_degradation(name).settings == settings
    assert camera_degradation().settings == CAMERA_PRESETS["moderate"]


@pytest.mark.parametrize("kind", PRESETS)
def test_an_unknown_preset_is_answered_with_the_known_ones(kind: str) -> None:
    with pytest.raises(BadInput) as caught:
        KINDS[kind]("heavy", None)
    assert str(caught.value) == f"There is no preset named heavy; there are: {', '.join(PRESETS[kind])}."
