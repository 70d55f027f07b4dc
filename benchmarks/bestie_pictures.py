"""The picture of docs/bestie.md, made by the code it explains: from image and semantic map to instances.

The method is fitted on 80 synthetic scenes with their maps and points, and shown on others without points. With a model
at hand nothing is fitted. A photo of your own is shown with its map, or with the one that the model makes of it; such a
picture needs a place of its own, as photos of data sets do not belong into the documentation.

    python benchmarks/bestie_pictures.py [--out docs/images/bestie_fields.png] [--budget 150it] [--model MODEL]
    python benchmarks/bestie_pictures.py --model MODEL --image PHOTO [--semantic MAP] --out PICTURE
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from make_siseg_pictures import save
from pixelkin.data import Sample
from pixelkin.data.sample import read_label_image
from pixelkin.data.synthetic import scene_dataset
from pixelkin.methods.base import Method
from pixelkin.methods.bestie import BESTIE
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_labels import CENTER, SEMANTIC, classes_in
from pixelkin.training.budget import Budget
from pixelkin.viz import centers_picture, overlay, panel, semantic_picture

RGB = npt.NDArray[np.uint8]
SCENES: dict[str, Any] = {"preset": "objects", "size": (240, 320), "objects": 8, "classes": 3, "touching": 0.7}
PICTURE = Path("docs/images/bestie_fields.png")
COLUMNS = 5


def row(method: BESTIE, sample: Sample) -> list[tuple[str, RGB]]:
    """Captions and pictures of one image, from what goes in to what comes out."""
    fields = method.fields(sample)
    image, found = sample.image, method.group(fields, sample)
    heats = [fields[f"{CENTER}{class_id}"] for class_id in classes_in(fields)]
    heat = np.max(heats, axis=0) if heats else np.zeros(tuple(-(-side // 4) for side in sample.size), np.float32)
    behind = np.asarray(cv2.resize(image, heat.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    offsets = method.pictures(fields, sample).get("offsets", np.zeros((*heat.shape, 3), np.uint8))
    origin = "given" if sample.has("semantic") else "its own"
    return [
        ("the image", image),
        (f"semantic map ({origin})", semantic_picture(fields[SEMANTIC], image=image)),
        ("heat of the centres", centers_picture(heat, image=behind)),
        ("offsets to the centre", offsets),
        (f"instances: {len(found)}", overlay(image, found)),
    ]


def fitted(budget: str) -> BESTIE:
    """A method that learned from the maps and points of synthetic scenes."""
    method = BESTIE(BESTIEConfig())
    with tempfile.TemporaryDirectory() as folder:
        scenes = scene_dataset(80, 0, labels=("points", "semantic"), **SCENES)
        method.fit(scenes, out=Path(folder), budget=Budget.parse(budget), device="cpu")
    return method


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="of bestie, instead of fitting one")
    parser.add_argument("--budget", default="150it")
    parser.add_argument("--scenes", type=int, default=2, help="rows of the picture")
    parser.add_argument("--image", type=Path, help="show this photo instead of scenes; needs a model and --out")
    parser.add_argument("--semantic", type=Path, help="its map: a PNG of class ids")
    parser.add_argument("--out", type=Path, help=f"default: {PICTURE}")
    options = parser.parse_args()
    if options.image is not None and (options.model is None or options.out is None):
        raise SystemExit("--image needs a model fitted on such photos and a place of its own: give --model and --out")
    method = fitted(options.budget) if options.model is None else Method.load(options.model)
    if not isinstance(method, BESTIE):
        raise SystemExit(f"{options.model} is a model of {method.name}: give one of bestie")
    if options.image is None:
        samples = list(scene_dataset(options.scenes, 1, labels=("semantic",), **SCENES))
    else:
        given = None if options.semantic is None else partial(read_label_image, options.semantic)
        samples = [Sample(options.image.stem, options.image, semantic=given)]
    tiles = [tile for sample in samples for tile in row(method, sample)]
    save(options.out or PICTURE, panel(tiles, height=150, columns=COLUMNS))


if __name__ == "__main__":
    main()
