"""What a perfect division of given semantic masks would score: the ceiling for whoever only divides them.

Every pixel of a class goes to the nearest true instance of that class; classes that are not in the image stay connected
components. So nothing but the masks is wrong. Beside it: the same with pixels inside a true instance, but of another
class, given back to it (the masks' extent kept, their classes mended), and connected components of both maps.

    python benchmarks/division_ceiling.py VOC --semantic VOC/SemanticPredicted
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.formats import open_dataset
from pixelkin.grouping.components import connected_components
from pixelkin.metrics import evaluate

SMALLEST = 16
"""Smaller components are dropped, as in the baselines (pixels)."""


def divided(semantic: npt.NDArray[np.uint8], truth: Instances, *, mend_classes: bool) -> Instances:
    """The masks of a semantic map, divided with the help of the true instances."""
    masks, labels = truth.masks(), truth.labels
    parts: list[Instances] = []
    for label in np.unique(labels[~truth.crowd]):
        mine = np.flatnonzero((labels == label) & ~truth.crowd)
        distances = np.stack([ndimage.distance_transform_edt(~masks[i]) for i in mine])
        owner = distances.argmin(axis=0)
        for number, i in enumerate(mine):
            mask = (semantic == label) & (owner == number)
            if mend_classes:
                mask |= masks[i] & (semantic > 0) & (semantic < 255)
            if mask.any():
                parts.append(Instances.from_masks(mask[None], labels=[label], scores=[mask.sum() ** 0.5]))
    strange = np.where(np.isin(semantic, labels[~truth.crowd]), 0, semantic)
    return Instances.concatenate([*parts, connected_components(strange, min_area=SMALLEST)])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path, help="a dataset with instances")
    parser.add_argument("--semantic", type=Path, required=True, help="the masks to divide")
    options = parser.parse_args()
    truth = open_dataset(options.truth).with_label("instances")
    given = {sample.name: sample for sample in open_dataset(options.truth, semantic=options.semantic)}

    def semantic(sample: Sample) -> npt.NDArray[np.uint8]:
        found = given[sample.name].semantic
        if found is None:
            raise SystemExit(f"{sample.name}: no semantic mask in {options.semantic}")
        return found.astype(np.uint8)

    def true(sample: Sample) -> Instances:
        instances = sample.instances
        return Instances.empty(sample.size) if instances is None else instances

    ways: dict[str, Callable[[Sample], Instances]] = {
        "components": lambda s: connected_components(semantic(s), min_area=SMALLEST),
        "perfect division": lambda s: divided(semantic(s), true(s), mend_classes=False),
        "perfect division, classes mended": lambda s: divided(semantic(s), true(s), mend_classes=True),
        "components of the true masks": lambda s: connected_components(true(s).semantic_map(), min_area=SMALLEST),
    }
    print(f"{'what':<36} {'AP':>6} {'AP50':>6} {'AP75':>6} {'crowd_AR':>9}")
    for name, make in ways.items():
        made = Dataset([s.replace(instances=make(s)) for s in truth], truth.classes)
        found = evaluate(made, truth).to_json()
        print(f"{name:<36} {found['AP']:6.1f} {found['AP50']:6.1f} {found['AP75']:6.1f} {found['crowd_AR']:9.1f}")


if __name__ == "__main__":
    main()
