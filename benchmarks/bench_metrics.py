"""COCO average precision for masks: our streaming evaluation against pycocotools and faster-coco-eval, in one run.

Every row evaluates the same random masks with the same settings (1, 100 and 1000 detections an image, four area
ranges); "same" says whether AP, AP50, AP75 and AR equal those of pycocotools to the last bit. Ours also finds the
crowded truths and their recall. Run: python benchmarks/bench_metrics.py [--images 300]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pixelkin.data import Instances
from pixelkin.metrics import AveragePrecision

MAX_DETS = [1, 100, 1000]
CLASSES = {label: f"class {label}" for label in range(1, 21)}
KEYS = ("AP", "AP50", "AP75", "AR")

Pair = tuple[Instances, Instances]


def random_pair(rng: np.random.Generator, truths: int, detections: int, size: tuple[int, int]) -> Pair:
    """Ellipses, and as many detections: near the truths with probability 0.7, anywhere else."""
    yy, xx = np.ogrid[: size[0], : size[1]]

    def ellipse(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
        mask: np.ndarray = ((yy - centre[0]) / radii[0]) ** 2 + ((xx - centre[1]) / radii[1]) ** 2 < 1
        return mask

    centres, radii = rng.random((truths, 2)) * size, rng.uniform(5, 60, (truths, 2))
    labels = rng.choice(list(CLASSES)[:5], truths)
    near = rng.integers(truths, size=detections)
    moved = np.where(rng.random((detections, 1)) < 0.7, centres[near] + rng.normal(0, 4, (detections, 2)), 0)
    moved = np.where(moved == 0, rng.random((detections, 2)) * size, moved)
    truth = Instances.from_masks(np.stack([ellipse(c, r) for c, r in zip(centres, radii, strict=True)]), labels=labels)
    masks = np.stack([ellipse(c, r) for c, r in zip(moved, radii[near] * rng.uniform(0.8, 1.2), strict=True)])
    return Instances.from_masks(masks, labels=labels[near], scores=rng.random(detections)), truth


def ours(pairs: list[Pair]) -> dict[str, Any]:
    """Image by image, as evaluate() does."""
    counter = AveragePrecision(CLASSES)
    for pred, truth in pairs:
        counter.update(pred, truth)
    return counter.compute()


def with_api(pairs: list[Pair], coco: Any, coco_eval: Any) -> dict[str, Any]:
    """The whole set at once through an API like that of pycocotools."""
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image, (pred, truth) in enumerate(pairs, start=1):
        areas, boxes = truth.areas, truth.boxes
        for i, rle in enumerate(truth.rles):
            x0, y0, x1, y1 = boxes[i].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(truth.labels[i]),
                    "segmentation": dict(rle),
                    "area": float(areas[i]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "iscrowd": 0,
                }
            )
        for rle, label, score in zip(pred.rles, pred.labels, pred.scores, strict=True):
            detections.append(
                {"image_id": image, "category_id": int(label), "segmentation": dict(rle), "score": float(score)}
            )
    images = [{"id": i, "height": t.size[0], "width": t.size[1]} for i, (_, t) in enumerate(pairs, start=1)]
    categories = [{"id": label, "name": name} for label, name in CLASSES.items()]
    true = coco()
    true.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    true.createIndex()
    evaluation = coco_eval(true, true.loadRes(detections), "segm")
    evaluation.params.maxDets = MAX_DETS
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    picked = (precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1], recall[..., 0, -1])
    return {key: 100 * float(v[v > -1].mean()) for key, v in zip(KEYS, picked, strict=True)}


def timed(run: Callable[[], dict[str, Any]], repeats: int) -> tuple[float, dict[str, Any]]:
    """Best wall time of a few runs, and the numbers."""
    best, found = float("inf"), {}
    for _ in range(repeats):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            found = run()
        best = min(best, time.perf_counter() - start)
    return best, found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--truths", type=int, default=8)
    parser.add_argument("--detections", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pairs = [random_pair(rng, options.truths, options.detections, (480, 640)) for _ in range(options.images)]

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    runs = {"pycocotools": lambda: with_api(pairs, COCO, COCOeval)}
    if importlib.util.find_spec("faster_coco_eval") is not None:
        import faster_coco_eval as fast

        runs["faster-coco-eval"] = lambda: with_api(pairs, fast.COCO, fast.COCOeval_faster)
    runs["pixelkin (hotcoco)"] = lambda: ours(pairs)
    reference_time, reference = timed(runs["pycocotools"], options.repeats)
    print(f"{options.images} images, {options.truths} truths and {options.detections} detections each, 480x640")
    print(f"{'':20} {'seconds':>8} {'speedup':>8}  {'same':5} {'AP':>7} {'crowd_AR':>8}")
    for name, run in runs.items():
        seconds, found = (reference_time, reference) if name == "pycocotools" else timed(run, options.repeats)
        same = all(found[key] == reference[key] for key in KEYS)
        crowd = f"{found['crowd_AR']:8.2f}" if "crowd_AR" in found else f"{'-':>8}"
        print(f"{name:20} {seconds:8.2f} {reference_time / seconds:7.1f}x  {same!s:5} {found['AP']:7.3f} {crowd}")


if __name__ == "__main__":
    main()
