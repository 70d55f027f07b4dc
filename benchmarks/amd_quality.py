"""AMD on DAVIS 2016 with no label: J of every sequence, beside what takes no learning.

    python benchmarks/amd_quality.py DAVIS --long-side 384 --seeds 0,1,2
    python benchmarks/amd_quality.py DAVIS --sequences dog,camel --set-option flow.adapted=200

Rows, from the same frames at the same size:

* centre: an ellipse half as wide and high as the frame, whatever is in it.
* residual: the flow to the next frame less the homography that most of it follows (RANSAC), over the threshold of Otsu.
* common: the head that learned from all sequences.
* sharpened: that, drawn to the colours of the frame. What `pixelkin label --method amd` makes.
* adapted, adapted and sharpened: the same with a copy of the head for each sequence; with flow.adapted above 0.
* adapted later, with --fit-on: the model learned from those sequences alone, and each of the others gets a copy of its
  head afterwards, as `pixelkin label NEW --model MODEL --set flow.adapt=true` does.
* photometric, adapted photometric: with --photometric, the published objective, trained on the same frames from random
  weights; the latter with a copy for each sequence, with clip.adapted above 0.

J is the mean over the frames but the first and the last, or every few of them (--every), in percent; the sequence's
masks are read for it alone.
Results are kept in OUT; the same call again measures only what is missing. Pictures of six frames a sequence with
--pictures FOLDER: the mask in red, the truth's outline in green.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.cues.optical_flow import dis_flow
from pixelkin.data import Dataset, Sample
from pixelkin.formats import open_dataset
from pixelkin.methods.amd import AMD
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.methods.amd_flow_clips import looked_at
from pixelkin.methods.amd_flow_config import FlowConfig
from pixelkin.metrics.video import region_similarity
from pixelkin.training.budget import Budget
from siseg_quality import machine

Mask = npt.NDArray[np.bool_]
Masks = Callable[[Sample, Sample | None], Mask]
"""From a frame and the next of its clip to a mask of any size."""


def centre(sample: Sample, following: Sample | None) -> Mask:
    """An ellipse half as wide and half as high as the frame, in its middle."""
    height, width = sample.size
    y, x = np.indices((height, width))
    return ((2 * y + 1 - height) / height) ** 2 + ((2 * x + 1 - width) / width) ** 2 < 0.25


def residual(sample: Sample, following: Sample | None, config: FlowConfig) -> Mask:
    """What does not follow the homography that most of the flow follows; the last frame's flow leads back."""
    if following is None:
        return np.zeros(sample.size, bool)
    flow = dis_flow(looked_at(sample.image, config), looked_at(following.image, config))
    y, x = np.indices(flow.shape[1:], np.float32)
    start = np.stack([x, y], axis=-1).reshape(-1, 2)
    goal = start + flow[::-1].reshape(2, -1).T
    cv2.setRNGSeed(0)
    motion, _ = cv2.findHomography(start[::17], goal[::17], cv2.RANSAC, 0.5)
    if motion is None:
        return np.zeros(sample.size, bool)
    off = np.linalg.norm(goal - cv2.perspectiveTransform(start[None], motion)[0], axis=1).reshape(y.shape)
    grey = (255 * np.clip(off / max(np.percentile(off, 99.5), 1e-6), 0, 1)).astype(np.uint8)
    return np.asarray(cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] > 0)


def of_method(method: AMD, sample: Sample, following: Sample | None) -> Mask:
    """Where the object's region has the larger share, at the size it was found."""
    shares = method.fields(sample)["regions"]
    return np.asarray(shares.argmax(axis=0) == method.region)


def soft_mask(method: AMD, sample: Sample, following: Sample | None) -> Mask:
    """The same of a division that was not sharpened: its shares are enlarged first."""
    height, width = sample.size
    shares = method.fields(sample)["regions"]
    full = np.stack([cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR) for share in shares])
    return np.asarray(full.argmax(axis=0) == method.region)


