"""Image files of samples: their names and copies."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelkin.data import ImageError, Sample
from pixelkin.formats.files import whole


def file_name(sample: Sample) -> str:
    """The path of a sample's image below its source; without suffix for a sample that has no file."""
    suffix = "" if sample.path is None else sample.path.suffix
    return sample.name if suffix and sample.name.endswith(suffix) else sample.name + suffix


def with_image(sample: Sample, path: Path) -> Sample:
    """The sample with its image at a path; its labels, and their size, stay."""
    try:
        size = sample.size
    except ImageError:  # it shows when the labels are loaded
        size = None
    return sample.replace(image=path, size=size)


def with_image_of(sample: Sample, other: Sample) -> Sample:
    """The sample with the image of another one, be it a file or a frame of a video; its labels stay."""
    if other.path is not None:
        return with_image(sample, other.path)
    return sample.replace(image=partial(_image, other), size=sample.size)


def _image(sample: Sample) -> npt.NDArray[np.uint8]:
    return sample.image


def copy_image(sample: Sample, folder: Path) -> bool:
    """Put a sample's image into a folder under its name; a file is copied as it is, an array saved as PNG.

    Returns:
        Whether there was an image.
    """
    try:
        if sample.path is not None:
            with whole(folder / file_name(sample)) as beside:
                shutil.copyfile(sample.path, beside)
        else:
            pixels = sample.image
            with whole(folder / f"{sample.name}.png") as beside:
                Image.fromarray(pixels).save(beside, format="PNG")
    except (FileNotFoundError, ImageError):
        return False
    return True
