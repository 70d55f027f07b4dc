"""The films of a run: every clip as an mp4 with its instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.run.records import Records, instances_of
from pixelkin.training.progress import track
from pixelkin.viz.film import Frame, write_film

FOLDER = "overlays"
"""Of a run: ``overlays/CLIP.mp4``."""

USUAL_FPS = 24.0
"""Of folders of frames, which do not say."""


def film_of(folder: Path, clip: str) -> Path:
    """Where the film of a clip is."""
    return folder / FOLDER / f"{clip}.mp4"


def write_films(folder: Path, dataset: Dataset, images: Records, say: Callable[[str], None]) -> int:
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
    films = 0
    for clip, samples in dataset.clips().items():
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


def _frames(samples: Iterator[Sample], images: Records) -> Iterator[Frame]:
    for sample in samples:
        try:
            yield sample.image, _labelled(sample, images)
        except ImageError:  # in errors.jsonl since it was to be labelled
            continue


def _labelled(sample: Sample, images: Records) -> Instances | None:
    return instances_of(images.get(sample.name)) if sample.name in images else None
