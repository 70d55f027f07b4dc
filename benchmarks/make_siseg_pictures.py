"""The pictures of docs/siseg.md, made from synthetic scenes by the code they explain.

The method is fitted on 24 synthetic scenes with their semantic maps alone and shown on others. With a model at hand,
nothing is fitted.

    python benchmarks/make_siseg_pictures.py [--out docs/images] [--budget 100it] [--model MODEL]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.data.components import class_components
from pixelkin.data.synthetic import scene_dataset
from pixelkin.grouping.components import connected_components
from pixelkin.grouping.cuts import oversegment
from pixelkin.methods.base import Method
from pixelkin.methods.siseg import SISeg, SISegConfig
from pixelkin.methods.siseg_crowding import CrowdingConfig, CrowdingRecipe
from pixelkin.training.budget import Budget
from pixelkin.viz import boundary_picture, flow_wheel, overlay, panel, semantic_picture

RGB = npt.NDArray[np.uint8]

NUCLEI: dict[str, Any] = {"preset": "nuclei", "size": (192, 256), "objects": 34, "touching": 0.7, "overlap": 0.25}
SPARSE = NUCLEI | {"touching": 0.4, "overlap": 0.15}
OBJECTS: dict[str, Any] = {"preset": "objects", "size": (240, 320), "objects": 9, "touching": 0.4}
COLOURS = 160
"""Colours of a written picture: enough for these, and a third of the bytes."""


def save(path: Path, picture: RGB) -> None:
    """Write a small PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.shape[1]}x{picture.shape[0]}, {path.stat().st_size / 1000:.0f} KB")


def fitted(budget: str) -> Method:
    """Siseg by crowding, of semantic maps of nuclei."""
    settings = {"crowding.kind": "scene", "crowding.training.batch_size": "6"}
    method = SISeg(SISegConfig.from_settings(settings))
    scenes = scene_dataset(24, seed=1, labels=("semantic",), **NUCLEI)
    with tempfile.TemporaryDirectory() as folder:
        method.fit(scenes, out=Path(folder), budget=Budget.parse(budget))
    return method


def task(sample: Sample, found: Instances) -> RGB:
    """What goes in, what components make of it, and what comes out."""
    image, semantic = sample.image, _semantic(sample)
    pictures = {
        "the image": image,
        "its semantic mask": semantic_picture(semantic),
        f"components: {len(connected_components(semantic))}": overlay(image, connected_components(semantic)),
        f"siseg: {len(_standing(found))} of {len(_truth(sample))}": overlay(image, _standing(found)),
    }
    return panel(pictures, height=210, columns=2)


def crowds(dataset: Dataset, kind: str, seed: int, count: int = 5) -> RGB:
    """Training examples: what the network sees, and the objects in it that it is told of."""
    config = CrowdingConfig.from_settings({"kind": kind})
    recipe = CrowdingRecipe(config, "efficientnet_lite0", pretrained=False)
    make = recipe.example(dataset, recipe.measure(dataset))
    examples = [make(np.random.default_rng((seed, k))) for k in range(count)]
    rows: list[tuple[str, RGB]] = []
    for example in examples:
        rows.append(("seen", _picture(example["image"].numpy())))
    for example in examples:
        objects = example["objects"].numpy().repeat(2, axis=0).repeat(2, axis=1)
        rows.append(("told", _coloured(objects)))
    return panel(rows, height=128, columns=count)


def fields(method: Method, sample: Sample) -> RGB:
    """The way from fields to instances."""
    found = method.fields(sample)
    displacement, boundary = found["displacement"], found["boundary"]
    side = boundary.shape[1], boundary.shape[0]
    mask = cv2.resize((_semantic(sample) > 0).astype(np.uint8), side, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    pictures = {
        "displacement": flow_wheel(displacement * mask),
        "boundary": boundary_picture(boundary * mask),
        "cut too often": _coloured(oversegment(mask, boundary)),
        "joined: the instances": overlay(sample.image, _standing(method.group(found, sample))),
    }
    return panel(pictures, height=210, columns=2)


def doubts(sample: Sample, found: Instances) -> RGB:
    """The component with the surest alternative: its division, and the alternatives."""
    parts = class_components(_semantic(sample)).labels
    others = found[found.scores < 0.5]
    sizes = np.bincount(parts.ravel())
    few = [i for i in np.argsort(-others.scores).tolist() if 300 < sizes[parts[others.mask(i)][0]] < 3000]
    component = parts == parts[others.mask(few[0])][0]
    inside = np.array([bool((found.mask(i) & component).any()) for i in range(len(found))])
    here = found[inside]
    rows, columns = np.nonzero(component)
    top, left = max(int(rows.min()) - 6, 0), max(int(columns.min()) - 6, 0)
    crop = np.s_[top : int(rows.max()) + 7, left : int(columns.max()) + 7]
    image = np.ascontiguousarray(sample.image[crop])
    chosen = [("the division", _standing(here))]
    best = np.flatnonzero(here.scores < 0.5)[np.argsort(-here.scores[here.scores < 0.5])][:3]
    chosen += [("", here[int(i)]) for i in best]
    pictures = []
    for name, instances in chosen:
        cut = Instances.from_masks(instances.masks()[:, crop[0], crop[1]], ids=instances.ids)
        said = " ".join(f"{score:.2f}" for score in sorted(instances.scores, reverse=True)[:4])
        pictures.append((f"{name} {said}".strip(), overlay(image, cut, scale=3)))
    return panel(pictures, height=200)


def _standing(instances: Instances) -> Instances:
    return instances[instances.scores >= 0.5]


def _semantic(sample: Sample) -> npt.NDArray[Any]:
    semantic = sample.semantic
    return np.zeros(sample.size, np.uint8) if semantic is None else semantic


def _truth(sample: Sample) -> Instances:
    return sample.instances or Instances.empty(sample.size)


def _picture(image: npt.NDArray[Any]) -> RGB:
    return np.ascontiguousarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8))


def _coloured(labels: npt.NDArray[Any]) -> RGB:
    """Numbers from 1 in colours on black; negative ones, of which nothing is known, grey."""
    known = np.where(labels > 0, labels, 0)
    ground = np.zeros((*labels.shape, 3), np.uint8)
    ground[labels < 0] = 96
    return overlay(ground, Instances.from_label_map(known), alpha=1.0, thickness=0) if known.any() else ground


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--budget", default="100it")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--save", type=Path, help="keep the fitted model there")
    options = parser.parse_args()
    save(options.out / "siseg_crowds.png", crowds(scene_dataset(12, seed=1, **SPARSE), "scene", 1))
    save(options.out / "siseg_pieces.png", crowds(scene_dataset(16, seed=3, **OBJECTS), "piece", 0))
    method = fitted(options.budget) if options.model is None else Method.load(options.model)
    if options.save is not None:
        method.save(options.save)
    sample = scene_dataset(3, seed=7, **NUCLEI)[0]
    found = method.group(method.fields(sample), sample)
    save(options.out / "siseg_task.png", task(sample, found))
    save(options.out / "siseg_fields.png", fields(method, sample))
    save(options.out / "siseg_doubts.png", doubts(sample, found))


if __name__ == "__main__":
    main()
