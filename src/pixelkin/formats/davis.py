"""DAVIS folders: clips of frames, and masks of object ids that stay the same over a clip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.formats.classes import as_classes
from pixelkin.formats.files import IMAGE_SUFFIXES, SourceError, list_files, require_folder, sample_names
from pixelkin.formats.label_png import DEFAULT_CLASSES, paint, write_label_png
from pixelkin.formats.maps import label_size, load_ids, unique_ids
from pixelkin.formats.palette import write_palette_png
from pixelkin.formats.report import ConversionReport, FileLoss

RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
LARGEST_ID = 254


def read_davis(folder: Path | str, *, classes: Mapping[int, str] | Path | str | None = None) -> Dataset:
    """Read a DAVIS folder: ``JPEGImages/480p/CLIP/*.jpg`` and, where there, ``Annotations/480p/CLIP/*.png``.

    Each frame is a sample named ``CLIP/FRAME`` with its clip and its number in it from 0. Masks become instances whose
    tracks hold over the clip. A clip whose masks know only 0 and 255 (DAVIS 2016) has one object, id 1; elsewhere 255
    is void and becomes ``ignore``.

    Args:
        folder: the one with ``JPEGImages``; of several resolutions 480p is read.
        classes: class list; its first class is every object's. Default: 1 object.

    Raises:
        SourceError: no frames.
    """
    folder = require_folder(Path(folder), "DAVIS folder")
    images = _resolution(require_folder(folder / "JPEGImages", "folder of frames"))
    masks = folder / "Annotations" / images.relative_to(folder / "JPEGImages")
    frames = read_frames(images, name=folder.name)
    known = as_classes(classes) or DEFAULT_CLASSES
    paths = (
        {path.with_suffix("").as_posix(): masks / path for path in list_files(masks, {".png"})}
        if masks.is_dir()
        else {}
    )
    return Dataset([_with_mask(sample, paths.get(sample.name), known) for sample in frames], known, name=folder.name)


def read_davis_masks(folder: Path | str, *, classes: Mapping[int, str] | Path | str | None = None) -> Dataset:
    """Read a folder of masks ``CLIP/FRAME.png`` as samples with instances and no images.

    Args:
        folder: ``Annotations/480p``, ``Annotations``, the DAVIS folder, a run's ``masks``, or one clip's folder.
        classes: class list; its first class is every object's. Default: 1 object.

    Raises:
        SourceError: no masks.
    """
    folder = require_folder(Path(folder), "folder of masks")
    root = _resolution(folder / "Annotations" if (folder / "Annotations").is_dir() else folder)
    paths = list_files(root, {".png"})
    if not paths:
        raise SourceError(f"{root}: no PNG masks in it: give the folder whose folders are the clips")
    known = as_classes(classes) or DEFAULT_CLASSES
    samples = []
    for sample, path in zip(_frames(root, paths), (root / path for path in paths), strict=True):
        samples.append(_with_mask(sample.replace(image=partial(_no_image, path), size=label_size(path)), path, known))
    return Dataset(samples, known, name=folder.name)


def read_frames(folder: Path | str, *, name: str = "") -> Dataset:
    """Read a folder of frames, or of folders of frames, as clips without labels; every folder is one clip.

    Raises:
        SourceError: no frames.
    """
    folder = require_folder(Path(folder), "folder of frames")
    paths = list_files(folder, IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(f"{folder}: no images in it: check the path")
    return Dataset(_frames(folder, paths), name=name or folder.name)


def _frames(root: Path, paths: list[PurePosixPath]) -> list[Sample]:
    """One sample a frame; frames right in the root are a clip of the root's name."""
    counts: dict[str, int] = defaultdict(int)
    samples = []
    for name, path in zip(sample_names(paths), paths, strict=True):
        clip = path.parent.as_posix() if path.parent.name else root.absolute().name
        samples.append(Sample(name, root / path, clip=clip, frame=counts[clip]))
        counts[clip] += 1
    return samples


def _resolution(folder: Path) -> Path:
    for name in RESOLUTIONS:
        if (folder / name).is_dir():
            return folder / name
    return folder


def _with_mask(sample: Sample, path: Path | None, classes: Mapping[int, str]) -> Sample:
    if path is None:
        return sample
    label = min(classes)
    return sample.replace(instances=partial(_load_instances, path, label), ignore=partial(_load_void, path))


@lru_cache(maxsize=64)
def _one_merged_object(first: Path) -> bool:
    """Whether a clip's first mask knows only background and 255, which then is the object."""
    return unique_ids(load_ids(first)) <= {0, UNKNOWN}


def _load_ids(path: Path) -> npt.NDArray[np.int32]:
    """(H, W) object ids; 255 only where it is void. Raises ImageError."""
    ids = load_ids(path).astype(np.int32)
    if UNKNOWN in ids and unique_ids(ids) <= {0, UNKNOWN} and _one_merged_object(min(path.parent.glob("*.png"))):
        ids[ids == UNKNOWN] = 1
    return ids


def _load_instances(path: Path, label: int) -> Instances:
    ids = _load_ids(path)
    instances = Instances.from_label_map(ids, ignore=UNKNOWN)
    return Instances(instances.size, instances.rles, labels=[label] * len(instances), tracks=instances.ids)


def _load_void(path: Path) -> npt.NDArray[np.bool_]:
    return np.asarray(_load_ids(path) == UNKNOWN)


def _no_image(path: Path) -> npt.NDArray[np.uint8]:
    raise ImageError(f"{path}: a mask without its frame: give the DAVIS folder as the source")


def write_davis(folder: Path | str, samples: Iterable[Sample]) -> ConversionReport:
    """Write the masks of clips as ``CLIP/FRAME.png`` (:func:`write_frame`), one frame in memory at a time.

    Lost, and reported: overlaps (the higher score is on top), crowds, classes. A frame that cannot be read is reported
    and the next one follows.
    """
    report = ConversionReport("davis")
    for sample in samples:
        try:
            instances = sample.instances
            if instances is None:
                continue
            loss = write_frame(Path(folder), sample, instances)
        except ImageError as error:
            report.failed.append((sample.name, str(error)))
            continue
        report.add(replace(loss, name=sample.name))
    return report


def write_frame(folder: Path, sample: Sample, instances: Instances) -> FileLoss:
    """Write the masks of one frame as ``CLIP/FRAME.png``: with the colours of the ids, or in 16 bit for ids over 254.

    Args:
        folder: where the folders of the clips are.
        sample: the frame; its clip and the last part of its name say where the file goes.
        instances: its masks; alternatives to surer ones are left out.

    Returns:
        What the masks lost.

    Raises:
        ImageError: more instances than 16 bits can number.
    """
    path = folder / (sample.clip or "") / f"{PurePosixPath(sample.name).name}.png"
    painted = paint(instances[~instances.alternative], largest=2**16 - 1)
    if painted.ids.max() > LARGEST_ID:
        write_label_png(path, painted.ids)
    else:
        write_palette_png(path, painted.ids)
    return painted.loss
