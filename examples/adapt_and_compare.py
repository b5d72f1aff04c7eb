"""Adapt a restorer to degraded photos, and see in numbers whether that helped on photos it has not learned from.

    python examples/adapt_and_compare.py --out adapted          # some minutes on two cores
    python examples/adapt_and_compare.py --out adapted --short  # only to see that it runs

The photos are those of the package, whose truth is known.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import unfade

SAMPLES = Path(unfade.__file__).parent / "samples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()

    settings = unfade.settings_for("small-restorer")
    if given.short:
        loop = replace(settings.finetune.loop, steps=1, batch=2)
        targets = replace(settings.targets, start=1, free_from=1)
        settings = replace(settings, targets=targets, finetune=replace(settings.finetune, loop=loop, hold_out=0.0))
    photos = sorted((SAMPLES / "photos").iterdir())[: 2 if given.short else None]
    degraded = given.out / "degraded"
    degraded.mkdir(parents=True, exist_ok=True)
    for photo in photos:
        (degraded / photo.name).write_bytes(photo.read_bytes())

    done = unfade.adapt(degraded, given.out / "run", settings, aligned=True)
    print(f"{done.counts.done} of {done.counts.found} photos restored; report: {done.report}")

    held_out = SAMPLES / "held_out_photos"
    for name, restorer in (("pre-trained", "small-restorer"), ("adapted", done.restorer)):
        plain = unfade.RestoreSettings(size="restorer")
        unfade.restore(held_out, given.out / name, restorer, plain, aligned=True)
        scores = unfade.evaluate(given.out / name, truth=SAMPLES / "held_out_truth", metrics=["psnr", "ssim"]).scores
        assert scores is not None
        print(name, {metric: round(mean.mean, 4) for metric, mean in scores.summary.items()})


if __name__ == "__main__":
    main()
