"""Make a small folder of real JPEGs in ImageNet's layout: ``OUT/train/CLASS/*.jpg`` and ``OUT/val/CLASS/*.jpg``.

A class is a photograph, an image a random crop of it: crops for training from its left two thirds, the others from the
right third, so that no pixel is in both. For tests and a first look at `data: {name: imagenet, root: OUT}`; what a
network learns there says nothing.

The photographs come with scikit-image, a development dependency, and are free of copyright: astronaut (NASA), rocket
(SpaceX) and hubble_deep_field (NASA) are in the public domain; chelsea (Stefan van der Walt), coffee (Rachel
Michetti) and retina (Mikael Häggström) are under CC0.

    python scripts/make_photo_folder.py OUT [--train 24] [--val 8] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
from importlib.resources import as_file, files
from pathlib import Path

from PIL import Image

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg")
SIDES = 72, 144  # shortest and longest side of a crop in pixels
BORDER = 2 / 3  # of the width, between the parts


def make(out: Path, train: int, val: int, seed: int) -> None:
    draw = random.Random(seed)
    for name in PHOTOGRAPHS:
        with as_file(files("skimage") / "data" / name) as path:
            photograph = Image.open(path).convert("RGB")
        border = round(BORDER * photograph.width)
        for part, count, left, right in (("train", train, 0, border), ("val", val, border, photograph.width)):
            folder = out / part / Path(name).stem
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                box = crop(draw, left, right, photograph.height)
                photograph.crop(box).save(folder / f"{number:04}.jpg", quality=90)


def crop(draw: random.Random, left: int, right: int, height: int) -> tuple[int, int, int, int]:
    sides = draw.randint(*SIDES), draw.randint(*SIDES)
    x, y = draw.randint(left, right - sides[0]), draw.randint(0, height - sides[1])
    return x, y, x + sides[0], y + sides[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--train", type=int, default=24, help="training images a class")
    parser.add_argument("--val", type=int, default=8, help="validation images a class")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.out, arguments.train, arguments.val, arguments.seed)


if __name__ == "__main__":
    main()
