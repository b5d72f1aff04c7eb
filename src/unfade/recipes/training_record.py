"""What a pre-training is recorded by: the checkpoint beside its result, what that was made of, and its curve."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unfade.nets.architecture import Kind
from unfade.store.checkpoints import check_output, sha256_of
from unfade.store.seeds import fingerprint
from unfade.zoo.models import find_weights

if TYPE_CHECKING:
    from unfade.recipes.pretrain import PriorRecipe, RestorerRecipe

T = TypeVar("T")


def checkpoint_of(out: Path) -> Path:
    """The checkpoint of the training that writes `out`. Raises as `check_output` does."""
    checkpoint = out.with_suffix(".training")
    check_output(out, checkpoint)
    return checkpoint


def made_of(
    recipe: "PriorRecipe | RestorerRecipe", faces: Path, paths: Sequence[Path], models: Mapping[Kind, Sequence[object]]
) -> str:
    """A fingerprint of all that a training depends on besides its loop, which the checkpoint compares by itself.

    `paths` are the pictures below `faces`, known by their names and sizes; `models` has those that it begins with or
    compares with, by kind; None stands for none.
    """
    files = [find_weights(str(name), kind) for kind, names in models.items() for name in names if name is not None]
    pictures = [(path.relative_to(faces).as_posix(), path.stat().st_size) for path in paths]
    learning = {**asdict(recipe), "loop": None, "start": None, "from_prior": None, "prior": None}
    return fingerprint(learning, pictures, [sha256_of(file) for file in files])


def thinned(rows: list[T], most: int = 60) -> list[T]:
    """At most `most` rows, evenly spaced and including the last one, so that a card can hold the curve."""
    return rows[:: -max(1, -(-len(rows) // most))][::-1]
