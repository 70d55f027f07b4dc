"""What bestie costs beside its network: the making and refining of targets in training, and labelling.

VOC is a devkit folder with boxes and a folder of semantic maps; points are the box centres. Training is timed on real
crops, with the network as it starts or with that of a fitted model, which has more centres to refine. Labelling is
timed with the network replaced by one that knows the answer: the objects that the points divide the maps into, with
noise. On a busy machine `--clock process` counts the seconds of the processor, not of the wall; give it one thread
(OMP_NUM_THREADS=1).

    python benchmarks/bench_bestie.py VOC [--semantic VOC/SemanticPredicted] [--model MODEL] [--steps 5] [--images 20]
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from bestie_quality import box_centres
from pixelkin.cues.transfer import center_targets, subsample
from pixelkin.data import Dataset, Sample
from pixelkin.formats import open_dataset
from pixelkin.grouping.centers import group_by_centers
from pixelkin.methods import bestie_examples, bestie_training, bestie_views
from pixelkin.methods.base import Method
from pixelkin.methods.bestie import BESTIE
from pixelkin.methods.bestie_config import BESTIEConfig
from pixelkin.methods.bestie_examples import CenterExamples, collate
from pixelkin.methods.bestie_labels import fields_of, instances_of
from pixelkin.methods.bestie_training import CenterLoss, Taught, build_fields
from pixelkin.methods.bestie_views import Paths, places_of
from pixelkin.models.center_fields import STRIDE, CenterOutput
from siseg_quality import machine

CROP, BATCH = 416, 4
"""The published crop, and images a step on each of the published devices."""
SIZE = (500, 375)
"""Width and height, or the other way round, of the photos that are labelled: the usual ones of VOC."""

Clock = Callable[[], float]


class Stopwatch:
    """Seconds by name; those of a part are not counted in what it is a part of."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spent: dict[str, float] = defaultdict(float)
        self._within = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what happens inside."""
        outer, self._within = self._within, 0.0
        start = self.clock()
        try:
            yield
        finally:
            took = self.clock() - start
            self.spent[name] += took - self._within
            self._within = outer + took

    def watch(self, module: ModuleType, function: str, name: str) -> None:
        """Count every call of a module's function from now on."""
        real = getattr(module, function)

        def counted(*args: Any, **settings: Any) -> Any:
            with self(name):
                return real(*args, **settings)

        setattr(module, function, counted)


class Known(nn.Module):
    """In the place of the network: what a good one might say of an image. Its one parameter tells the device."""

    def __init__(self, found: CenterOutput) -> None:
        super().__init__()
        self.found = found
        self.nothing = nn.Parameter(torch.zeros(()))

    def predict(self, image: torch.Tensor, *, keep: list[int], **settings: Any) -> CenterOutput:
        """The fields of the classes asked for."""
        rows = torch.tensor(keep, dtype=torch.long)
        semantic = torch.cat([self.found.semantic[:1], self.found.semantic[1:][rows]])
        return CenterOutput(semantic, self.found.center[rows], self.found.offset)


def known(sample: Sample, classes: list[int], rng: np.random.Generator) -> CenterOutput:
    """Fields of the objects that the points divide the map into, with noise; of all classes."""
    semantic = sample.semantic
    if semantic is None:
        raise SystemExit(f"{sample.name}: no semantic map")
    places, ids = places_of(sample)
    groups = group_by_centers(
        np.zeros((len(classes), *semantic.shape), np.float32),
        np.zeros((2, *semantic.shape), np.float32),
        semantic,
        classes,
        points=places,
        point_classes=ids,
    )
    made = center_targets(groups.labels, groups.classes, stride=STRIDE, ids=classes)
    small = subsample(semantic, STRIDE)
    odds = np.stack([small == i for i in (0, *classes)]) * 0.9 + 0.1 / (1 + len(classes))
    heat = made.heat + rng.normal(0, 0.02, made.heat.shape)
    offset = made.offset + rng.normal(0, 2, made.offset.shape)
    return CenterOutput(*(torch.from_numpy(each.astype(np.float32)) for each in (odds, heat, offset)))


