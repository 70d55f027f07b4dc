"""The films of a run: every clip as an mp4 with its instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.formats import instances_from_annotations
from pixelkin.run.spool import Spool
from pixelkin.training.progress import track
from pixelkin.viz.film import Frame, write_film

FOLDER = "overlays"
"""Of a run: ``overlays/CLIP.mp4``."""

USUAL_FPS = 24.0
"""Of folders of frames, which do not say."""


def film_of(folder: Path, clip: str) -> Path:
    """Where the film of a clip is."""
    return folder / FOLDER / f"{clip}.mp4"


def write_films(folder: Path, dataset: Dataset, images: Spool, say: Callable[[str], None]) -> int:
    """Write the films that are missing.

    Frames that are not labelled are shown as they are, frames that cannot be read are left out. A film that cannot be
    written is said and is no reason to fail.

    Args:
        folder: the run.
        dataset: what was labelled.
        images: the records of the frames that are done.
        say: takes a line for the user.

    Returns:
        How many films there are; a clip needs two labelled frames to have one.
    """
    clips: dict[str, list[Sample]] = {}
    for sample in dataset:
        if sample.clip is not None:
            clips.setdefault(sample.clip, []).append(sample)
    films = 0
    for clip, samples in clips.items():
        path = film_of(folder, clip)
        if sum(sample.name in images for sample in samples) < 2:
            continue
        if not path.is_file():
            fps = samples[0].fps or USUAL_FPS
            try:
                write_film(path, _frames(track(samples, f"film {clip}"), images), fps=fps)
            except OSError as error:
                say(f"no film of {clip}: {error}")
                continue
        films += 1
    return films


def _frames(samples: Iterator[Sample], images: Spool) -> Iterator[Frame]:
    for sample in samples:
        try:
            yield sample.image, _labelled(sample, images)
        except ImageError:  # in errors.jsonl since it was to be labelled
            continue


def _labelled(sample: Sample, images: Spool) -> Instances | None:
    if sample.name not in images:
        return None
    record = images.get(sample.name)
    size = (record["image"]["height"], record["image"]["width"])
    return instances_from_annotations(record["annotations"], size)
