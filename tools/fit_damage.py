"""Fit the estimate of damage that comes with the package, and say how rightly it orders faces it has not seen.

    python tools/fit_damage.py FACES --held-out FACES [--out FILE]

Faces are clean and aligned. They are damaged by a generic chain of blur, downsampling, noise of any colour and grain,
JPEG and enlarging, and by the blind degradation (Eq. 9). The cameras of Eq. 10 are never fitted to: they are the test.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.blind import BLIND_PRESETS, blind_pair, draw_blind
from unfade.degradations.camera import camera, draw_camera
from unfade.degradations.generic import generic
from unfade.nets.damage import DamageNet, lost_octaves, statistics
from unfade.paper.pieces import DEGRADATIONS as CAMERAS
from unfade.store.checkpoints import save_weights, sha256_of, write_card
from unfade.training.batches import Pictures, find_training_pictures
from unfade.zoo.models import MODELS, path_of

SIZE = 128  # px
STEPS, BATCH = 3000, 1024
PRESETS = ("swinir", "gfpgan", "codeformer-stage3-small")


def main() -> None:
    args = arguments()
    truth = clean(args.faces, args.most)
    rounds = [damaged(truth, seed) for seed in range(args.rounds)]
    faces = torch.cat([truth, truth, *(faces for faces, _ in rounds)])  # clean ones twice: they must stay as they are
    truths = torch.cat([truth, truth, *(truths for _, truths in rounds)])
    net = fitted(torch.cat([statistics(part) for part in faces.split(256)]), lost_octaves(faces, truths))
    report(net, clean(args.held_out, 100))
    save_weights(args.out, net, architecture="damage", config={"size": SIZE}, dtype=torch.float32)
    card = {"name": "damage", "kind": "damage", "sha256": sha256_of(args.out), "licence": "CC BY-NC-SA 4.0"}
    card["licence_reason"] = "the strictest licence among the sources of the training pictures"
    write_card(args.out, {**card, "command": "python tools/fit_damage.py FACES --held-out VAL", "faces": len(truth)})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=path_of(MODELS["damage"]))
    parser.add_argument("--most", type=int, default=1500, help="faces, drawn at random")
    parser.add_argument("--rounds", type=int, default=4, help="damages of each face")
    return parser.parse_args()


def clean(folder: Path, most: int) -> Tensor:
    """At most so many pictures of a folder, (N, 3, SIZE, SIZE) in [-1, 1]."""
    paths, _ = find_training_pictures(folder, {})
    drawn = np.random.default_rng(0).permutation(len(paths))[:most]
    pictures = Pictures([paths[i] for i in drawn], SIZE)
    return torch.stack([pictures[i] for i in range(len(pictures))])


def damaged(truth: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each face once, by the generic chain or the blind degradation; beside the truth, which may be grey."""
    pairs = []
    for i, face in enumerate(truth):
        rng = np.random.default_rng([seed, i])
        if rng.random() < 0.3:
            preset = BLIND_PRESETS[PRESETS[rng.integers(len(PRESETS))]]
            pairs.append(blind_pair(face, draw_blind(rng, size=SIZE, settings=preset)))
        else:
            pairs.append((generic(face, rng), face))
    return torch.stack([face for face, _ in pairs]), torch.stack([truth for _, truth in pairs])


def fitted(found: Tensor, damage: Tensor) -> DamageNet:
    """Least squares, the statistics a little disturbed each time."""
    torch.manual_seed(0)
    net = DamageNet()
    net.mean.copy_(found.mean(0))
    net.deviation.copy_(found.std(0))
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        drawn = torch.randint(len(found), (BATCH,))
        disturbed = found[drawn] + 0.03 * net.deviation * torch.randn(BATCH, found.shape[1])
        loss = (net.of_statistics(disturbed) - damage[drawn]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def report(net: DamageNet, truth: Tensor) -> None:
    """How near the estimate is, and how rightly it orders, for each kind of damage."""
    sets = {"clean": (truth, truth), "generic and blind": damaged(truth, 99)}
    for name, degradation in CAMERAS.items():
        draws = [draw_camera(np.random.default_rng(i), size=SIZE, settings=degradation.settings) for i in range(100)]
        sets[name] = torch.stack([camera(face, draw) for face, draw in zip(truth, draws, strict=False)]), truth
    found = {name: (net(faces), lost_octaves(faces, truths)) for name, (faces, truths) in sets.items()}
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
