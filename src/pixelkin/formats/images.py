"""Image files of samples: their names and copies."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from pixelkin.data import ImageError, Sample
from pixelkin.formats.files import whole


def file_name(sample: Sample, suffix: str = "") -> str:
    """The path of a sample's image below its source; ``suffix`` is for a sample that has no file."""
    if sample.path is not None:
        suffix = sample.path.suffix
    return sample.name if suffix and sample.name.endswith(suffix) else sample.name + suffix


def copy_image(sample: Sample, folder: Path, suffix: str = ".png") -> bool:
    """Put a sample's image into a folder under its name; a file is copied as it is, an array saved as ``suffix``.

    Returns:
        Whether there was an image.
    """
    target = folder / file_name(sample, suffix)
    try:
        if sample.path is not None:
            with whole(target) as beside:
                shutil.copyfile(sample.path, beside)
        else:
            pixels = sample.image
            with whole(target) as beside:
                Image.fromarray(pixels).save(beside, format="PNG" if suffix == ".png" else "JPEG", quality=95)
    except (FileNotFoundError, ImageError):
        return False
    return True
