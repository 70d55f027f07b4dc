"""The pictures of docs/irnet.md, made by the code they explain.

The method is fitted on 80 synthetic scenes with their tags alone and shown on others. With a folder and a model at hand
nothing is fitted, and the photos are those named, or the first of two or more tags.

    python benchmarks/make_irnet_pictures.py [--out docs/images] [--budget 100it]
    python benchmarks/make_irnet_pictures.py --voc VOC --model MODEL --out PICTURES [--images 000032,000063]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from make_siseg_pictures import save
from pixelkin.data import Dataset, Sample
from pixelkin.data.synthetic import scene_dataset
from pixelkin.formats import open_dataset
from pixelkin.grouping.displacement import group_by_displacement
from pixelkin.methods.base import Method
from pixelkin.methods.irnet import IRNet
from pixelkin.methods.irnet_config import IRNetConfig
from pixelkin.methods.irnet_labels import CAM, PROBABILITY, classes_in
from pixelkin.methods.regions import regions_of
from pixelkin.training.budget import Budget
from pixelkin.viz import boundary_picture, flow_wheel, heatmap, overlay, panel, semantic_picture
from pixelkin.viz.colors import instance_color

RGB = npt.NDArray[np.uint8]
TASKS = 3
"""Images of the first picture."""
SCENES: dict[str, Any] = {"preset": "objects", "size": (240, 320), "objects": 4, "classes": 3, "touching": 0.3}


def task(method: IRNet, samples: list[Sample]) -> RGB:
    """What goes in, a photo and its tags, and the two things that come out."""
    tiles: list[tuple[str, RGB]] = []
    for sample in samples:
        fields = method.fields(sample)
        found = method.group(fields, sample)
        tags = ", ".join(method.classes[tag] for tag in sample.tags or ())
        tiles.append((f"tags: {tags}", sample.image))
        tiles.append(("classes", semantic_picture(method.semantic(sample, fields), image=sample.image)))
        tiles.append((f"instances: {len(found)}", overlay(sample.image, found)))
    return panel(tiles, height=190, columns=3)


def stages(method: IRNet, sample: Sample) -> RGB:
    """The way from the tags of one photo to its instances."""
    fields = method.fields(sample)
    image = sample.image
    tiles: list[tuple[str, RGB]] = [("the image", image)]
    present = classes_in(fields)

    def maps(prefix: str, title: str) -> None:
        for class_id in present:
            shown = heatmap(fields[f"{prefix}{class_id}"], image=image, low=0, high=1)
            tiles.append((f"{title}: {method.classes[class_id]}", shown))

    maps(CAM, "1 activation")
    sure = regions_of(sample, method.activation, method.config.regions)
    tiles.append(("2 what is sure (white: unknown)", _regions(sure)))
    tiles.append(("3 boundary", boundary_picture(fields["boundary"])))
    tiles.append(("3 displacement", flow_wheel(fields["displacement"])))
    groups = group_by_displacement(fields["displacement"], weak=method.config.pairs.weak)
    tiles.append(("4 where it leads", _groups(groups)))
    if method.maps is not None:
        maps(PROBABILITY, "6 probability")
    step = 5 if method.maps is None else 6
    tiles.append((f"{step} classes", semantic_picture(method.semantic(sample, fields), image=image)))
    tiles.append((f"{step} instances", overlay(image, method.group(fields, sample))))
    return panel(tiles, height=170, columns=-(-len(tiles) // 3))


def _regions(labels: npt.NDArray[Any]) -> RGB:
    shown = semantic_picture(labels)
    shown[labels == 255] = 235
    return shown


def _groups(groups: npt.NDArray[np.int32]) -> RGB:
    """Every group in a colour of its own."""
    colours = np.array([instance_color(int(i)) for i in range(int(groups.max(initial=0)) + 1)], np.uint8)
    side = groups.shape[1] * 4, groups.shape[0] * 4
    return np.asarray(cv2.resize(colours[groups], side, interpolation=cv2.INTER_NEAREST), np.uint8)


def photos(voc: Path, names: str | None) -> Dataset:
    """The photos to show, with their tags."""
    tagged = open_dataset(voc, tags="xml")
    wanted = [s.name for s in tagged if len(s.tags or ()) > 1] if names is None else names.split(",")
    found = tagged.filter(lambda sample: sample.name in wanted)
    if not len(found):
        raise SystemExit(f"{voc}: none of these photos: name some with --images")
    return found


def fitted(budget: str) -> IRNet:
    """A method that learned from the tags of synthetic scenes."""
    method = IRNet(IRNetConfig(rounds=0))  # the rounds would take most of the time
    with tempfile.TemporaryDirectory() as folder:
        tags = scene_dataset(80, 0, labels=("tags",), **SCENES)
        method.fit(tags, out=Path(folder), budget=Budget.parse(budget), device="cpu")
    return method


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, help="show these photos instead of scenes; needs a model")
    parser.add_argument("--model", type=Path, help="of irnet, instead of fitting one")
    parser.add_argument("--images", help="names of photos, with commas; the first also shows the stages")
    parser.add_argument("--budget", default="100it")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    if options.voc is not None and options.model is None:
        raise SystemExit("--voc needs a model that was fitted on such photos: give --model")
    method = fitted(options.budget) if options.model is None else Method.load(options.model)
    if not isinstance(method, IRNet):
        raise SystemExit(f"{options.model} is a model of {method.name}: give one of irnet")
    scenes = scene_dataset(40, 1, labels=("tags",), **SCENES).filter(lambda s: len(s.tags or ()) > 1)
    samples = list(scenes if options.voc is None else photos(options.voc, options.images))[:TASKS]
    save(options.out / "irnet_task.png", task(method, samples))
    save(options.out / "irnet_stages.png", stages(method, samples[0]))


if __name__ == "__main__":
    main()