def judge(masks: Masks, frames: Dataset, pictures: Path | None = None, *, every: int = 1) -> tuple[float, float]:
    """J in percent over the frames of one sequence, or every so manieth, and the seconds that a mask took."""
    values, seconds, shown = [], 0.0, []
    judged = range(1, len(frames) - 1, every)
    picked = {judged[i] for i in np.linspace(0, len(judged) - 1, 6).astype(int)}
    for number in judged:
        sample, started = frames[number], time.perf_counter()
        mask = masks(sample, frames[number + 1])
        seconds += time.perf_counter() - started
        height, width = sample.size
        mask = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
        truth = sample.instances
        if truth is None:
            raise SystemExit(f"{sample.name}: no mask in Annotations: J cannot be measured")
        values.append(region_similarity(mask, truth.label_map() > 0))
        if pictures is not None and number in picked:
            shown.append(_picture(sample.image, mask, truth.label_map() > 0))
    if pictures is not None and shown:
        pictures.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures), np.vstack([np.hstack(shown[i : i + 2]) for i in range(0, len(shown) - 1, 2)]))
    return 100 * float(np.mean(values)), seconds / len(values)


def _picture(image: npt.NDArray[np.uint8], mask: Mask, truth: Mask) -> npt.NDArray[np.uint8]:
    shown = image[..., ::-1].copy()
    shown[mask] = shown[mask] // 2 + np.array([0, 0, 127], np.uint8)
    lines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, lines, -1, (0, 255, 0), 2)
    return np.asarray(cv2.resize(shown, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA), np.uint8)


def _unlabelled(dataset: Dataset) -> Dataset:
    return dataset.map(lambda sample: sample.replace(instances=None, ignore=None))


