"""A restorer as a torch module: pictures in, pictures out, at several fidelities, on one sheet.

python examples/restorer_in_torch.py --out sheet.png          # all sample photos
python examples/restorer_in_torch.py --out sheet.png --short  # two of them
"""

import argparse
from pathlib import Path

import torch

import unfade
from unfade.images.files import read_image, write_png
from unfade.images.finding import list_images
from unfade.images.sheet import sheet

SAMPLES = Path(unfade.__file__).parent / "samples" / "held_out_photos"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()

    faces = torch.stack([read_image(path) for path in list_images(SAMPLES)[: 2 if given.short else None]])
    columns = [("photo", list(faces))]  # (3, 128, 128) each, RGB in [-1, 1]
    for fidelity in (0.0, 0.5, 1.0):
        restorer = unfade.load_restorer("small-restorer", fidelity=fidelity)
        with torch.no_grad():
            restored = restorer(faces.to(next(restorer.parameters()).device)).clamp(-1, 1)
        columns.append((f"fidelity {fidelity:g}", list(restored.cpu())))
    write_png(given.out, sheet(columns))
    print(f"{len(faces)} faces at 3 fidelities: {given.out}")


if __name__ == "__main__":
    main()
