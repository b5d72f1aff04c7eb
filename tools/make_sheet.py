"""Draw held-out faces of a demonstration side by side: the picture at the top of the README.

unfade demo --out RUN && python tools/make_sheet.py RUN --out docs/demo.png
"""

import argparse
from pathlib import Path

from unfade.images.files import read_image, write_png
from unfade.images.finding import list_images
from unfade.images.sheet import sheet
from unfade.recipes.adapt_settings import SAMPLES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of `unfade demo`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=4)
    args = parser.parse_args()
    folders = {
        "photo": SAMPLES / "held_out_photos",
        "pre-trained": args.run / "held_out" / "pre-trained",
        "adapted": args.run / "held_out" / "adapted",
        "truth": SAMPLES / "held_out_truth",
    }
    names = [path.name for path in list_images(folders["photo"])][: args.faces]
    columns = [(title, [read_image(folder / name) for name in names]) for title, folder in folders.items()]
    write_png(args.out, sheet(columns))


if __name__ == "__main__":
    main()
