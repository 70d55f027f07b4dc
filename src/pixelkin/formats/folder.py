"""Image folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pixelkin.data import Dataset, Sample
from pixelkin.formats.classes import as_classes
from pixelkin.formats.files import SourceError, list_files, require_folder, sample_names


def read_folder(
    folder: Path | str,
    *,
    classes: Mapping[int, str] | Path | str | None = None,
    exclude: Iterable[Path] = (),
) -> Dataset:
    """Read a folder of images, at any depth, as samples without labels.

    Files that are no images by their suffix are ignored; broken ones fail when they are loaded.

    Args:
        folder: the images.
        classes: class list.
        exclude: folders below it that hold labels, not images.

    Raises:
        SourceError: no images.
    """
    folder = require_folder(Path(folder), "source")
    paths = list_files(folder, exclude=exclude)
    if not paths:
        raise SourceError(f"{folder}: no images in it (JPEG, PNG, TIFF, ...): check the path")
    samples = [Sample(name, folder / path) for name, path in zip(sample_names(paths), paths, strict=True)]
    return Dataset(samples, as_classes(classes), name=folder.absolute().name)
