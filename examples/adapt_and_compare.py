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

    settings = unfade.settings_for("small-restorer", "small-prior")
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

    held_out = sorted((SAMPLES / "held_out_photos").iterdir())[0 if given.short else slice(None)]
    for name, restorer in (("pre-trained", "small-restorer"), ("adapted", str(done.restorer))):
        results = given.out / name
        unfade.restore(
            held_out if given.short else SAMPLES / "held_out_photos", results, restorer,
            unfade.RestoreSettings(size="restorer"), aligned=True,
        )  # fmt: skip
        print(name, unfade.evaluate(results, truth=SAMPLES / "held_out_truth").means)


if __name__ == "__main__":
    main()
