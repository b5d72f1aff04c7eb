"""Fit the estimate of damage that comes with the package, and report how well it ranks faces it has not seen.

    python tools/fit_damage.py FACES --held-out FACES [--out FILE]

FACES are clean and aligned. They are damaged by a generic chain of blur, downsampling, noise of any colour and grain,
JPEG and enlarging, or by the blind degradation (Eq. 9); most are then sharpened or compressed at some size, as photos
that have passed through other hands are. The cameras of Eq. 10 are never used for fitting: they are the test. The
estimate is written to the package, and into the built-in restorers that contain it; then `benchmarks/trust.py --write`
has to calibrate `small-restorer` again, as its trust maps belong to the weights before.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.degradations.blind import BLIND_PRESETS, blind_pair, draw_blind
from unfade.degradations.camera import camera, draw_camera
from unfade.degradations.generic import compressed, generic, log_uniform
from unfade.nets.damage import DamageNet, all_statistics, inner, lost_octaves
from unfade.paper.pieces import DEGRADATIONS as CAMERAS
from unfade.recipes.restore import BUILT_IN
from unfade.restorers.load import save_restorer
from unfade.restorers.one_step import OneStepSettings, built
from unfade.store.checkpoints import load_state, read_card, read_weights, save_weights, sha256_of, write_card
from unfade.training.batches import Pictures, find_training_pictures
from unfade.zoo.models import MODELS, path_of

SIZE = 128  # px
STEPS, BATCH, OF_CLEAN = 3000, 448, 64  # a batch has BATCH of all faces, and OF_CLEAN more that are clean
EASY = 0.05  # is added to the damage that errors are divided by: below it, errors count about equally
DISTURBED = 0.03  # noise added to the statistics, relative to their deviation
SIDES = (128, 160, 192, 256, 384)  # px, at which a face may have been compressed
DEFAULT = OneStepSettings()
INTENDED_USE = (
    "estimating how degraded a 128 px aligned face is, so that one-step restorers know at which noise level to begin"
)
NOT_FOR = (
    "identifying people, judging whether a face shows the right person, commercial use, faces that are not in the "
    "framing of FFHQ"
)
DECIDED = ("clean", "damaged", "part", "highest")  # settings that depend on the estimate
PRESETS = ("swinir", "gfpgan", "codeformer-stage3-small")


def main() -> None:
    args = arguments()
    truth = clean(args.faces, args.most)
    parts = [(*seen(levels(truth)), torch.zeros(len(truth)))]
    for seed in range(args.rounds):
        photos, truths = damaged(truth, 1000 + seed)
        parts.append((*seen(levels(photos)), lost_octaves(inner(levels(photos)), inner(truths))))
    net = fitted(*(torch.cat(part) for part in zip(*parts, strict=True)), clean=len(truth))
    report(net, clean(args.held_out, 100))
    save_weights(args.out, net, architecture="damage", config={"size": SIZE}, dtype=torch.float32)
    card = {"name": "damage", "kind": "damage", "sha256": sha256_of(args.out), "licence": "CC BY-NC-SA 4.0"}
    card["licence_reason"] = "the strictest licence among the sources of the training pictures"
    card["command"] = "python tools/fit_damage.py FACES --held-out VAL"
    write_card(args.out, {**card, "faces": len(truth), "intended_use": INTENDED_USE, "not_for": NOT_FOR})
    for name in BUILT_IN:
        put_into(path_of(MODELS[name]), net)


def put_into(path: Path, net: DamageNet) -> None:
    """Put this estimate into a one-step restorer, with the default settings that depend on it."""
    found = read_weights(path)
    config = {**found.config, "entry": {**found.config["entry"], **{name: getattr(DEFAULT, name) for name in DECIDED}}}
    restorer = built(config)
    kept = {name: value for name, value in found.state.items() if not name.startswith("damage.")}
    load_state(restorer, {**kept, **{f"damage.{name}": value for name, value in net.state_dict().items()}}, path)
    save_restorer(path, restorer, dtype=torch.float16)
    write_card(path, {**read_card(path), "sha256": sha256_of(path)})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=path_of(MODELS["damage"]))
    parser.add_argument("--most", type=int, default=1500, help="faces, drawn at random")
    parser.add_argument("--rounds", type=int, default=8, help="how often each face is damaged")
    return parser.parse_args()


def clean(folder: Path, most: int) -> Tensor:
    """At most this many pictures of a folder, drawn at random, (N, 3, SIZE, SIZE) in [-1, 1]."""
    paths, _ = find_training_pictures(folder, {})
    drawn = np.random.default_rng(0).permutation(len(paths))[:most]
    pictures = Pictures([paths[i] for i in drawn], SIZE)
    return torch.stack([pictures[i] for i in range(len(pictures))])


def damaged(truth: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each face once, degraded or not and `finished` or not, with its truth, which may be grey."""
    pairs = []
    for i, face in enumerate(truth):
        rng = np.random.default_rng([seed, i])
        kind = rng.random()
        photo, wanted = face, face
        if kind < 0.2:
            preset = BLIND_PRESETS[PRESETS[rng.integers(len(PRESETS))]]
            photo, wanted = blind_pair(face, draw_blind(rng, size=SIZE, settings=preset))
        elif kind < 0.9:
            photo = generic(face, rng)
        pairs.append((finished(photo, rng) if rng.random() < 0.6 else photo, wanted))
    return torch.stack([photo for photo, _ in pairs]), torch.stack([truth for _, truth in pairs])


