"""Behind the page: users' folders, what they can choose, what is done in their folders. None of it needs gradio."""

import json
from pathlib import Path
from typing import Any

import pytest

from test_looking import people
from unfade.app import work
from unfade.app.work import User, Wanted
from unfade.errors import BadInput
from unfade.recipes.adapt_settings import AdaptSettings
from unfade.recipes.restore import BUILT_IN
from unfade.recipes.suiting import Settings


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User.of(tmp_path / "work", None)


def test_a_token_names_a_folder_and_nothing_else_does(tmp_path: Path) -> None:
    new = User.of(tmp_path, None)
    assert User.of(tmp_path, new.folder.name) == new
    for token in ("../../etc", "", "a/b", "x" * 23, ["x" * 22], 5, "é" * 22):
        other = User.of(tmp_path, token)
        assert other.folder.parent == tmp_path
        assert len(other.folder.name) == 22
        assert other != User.of(tmp_path, token)


def test_only_installed_restorers_and_own_adaptations_can_be_chosen(user: User) -> None:
    assert {"small-restorer", "small-restorer-256", "small-swinir"} <= {*user.restorers}
    assert next(iter(user.restorers.items())) == ("built-in", BUILT_IN), "what the command uses without `--restorer`"
    with pytest.raises(BadInput, match=r"There is no restorer /etc/passwd; there are: built-in, small"):
        Wanted(user, restorer="/etc/passwd")
    run = Wanted(user, restorer="small-restorer", steps=3).run
    run.mkdir(parents=True)
    (run / "restorer.safetensors").touch()
    assert user.restorers["adapted from small-restorer, 3 steps"] == (str(run),)
    again = Wanted(user, restorer="adapted from small-restorer, 3 steps", steps=3)
    assert again.run.name == "small-restorer, 3 steps, 3 steps"
    assert Wanted(user).run.parent == run.parent


def test_the_usual_choice_is_what_the_commands_do_without_a_restorer(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[AdaptSettings] = []

    def adapt(photos: Path, run: Path, settings: Settings, **_: object) -> Any:
        asked.append(settings if isinstance(settings, AdaptSettings) else settings("small-swinir"))
        failures = [("a.png", f"{user.photos}/a.png: no face found.")]
        return type("Adapted", (), {"warnings": ("Only 1 face.",), "failures": failures})

    monkeypatch.setattr(work, "adapt", adapt)
    assert Wanted(user).variant.restorer == BUILT_IN
    assert Wanted(user, steps=7).adapt() == ["Only 1 face.", "photos/a.png: no face found."]
    Wanted(user, restorer="small-restorer-256", steps=7).adapt()
    assert [settings.restorer for settings in asked] == ["small-swinir", "small-restorer-256"]
    assert {settings.finetune.loop.steps for settings in asked} == {7}


def test_what_has_no_result_is_told_without_the_places_of_this_machine(user: User, tmp_path: Path) -> None:
    user.take([people(tmp_path / "a.png")])
    assert Wanted(user, {"a.png": [0, 1]}).restore() == ["a.png: all of its faces are left out."]


def test_the_page_needs_its_extra(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unfade.cli.page.find_spec", lambda name: None)
    refused = run("app", "--work", tmp_path)
    assert (refused.code, refused.err) == (
        2,
        'The page needs gradio, which is not installed: pip install "unfade[app]"\n',
    )
    assert json.dumps([*tmp_path.iterdir()]) == "[]"
