"""Label maps: one PNG of instance ids an image, 0 background. No overlaps, no classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.formats.classes import CLASSES_FILE, as_classes, write_classes
from pixelkin.formats.files import LABEL_SUFFIXES, SourceError, list_files, match, require_folder, sample_names, whole
from pixelkin.formats.maps import label_size, load_ids, load_semantic, scan_classes
from pixelkin.formats.report import ConversionReport, FileLoss

DEFAULT_CLASSES = {1: "object"}


def read_label_maps(
    folder: Path | str,
    *,
    classes: Mapping[int, str] | Path | str | None = None,
    semantic: Path | str | None = None,
) -> Dataset:
    """Read a folder of label maps (PNG, TIFF or .npy; 8 or 16 bit) as samples with instances and no images.

    Every id but 0 is one instance, 255 too. The instance's class is the only class of the list, or, with ``semantic``,
    the class that most of its pixels have there.

    Args:
        folder: the label maps, at any depth.
        classes: class list. Default: 1 object; with ``semantic``, what its masks hold.
        semantic: folder of semantic masks.

    Raises:
        SourceError: no such files, or several classes and nothing to tell them apart.
    """
    folder = require_folder(Path(folder), "folder of label maps")
    paths = list_files(folder, LABEL_SUFFIXES, exclude=[Path(semantic)] if semantic is not None else [])
    if not paths:
        raise SourceError(f"{folder}: no label maps in it (PNG, TIFF, .npy): check the path")
    names = sample_names(paths)
    given = as_classes(classes)
    beneath: dict[str, Path] = {}
    if semantic is not None:
        root = require_folder(Path(semantic), "folder of semantic masks")
        beneath = {name: root / path for name, path in match(names, list_files(root, LABEL_SUFFIXES)).items()}
        given = given or scan_classes(beneath.values())
    elif given is not None and len(given) != 1:
        raise SourceError(
            f"{folder}: label maps hold no classes, but {len(given)} are listed: give semantic masks or one class"
        )
    known = given or DEFAULT_CLASSES
    samples = [
        Sample(
            name,
            partial(_no_image, folder / path),
            size=label_size(folder / path),
            instances=partial(load_instances, folder / path, tuple(known), beneath.get(name)),
        )
        for name, path in zip(names, paths, strict=True)
    ]
    return Dataset(samples, known, name=folder.name)


def read_semantic_maps(folder: Path | str, *, classes: Mapping[int, str] | Path | str | None = None) -> Dataset:
    """Read a folder of semantic masks as samples with ``semantic`` and no images.

    Args:
        folder: masks of class ids, at any depth; 255 unknown.
        classes: class list. Default: the ids that the masks hold, which reads them all once.

    Raises:
        SourceError: no such files.
    """
    folder = require_folder(Path(folder), "folder of semantic masks")
    paths = list_files(folder, LABEL_SUFFIXES)
    if not paths:
        raise SourceError(f"{folder}: no masks in it (PNG, TIFF, .npy): check the path")
    known = as_classes(classes) or scan_classes(folder / path for path in paths)
    samples = [
        Sample(
            name,
            partial(_no_image, folder / path),
            size=label_size(folder / path),
            semantic=partial(load_semantic, folder / path, tuple(known)),
        )
        for name, path in zip(sample_names(paths), paths, strict=True)
    ]
    return Dataset(samples, known, name=folder.name)


def _no_image(path: Path) -> npt.NDArray[np.uint8]:
    raise ImageError(f"{path}: a label map without its image: give the folder of the images as the source")


def load_instances(path: Path, classes: tuple[int, ...], semantic: Path | None = None) -> Instances:
    """The instances of one label map; classes from a mask, else the first of ``classes``. Raises ImageError."""
    ids = load_ids(path)
    instances = Instances.from_label_map(ids)
    beneath = None if semantic is None else load_semantic(semantic, classes)
    labels = [classes[0]] * len(instances) if beneath is None else classes_beneath(instances, beneath, path)
    return Instances(instances.size, instances.rles, labels=labels, ids=instances.ids)


def classes_beneath(instances: Instances, semantic: npt.NDArray[Any], path: Path) -> list[int]:
    """The class that most pixels of each instance have in a semantic mask; 0 and 255 do not count.

    Raises:
        ImageError: sizes differ, or no class lies under an instance; ``path`` is the file to name.
    """
    if semantic.shape != instances.size:
        raise ImageError(
            f"{path}: instances are {instances.size}, their semantic mask {semantic.shape}: give both the same size"
        )
    labels = []
    for i in range(len(instances)):
        counts = np.bincount(semantic[instances.mask(i)], minlength=UNKNOWN + 1)
        counts[[0, UNKNOWN]] = 0
        if not counts.any():
            raise ImageError(f"{path}: no class lies under instance {instances.ids[i]}: correct the semantic mask")
        labels.append(int(counts.argmax()))
    return labels


class Painted(NamedTuple):
    """Instances laid on one map: ``ids`` (H, W), ``owner`` (H, W) which instance is on top or -1, what it lost."""

    ids: npt.NDArray[np.int32]
    owner: npt.NDArray[np.int32]
    loss: FileLoss


def paint(instances: Instances, *, largest: int, crowd: int = 0) -> Painted:
    """Lay instances on one map of ids, 0 background.

    Where masks overlap, the higher score is on top, of equal scores the smaller mask. The instances keep their ids if
    these are unique (masks of one track may share it) and in 1..``largest``; otherwise they are numbered from 1. A
    crowd is no instance.

    Args:
        instances: masks of one image.
        largest: highest id the format can hold.
        crowd: value of pixels that only a crowd covers.

    Raises:
        ImageError: more instances than ids.
    """
    single = np.flatnonzero(~instances.crowd)
    if len(single) > largest:
        raise ImageError(f"{len(single)} instances in one image, the format holds {largest}: convert to coco")
    ids = np.zeros(len(instances) + 1, dtype=np.int32)  # the last one is what owner -1 finds
    own = instances.ids[single]
    apart = len(np.unique(own)) == len(own) or bool(instances.tracks[single].all())
    keep = apart and bool(((own >= 1) & (own <= largest)).all())
    ids[single] = own if keep else np.arange(1, len(single) + 1)
    owner = np.full(instances.size, -1, dtype=np.int32)
    covered = np.zeros(instances.size, dtype=bool)
    areas = instances.areas
    for i in single[np.lexsort((-areas[single], instances.scores[single]))]:
        owner[instances.mask(int(i))] = i
    for i in np.flatnonzero(instances.crowd):
        covered |= instances.mask(int(i))
    painted = ids[owner]
    painted[covered & (owner < 0)] = crowd
    visible = np.bincount(owner[owner >= 0], minlength=len(instances))[single]
    loss = FileLoss(
        "",
        masks=len(instances),
        dropped=int((visible == 0).sum()) + int(instances.crowd.sum()),
        area_before=int(areas.sum()),
        area_changed=int((areas[single] - visible).sum()) + int(areas[instances.crowd].sum()),
    )
    return Painted(painted, owner, loss)


def write_label_png(path: Path | str, ids: npt.NDArray[Any] | Instances) -> FileLoss:
    """Write one uint16 PNG of instance ids.

    Args:
        path: the PNG.
        ids: (H, W) ids 0..65535, or instances, of which overlaps are lost (the higher score is on top).

    Returns:
        What the masks lost; nothing for a map.

    Raises:
        ImageError: ids that 16 bits cannot hold.
    """
    path = Path(path)
    loss = FileLoss(path.stem, masks=0)
    if isinstance(ids, Instances):
        ids, _, loss = paint(ids, largest=2**16 - 1)
    array = np.asarray(ids)
    if array.ndim != 2 or array.min(initial=0) < 0 or array.max(initial=0) >= 2**16:
        raise ImageError(f"{path}: {array.dtype} of shape {array.shape}: 16-bit PNG holds (H, W) ids 0..65535")
    with whole(path) as beside:
        Image.fromarray(array.astype(np.uint16)).save(beside, format="PNG")
    return loss


def write_label_pngs(folder: Path | str, samples: Iterable[Sample], classes: Mapping[int, str]) -> ConversionReport:
    """Write every sample's instances as ``NAME.png``, one image in memory at a time.

    The class list goes to ``classes.txt`` if there is only one class; of several, which instance had which is lost, and
    the report says so. An image that cannot be read is reported and the next one follows.
    """
    folder = Path(folder)
    report = ConversionReport("label-png")
    for sample in samples:
        try:
            instances = sample.instances
            if instances is None:
                continue
            loss = write_label_png(folder / f"{sample.name}.png", instances)
        except ImageError as error:
            report.failed.append((sample.name, str(error)))
            continue
        lost_classes = len(classes) > 1 and len(instances) > 0
        report.add(replace(loss, name=sample.name, classes=lost_classes))
    if len(classes) == 1:
        write_classes(folder / CLASSES_FILE, classes)
    return report