def finished(face: Tensor, rng: np.random.Generator) -> Tensor:
    """Sharpened, or compressed at another size, or both, or neither."""
    if rng.random() < 0.4:
        pixels, sigma, amount = face.permute(1, 2, 0).numpy(), log_uniform(rng, 0.6, 2.5), rng.uniform(0.2, 1.5)
        pixels = pixels + amount * (pixels - cv2.GaussianBlur(pixels, (0, 0), sigma))
        face = torch.from_numpy(pixels).permute(2, 0, 1).clamp(-1, 1)
    if rng.random() < 0.5:
        side, quality = int(rng.choice(SIDES)), int(rng.integers(20, 98))
        large = compressed(F.interpolate(face[None], size=(side, side), mode="bicubic"), quality)
        face = F.interpolate(large, size=(SIZE, SIZE), mode="bicubic", antialias=True)[0]
    return face


def levels(faces: Tensor) -> Tensor:
    """Rounded to the levels of an 8-bit file."""
    return (faces.clamp(-1, 1) + 1).mul(127.5).round() / 127.5 - 1


def seen(faces: Tensor) -> tuple[Tensor, Tensor]:
    """The statistics of many inner faces and of their regions, in portions that fit in memory."""
    parts = [all_statistics(inner(part)) for part in faces.split(128)]
    return torch.cat([whole for whole, _ in parts]), torch.cat([regions for _, regions in parts])


def fitted(whole: Tensor, regions: Tensor, damage: Tensor, *, clean: int) -> DamageNet:
    """Least squares of relative errors, with a little noise on the statistics; the first `clean` faces are clean."""
    torch.manual_seed(0)
    net = DamageNet()
    for name, found in {"": whole, "_of_regions": regions.flatten(0, 1)}.items():
        net.get_buffer(f"mean{name}").copy_(found.mean(0))
        net.get_buffer(f"deviation{name}").copy_(found.std(0))
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        drawn = torch.cat([torch.randint(len(whole), (BATCH,)), torch.randint(clean, (OF_CLEAN,))])
        one, many = whole[drawn], regions[drawn]
        one = one + DISTURBED * net.deviation * torch.randn_like(one)
        many = many + DISTURBED * net.deviation_of_regions * torch.randn_like(many)
        loss = ((net.of_statistics(one, many) - damage[drawn]).square() / (EASY + damage[drawn])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def report(net: DamageNet, truth: Tensor) -> None:
    """Print how accurate the estimate is, and how well it ranks faces, for each kind of damage."""
    sets = {"clean": (truth, truth), "generic, blind, finished": damaged(truth, 99)}
    for name, degradation in CAMERAS.items():
        draws = [draw_camera(np.random.default_rng(i), size=SIZE, settings=degradation.settings) for i in range(100)]
        sets[name] = torch.stack([camera(face, draw) for face, draw in zip(truth, draws, strict=False)]), truth
    found = {name: (net(faces), lost_octaves(inner(faces), inner(truths))) for name, (faces, truths) in sets.items()}
    pooled = [torch.cat([found[name][i] for name in CAMERAS]) for i in (0, 1)]
    print("| | true | estimated | mean error | rank correlation |\n| --- | --- | --- | --- | --- |")
    for name, (guess, true) in {**found, "all cameras": (pooled[0], pooled[1])}.items():
        row = f"{true.mean():.3f} | {guess.mean():.3f} | {(guess - true).abs().mean():.3f}"
        print(f"| {name} | {row} | {rank_correlation(guess, true):.2f} |")
    print(f"\nclean faces: 95 % are estimated below {found['clean'][0].quantile(0.95):.3f}")


def rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = [x.argsort().argsort().float() for x in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


if __name__ == "__main__":
    main()