def training(
    dataset: Dataset, classes: list[int], method: BESTIE | None, steps: int, device: str, watch: Stopwatch
) -> None:
    """Steps of training after one that warms up."""
    config = BESTIEConfig.from_settings({"fields.crop": str(CROP)})
    model = build_fields(config, dict.fromkeys(classes, ""), pretrained=False) if method is None else method.model
    assert model is not None
    taught = Taught(model.to(device)).train()
    paths = Paths(config.edge_cost, config.snap)
    make = CenterExamples(config.fields, dataset, classes, exact=True, paths=paths, mend=config.mend)
    loss = CenterLoss(config, classes, exact=True)
    optimiser = torch.optim.AdamW(taught.student.parameters(), lr=1e-5)
    watch.watch(bestie_views, "known_map", "reading and cropping")
    watch.watch(bestie_examples, "view_of", "transfer")
    watch.watch(bestie_examples, "targets_of", "transfer")
    watch.watch(bestie_training, "refine", "refinement")
    for step in range(steps + 1):
        if step == 1:
            watch.spent.clear()
        with watch("reading and cropping"):
            batch = collate([make(np.random.default_rng((0, step, k))) for k in range(BATCH)])
        with watch("network, losses, optimiser"):
            optimiser.zero_grad()
            loss(taught, {name: values.to(device) for name, values in batch.items()})["loss"].backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def labelling(dataset: Dataset, classes: list[int], clock: Clock) -> Iterator[tuple[str, list[float]]]:
    """What is known of an image, and the seconds of each."""
    config, rng = BESTIEConfig(), np.random.default_rng(0)
    answers = [Known(known(sample, classes, rng)) for sample in dataset]
    kinds: dict[str, dict[str, Any]] = {
        "map and points": {},
        "map": {"points": None},
        "points": {"semantic": None},
        "tags": {"points": None, "semantic": None},
        "nothing": {"points": None, "semantic": None, "tags": None},
    }
    for name, without in kinds.items():
        times = []
        for sample, answer in zip(dataset, answers, strict=True):
            image = sample.image
            shown = sample.replace(image=image, **without)
            start = clock()
            instances_of(fields_of(answer, shown, classes, config), shown, config)  # type: ignore[arg-type]
            times.append(clock() - start)
        yield name, times[1:]  # the first one warms up


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("--semantic", type=Path, help="default: SemanticPredicted in it")
    parser.add_argument("--model", type=Path, help="a fitted one, on the classes of VOC")
    parser.add_argument("--steps", type=int, default=5, help="of training; 0: none")
    parser.add_argument("--images", type=int, default=20, help="to label")
    parser.add_argument("--device", default="cpu", help="of training")
    parser.add_argument("--clock", choices=("wall", "process"), default="wall")
    options = parser.parse_args()

    def clock() -> float:
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() if options.clock == "wall" else time.process_time()

    maps = options.semantic or options.voc / "SemanticPredicted"
    opened = open_dataset(options.voc, semantic=maps, tags="xml", limit=100)
    dataset = opened.map(lambda sample: sample.replace(points=box_centres(sample)))
    classes = list(dataset.classes)
    usual = dataset.filter(lambda sample: sample.size in (SIZE, SIZE[::-1]))[: options.images + 1]
    print("| an image with | s/image, mean | most |\n|---|---|---|")
    for name, times in labelling(usual, classes, clock):
        print(f"| {name} | {np.mean(times):.3f} | {np.max(times):.3f} |", flush=True)
    if options.steps:
        method = None if options.model is None else Method.load(options.model, device=options.device)
        if method is not None and not (isinstance(method, BESTIE) and method.facts["classes"] == classes):
            raise SystemExit(f"{options.model} is no model of bestie for these {len(classes)} classes")
        watch = Stopwatch(clock)
        training(dataset, classes, method, options.steps, options.device, watch)
        total = sum(watch.spent.values())
        print(f"\n| of a step at crop {CROP}, batch {BATCH} | s | % |\n|---|---|---|")
        for name, seconds in watch.spent.items():
            print(f"| {name} | {seconds / options.steps:.3f} | {100 * seconds / total:.1f} |")
    told = machine()
    print(f"\n{told['machine']}; load {told['load']}; {options.clock} seconds; {len(usual) - 1} images")


if __name__ == "__main__":
    main()