def rows_of(
    config: AMDConfig, dataset: Dataset, clips: dict[str, Dataset], arguments: argparse.Namespace, seed: int
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """(name, function that measures it) of the rows of one seed."""
    method = AMD(config)
    budget = None if arguments.budget is None else Budget.parse(arguments.budget)
    folder = arguments.out / "models" / f"{config.objective}-{arguments.name}-{arguments.long_side}-{seed}"

    def fitted() -> AMD:
        if method.network is None:
            if (folder / "config.json").is_file():
                loaded = AMD.load(folder, device="cpu")
                method.network, method.facts, method.classes = loaded.network, loaded.facts, loaded.classes  # type: ignore[attr-defined]
            else:
                method.fit(_unlabelled(dataset), out=folder / "fit", budget=budget, device=arguments.device, seed=seed)
                method.save(folder)
        return method

    def later(masks: Callable[[AMD], Masks]) -> dict[str, Any]:
        found = fitted()
        judged = Dataset([sample for frames in clips.values() for sample in frames])
        started = time.perf_counter()
        found.adapt(_unlabelled(judged), out=folder / "later", budget=budget, seed=seed)
        took = time.perf_counter() - started
        return measured(masks, "adapted later", sharpen=True) | {"fit_s": took}

    def measured(masks: Callable[[AMD], Masks], row: str, **changes: Any) -> dict[str, Any]:
        found = fitted()
        before, heads = found.config, found.facts.get("heads", {})
        found.config = before.model_copy(update={"flow": before.flow.model_copy(update=changes)})
        if not row.startswith("adapted"):
            found.facts["heads"] = {}
        try:
            place = None if arguments.pictures is None else arguments.pictures / f"{row}-{seed}"
            scores, times = {}, []
            for name, frames in clips.items():
                scores[name], seconds = judge(
                    masks(found), frames, None if place is None else place / f"{name}.png", every=arguments.every
                )
                times.append(seconds)
        finally:
            found.config, found.facts["heads"] = before, heads
        return {"J": scores, "image_s": float(np.mean(times)), "fit_s": found.facts["training"]["seconds"]}

    if config.objective == "flow":
        yield "common", lambda: measured(lambda m: partial(soft_mask, m), "common", sharpen=False)
        yield "sharpened", lambda: measured(lambda m: partial(of_method, m), "sharpened", sharpen=True)
        if config.flow.adapted:
            yield "adapted", lambda: measured(lambda m: partial(soft_mask, m), "adapted", sharpen=False)
            sharp = "adapted and sharpened"
            yield sharp, lambda: measured(lambda m: partial(of_method, m), sharp, sharpen=True)
        if arguments.fit_on is not None:
            yield "adapted later", lambda: later(lambda m: partial(of_method, m))
    else:
        names = ["photometric"] + ["adapted photometric"] * bool(config.clip.adapted)
        yield from ((name, lambda name=name: measured(lambda m: partial(soft_mask, m), name)) for name in names)  # type: ignore[misc]


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("--out", type=Path, default=Path("amd_quality"))
    parser.add_argument("--sequences", help="comma-separated; default all")
    parser.add_argument("--fit-on", help="comma-separated sequences to learn from; the others are judged")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--long-side", type=int, default=384)
    parser.add_argument("--every", type=int, default=1, help="judge only every so manieth frame")
    parser.add_argument("--budget")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--photometric", action="store_true")
    parser.add_argument("--name", default="default", help="of these settings in the table")
    parser.add_argument("--set-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.davis)
    wanted = None if arguments.sequences is None else set(arguments.sequences.split(","))
    dataset = dataset.filter(lambda sample: wanted is None or sample.clip in wanted)
    everything = dataset
    if arguments.fit_on is not None:
        taught = set(arguments.fit_on.split(","))
        everything = dataset.filter(lambda sample: sample.clip in taught)
        dataset = dataset.filter(lambda sample: sample.clip not in taught)
    names = sorted({str(sample.clip) for sample in dataset})
    if not names:
        raise SystemExit(f"{arguments.davis}: no such sequences: leave --sequences out")
    clips = {name: dataset.filter(lambda sample, name=name: sample.clip == name) for name in names}  # type: ignore[misc]
    settings = dict(option.split("=", 1) for option in arguments.set_option)
    config = AMDConfig.from_settings(
        {"objective": "flow", "flow.long_side": str(arguments.long_side)}
        | ({"objective": "photometric"} if arguments.photometric else {})
        | settings
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"machine": machine(), "rows": {}}

    def measure(key: str, row: Callable[[], dict[str, Any]]) -> None:
        if set(names) - set(results["rows"].get(key, {}).get("J", {})):
            results["rows"][key] = row()
            file.write_text(json.dumps(results, indent=1))
        print_row(key, results["rows"][key], names)

    print(f"{'J in percent':32s}" + "".join(f"{name[:9]:>10s}" for name in (*names, "mean")) + "    s/frame   fit s")

    def plain(masks: Masks) -> dict[str, Any]:
        found = {name: judge(masks, frames, every=arguments.every) for name, frames in clips.items()}
        return {
            "J": {name: j for name, (j, _) in found.items()},
            "image_s": float(np.mean([s for _, s in found.values()])),
        }

    judged = f"{arguments.long_side}" + (f" 1/{arguments.every}" if arguments.every > 1 else "")
    measure(f"centre {judged}", lambda: plain(centre))
    measure(f"residual {judged}", lambda: plain(partial(residual, config=config.flow)))
    for seed in (int(text) for text in arguments.seeds.split(",")):
        for row, measured in rows_of(config, everything, clips, arguments, seed):
            measure(f"{row} {arguments.name} {judged} seed {seed}", measured)


def print_row(key: str, row: dict[str, Any], names: list[str]) -> None:
    """One line of the table."""
    values = [row["J"][name] for name in names]
    cells = "".join(f"{value:10.1f}" for value in (*values, float(np.mean(values))))
    print(f"{key:32s}{cells}{row['image_s']:11.3f}{row.get('fit_s', 0):8.0f}", flush=True)


if __name__ == "__main__":
    main()
