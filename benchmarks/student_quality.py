"""A student beside the labels it learned from, on the images of a VOC devkit that have instance masks.

RUN is the folder of `pixelkin label VOC ...` over all images. The student sees no mask at prediction, and no tag in its
first row; in its second it knows the tags of the image, as the labels did. Models and predictions are kept in OUT; the
same call again measures only what is missing.

    python benchmarks/student_quality.py RUN VOC --budget 30m --seeds 0
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pixelkin
from pixelkin.formats import open_dataset
from pixelkin.metrics import evaluate
from siseg_quality import machine

COLUMNS = ("AP50", "AP", "AP75", "voc AP50", "voc AP70")


def masked_images(voc: Path, folder: Path) -> Path:
    """The images of ImageSets/Segmentation/train.txt, copied into a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (voc / "ImageSets" / "Segmentation" / "train.txt").read_text().split():
        shutil.copyfile(voc / "JPEGImages" / f"{name}.jpg", folder / f"{name}.jpg")
    return folder


def tags_of(voc: Path, images: Path, file: Path) -> Path:
    """The tags of the images of a folder, as CSV."""
    names = {path.stem for path in images.iterdir()}
    dataset = open_dataset(voc, tags="xml").filter(lambda sample: sample.name in names)
    rows = [f"{s.name},{';'.join(dataset.classes[tag] for tag in s.tags or ())}" for s in dataset]
    file.write_text("\n".join(["image,tags", *rows]) + "\n")
    return file


def scores(pred: Path, truth: Path) -> dict[str, Any]:
    """In percent."""
    coco, voc = evaluate(pred, truth).scores, evaluate(pred, truth, protocol="voc").scores
    return {name: coco[name] for name in COLUMNS[:3]} | {"voc AP50": voc["AP50"], "voc AP70": voc["AP70"]}


def row(name: str, found: dict[str, Any], spent: str) -> str:
    """Of the table."""
    return f"| {name} | " + " | ".join(f"{found[column]:.1f}" for column in COLUMNS) + f" | {spent} |"


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("voc", type=Path)
    parser.add_argument("--budget", help="for each student: 30m, 2000it; default: its own length")
    parser.add_argument("--seeds", default="0", help="e.g. 0,1,2")
    parser.add_argument(
        "--set-option", action="append", default=[], metavar="KEY=VALUE", help="a setting of the student"
    )
    parser.add_argument("--name", default="student", help="of this variant")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/student"))
    options = parser.parse_args()
    settings = dict(option.split("=", 1) for option in options.set_option)
    images = masked_images(options.voc, options.out / "images")
    tags = tags_of(options.voc, images, options.out / "tags.csv")
    lines = [row("the labels it learned from", scores(options.run, options.voc), "-")]
    for seed in (int(text) for text in options.seeds.split(",")):
        folder = options.out / f"{options.name}-s{seed}"
        pixelkin.train_student(
            options.run,
            out=folder,
            budget=options.budget,
            device=options.device,
            seed=seed,
            settings=settings,
            say=print,
        )
        pixelkin.predict(folder, images, out=folder / "run", device=options.device)
        pixelkin.predict(folder, images, tags=tags, out=folder / "run-tags", device=options.device)
        training = json.loads((folder / "config.json").read_text())["facts"]["training"]
        spent = f"{training['iterations']} steps, {training['seconds'] / 60:.0f} min"
        lines.append(row(f"{options.name}, seed {seed}", scores(folder / "run", options.voc), spent))
        lines.append(row("the same with the images' tags", scores(folder / "run-tags", options.voc), spent))
    print(f"\n| what | {' | '.join(COLUMNS)} | training |\n|---|{'---|' * len(COLUMNS)}---|")
    print("\n".join(lines))
    print(machine()["machine"])


if __name__ == "__main__":
    main()
