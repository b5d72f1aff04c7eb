"""The photos on the page: dropping them, looking at their faces and results, leaving faces out."""

from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup, escape

from unfade.app.layout import Layout
from unfade.app.looking import looked_at, shown
from unfade.app.users import User
from unfade.app.work import Wanted, restorers_for

Changes = dict[Any, Any]  # from components to their new values


class Photos(Layout):
    """What happens to photos on the page. Handlers get the values of components, and return new ones."""

    work: Path  # with a folder for each user

    def opened(self, token: object, kept: Any) -> Changes:
        """What a user has left here, before a reload or before the server was started again."""
        user, parts = User.of(self.work, token), [self.strength, self.fidelity, self.steps]
        first, *values = kept if isinstance(kept, list) and len(kept) == 4 else ["small-restorer", 1, 0.5, 80]
        known = restorers_for(user)
        restorers = gr.Dropdown([*known], value=first if first in known else "small-restorer")
        given = {self.restorer: restorers, **dict(zip(parts, values, strict=True))}
        return {self.token: user.folder.name, self.list: _listed(user), self.name: next(iter(user.names), ""), **given}

    def dropped(self, token: str, files: list[str]) -> Changes:
        """Keep the photos that were dropped, and show the first of them."""
        user = User.of(self.work, token)
        before = user.names
        refused = list(user.take(map(Path, files)))
        new = [name for name in user.names if name not in before]
        name = new[0] if new else gr.skip()
        return {self.drop: None, self.refused: said(*refused), self.list: _listed(user), self.name: name}

    def selected(self, token: str, event: gr.SelectData) -> str:
        """The name of the photo that was clicked in the list."""
        return User.of(self.work, token).names[int(event.index)]

    def clicked(self, token: str, left_out: dict[str, list[int]], name: str, event: gr.SelectData) -> Changes:
        """Leave out the face that was clicked, or use it again."""
        out = {*left_out.get(name, [])} ^ {looked_at(User.of(self.work, token).photos / name).at(*event.index)}
        return {self.left_out: {**left_out, name: sorted(face for face in out if face is not None)}}

    def looked(self, name: str, *chosen: Any) -> Changes:
        """The photo with its faces, and the results of what is chosen now."""
        wanted = self.wanted(*chosen)
        if name not in wanted.user.names:
            return {self.kept: chosen[2:]}
        results = {name: str(path) for name in wanted.user.names if (path := wanted.result(name))}
        looked = looked_at(wanted.user.photos / name)
        found = f"{len(looked.boxes)} found, click one to leave it out" if looked.boxes else "none found"
        both = (looked.pixels, shown(Path(results[name]))) if name in results else None
        marked = looked.marked(wanted.left_out.get(name, ()))
        return {
            self.kept: chosen[2:],
            self.photo: gr.Image(marked, label=f"Faces in {name}: {found}", visible=True),
            self.slider: gr.ImageSlider(both, visible=both is not None),
            self.results: gr.File([*results.values()], visible=bool(results)),
        }

    def wanted(self, token: str, left_out: Any, restorer: str, strength: float, fidelity: float, steps: Any) -> Wanted:
        """What is chosen on the page; the components' values in the order in which handlers get them.

        There is at least 1 step, also while the field is empty.
        """
        return Wanted(User.of(self.work, token), restorer, strength, fidelity, max(1, int(steps or 1)), left_out)


def said(*lines: str) -> str:
    """Lines as HTML; whatever they quote is escaped."""
    return Markup('<div class="said">{}</div>').format(Markup("<br>").join(map(escape, lines)))


def _listed(user: User) -> Any:
    return gr.Gallery([(str(user.thumb(name)), name) for name in user.names], visible=bool(user.names))
