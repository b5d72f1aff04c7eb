"""Put a trained model into the package: its weights, a card with data, licences, curves and limits, and a picture.

    python tools/make_card.py small-prior TRAINED.safetensors --data faces.csv --command "unfade train ..."

TRAINED.safetensors is what `unfade train prior|restorer` wrote, with its card beside it. `--data` is a table of the
training pictures with the columns split, source, kind and licence. The picture shows faces that the prior makes of pure
noise, or faces of the sample set (of nobody, never learned from) under the blind degradation, restored; drawn with a
fixed seed, not picked.
"""

import argparse
import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.blind import blind, draw_blind
from unfade.diffusion.guidance import Guidance
from unfade.diffusion.load import load_prior
from unfade.diffusion.sampler import ImageNoise, sample
from unfade.images.files import read_image, write_png
from unfade.images.filters import fit_square
from unfade.images.finding import list_images
from unfade.images.sheet import sheet
from unfade.precision import autocast
from unfade.recipes.adapt_settings import SAMPLES
from unfade.restorers.load import load_restorer
from unfade.stages.restore import restore_batch
from unfade.store.checkpoints import read_card, sha256_of, write_card
from unfade.store.seeds import seed_for
from unfade.zoo.models import MODELS, path_of

ROOT = Path(__file__).parent.parent
COLUMNS, ROWS = 8, 2  # of the prior's picture
TEXTS = {
    "prior": {
        "intended_use": (
            "making pseudo targets from restored 128 px aligned faces with unfade, from step 600 of 1000 down"
        ),
        "not_for": (
            "identifying people, evidence of any kind, commercial use, faces from pure noise (a tenth of its training "
            "was spent above step 650)"
        ),
        "held_out_protocol": (
            "mean squared error of the predicted noise (1 for a network that knows nothing) over the validation faces "
            "at seven steps, fixed noise; held_out is their mean"
        ),
    },
    "restorer": {
        "intended_use": "a first restorer of 128 px aligned faces for unfade to adapt to photos of one source",
        "not_for": (
            "identifying people, evidence of any kind, commercial use, faces that are not in the framing of FFHQ"
        ),
        "held_out_protocol": (
            "mean PSNR over the validation faces, each under one fixed draw of the blind degradation (Eq. 9), before "
            "and after restoring"
        ),
    },
}
LARGER = {
    "small-prior-256": {
        "intended_use": "making pseudo targets from restored 256 px aligned faces with unfade, and drawing such faces",
        "not_for": "identifying people, evidence of any kind, commercial use",
    },
    "small-restorer-256": {
        "intended_use": "restoring 256 px aligned faces, and larger ones in photos, without adapting it"
    },
}


def main() -> None:
    args = arguments()
    model = MODELS[args.name]
    trained = read_card(args.trained)
    target = path_of(model)
    shutil.copy(args.trained, target)
    write_card(
        target,
        {
            "name": model.name,
            "kind": model.kind,
            "sha256": sha256_of(target),
            "licence": model.licence,
            "licence_reason": "the strictest licence among the sources of the training pictures",
            "data": data_table(args.data),
            "data_note": "weights of the sources as in the recipe; the validation pictures were never learned from",
            **TEXTS[model.kind],
            **LARGER.get(model.name, {}),
            "trained_with": args.command,
            **{key: trained[key] for key in ("pictures", "steps", "held_out", "losses", "recipe")},
        },
    )
    picture = {"prior": faces_from_noise, "restorer": faces_restored}[model.kind]
    write_png(ROOT / "docs" / "models" / f"{model.name}.png", picture(args))


def data_table(path: Path) -> list[dict[str, object]]:
    """One row for each source of training pictures."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    counts = Counter((row["source"], row["kind"], row["licence"]) for row in rows)
    names = ("source", "kind", "licence")
    return [{**dict(zip(names, key, strict=True)), "pictures": count} for key, count in sorted(counts.items())]


@torch.no_grad()
def faces_from_noise(args: argparse.Namespace) -> Tensor:
    """Unconditional samples: all the steps of the respaced schedule, no guidance."""
    prior = load_prior(args.name, device="cpu").respaced("100")
    like = torch.zeros(COLUMNS * ROWS, 3, prior.size, prior.size)
    noise = ImageNoise([seed_for("card", i) for i in range(len(like))])
    with autocast(torch.device("cpu"), bf16=True):
        made = sample(prior, Guidance(), noise, like)
    return sheet([("", [*made[column::COLUMNS].clamp(-1, 1)]) for column in range(COLUMNS)], side=prior.size)


def faces_restored(args: argparse.Namespace) -> Tensor:
    """Faces of the sample set under the blind degradation, what the restorer makes of them, and the truth."""
    restorer = load_restorer(args.name, device="cpu")
    paths = list_images(SAMPLES / "held_out_truth")
    chosen = sorted(paths, key=lambda path: seed_for("card", path.name))[:COLUMNS]
    truth = [fit_square(read_image(path), restorer.size, path) for path in chosen]
    draws = [draw_blind(np.random.default_rng(i), size=restorer.size) for i in range(COLUMNS)]
    photos = [blind(face, draw) for face, draw in zip(truth, draws, strict=True)]
    restored = [*restore_batch(torch.stack(photos), restorer)]
    return sheet([("photo", photos), ("restored", restored), ("truth", truth)], side=restorer.size)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[model.name for model in MODELS.values() if model.name.startswith("small-")])
    parser.add_argument("trained", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="table of the training pictures, CSV")
    parser.add_argument("--command", required=True, help="how it was trained, for the card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
