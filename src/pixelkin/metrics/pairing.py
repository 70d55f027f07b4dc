"""What an evaluation compares: predictions and truth opened from wherever they are, and matched by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.data.sample import UNKNOWN
from pixelkin.formats.classes import find_classes
from pixelkin.formats.coco import read_coco, read_coco_results
from pixelkin.formats.davis import RESOLUTIONS
from pixelkin.formats.files import LABEL_SUFFIXES, list_files, natural_key, sample_names
from pixelkin.formats.json_index import walk_records
from pixelkin.formats.label_png import read_label_maps, read_semantic_maps
from pixelkin.formats.maps import load_ids
from pixelkin.formats.voc import read_voc
from pixelkin.formats.wis import is_wis, read_wis

Source = Path | str | Dataset
Kind = Literal["coco", "voc", "wis", "label-png", "semantic", "dataset"]

Clips = dict[str, dict[str, Callable[[], npt.NDArray[Any]]]]
"""Clip name to frame name to a function that reads the frame's (H, W) ids; frames in order."""


@dataclass(frozen=True)
class Opened:
    """A set with its labels; ``kind`` says how they were given, ``areas`` what COCO annotations say of their areas."""

    dataset: Dataset
    kind: Kind
    areas: dict[str, list[float]] = field(default_factory=dict)

    def areas_of(self, sample: Sample, instances: Instances) -> npt.NDArray[np.float64] | None:
        """(N,) annotated areas of an image's instances; None where there are none to go by."""
        areas = self.areas.get(sample.name)
        return np.asarray(areas) if areas is not None and len(areas) == len(instances) else None


@dataclass(frozen=True)
class Matched:
    """Truths with their predictions, None for none; how many predicted images had no truth."""

    pairs: list[tuple[Sample | None, Sample]]
    left_out: int

    @property
    def unpredicted(self) -> int:
        """How many truths have no prediction."""
        return sum(pred is None for pred, _ in self.pairs)


def open_truth(source: Source, *, semantic: bool) -> Opened:
    """Open the truth of an image protocol.

    Args:
        source: COCO JSON, VOC devkit folder (its images with instance masks, or class masks where ``semantic``), WIS,
            folder of label PNG (class ids where ``semantic``, instance ids otherwise), or a dataset that holds such
            labels.
        semantic: whether class masks are asked for; instances serve too, drawn smaller over larger.

    Raises:
        ValueError: no such source, or one that holds no such labels.
    """
    if isinstance(source, Dataset):
        usable = source.filter(lambda sample: sample.has("instances") or (semantic and sample.has("semantic")))
        return Opened(_some(usable, "the truth holds no masks: give samples with instances"), "dataset")
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise ValueError(f"{path}: not a truth: give a COCO JSON, a VOC devkit folder or a folder of label PNG")
        dataset = read_coco(path).with_label("instances")
        _some(dataset, f"{path}: no annotated masks in it: give a COCO file with segmentations")
        return Opened(dataset, "coco", {} if semantic else _annotated_areas(path))
    _require_folder(path, "truth")
    if (path / "SegmentationObject").is_dir() or (path / "SegmentationClass").is_dir():
        label = "semantic" if semantic else "instances"
        wanted = "SegmentationClass" if semantic else "SegmentationObject"
        dataset = read_voc(path).with_label(label)
        return Opened(_some(dataset, f"{path}: no image has a mask in {wanted}: add masks there"), "voc")
    if (path / "Annotations").is_dir() and any(inner.is_dir() for inner in (path / "Annotations").iterdir()):
        raise ValueError(f"{path}: a DAVIS folder: evaluate it with protocol video")
    if (path / "instances.json").is_file():
        dataset = read_coco(path / "instances.json").with_label("instances")
        return Opened(_some(dataset, f"{path}: no instances in it"), "coco")
    if is_wis(path):
        return Opened(read_wis(path), "wis")
    if semantic:
        return _open_semantic(path)
    return Opened(read_label_maps(path), "label-png")


def open_predictions(source: Source, *, semantic: bool, truth: Source | None = None) -> Opened:
    """Open predictions for an image protocol.

    Args:
        source: run folder, COCO JSON, list of COCO results (with a COCO JSON as truth), a folder of class PNG where
            ``semantic``, or a dataset.
        semantic: whether class masks are asked for: the run's ``semantic/`` if there, else its instances are drawn.
        truth: the truth, which results need for their images.

    Raises:
        ValueError: no such source.
    """
    if isinstance(source, Dataset):
        return Opened(source, "dataset")
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".json":
        if _is_list(path):
            if truth is None or isinstance(truth, Dataset) or not Path(truth).is_file():
                raise ValueError(f"{path}: a list of results: evaluate it against the COCO JSON it was made for")
            return Opened(read_coco_results(path, truth), "coco")
        return Opened(read_coco(path), "coco")
    _require_folder(path, "prediction")
    if semantic and (path / "semantic").is_dir():
        return _open_semantic(path / "semantic")
    if (path / "instances.json").is_file():
        return Opened(read_coco(path / "instances.json"), "coco")
    if semantic:
        return _open_semantic(path)
    raise ValueError(f"{path}: no instances.json in it: give a run folder or a COCO JSON")


def match(pred: Dataset, truth: Dataset) -> Matched:
    """Match images by name: the same path below the source, else the same file stem where only one of each has it.

    Raises:
        ValueError: no image in common.
    """
    by_name = {sample.name: sample for sample in pred}
    by_stem = _by_stem(pred)
    truths_of_stem = _by_stem(truth)
    pairs: list[tuple[Sample | None, Sample]] = []
    used: set[str] = set()
    for sample in truth:
        found = by_name.get(sample.name)
        same_stem = by_stem.get(_stem(sample.name), [])
        if found is None and len(same_stem) == 1 and len(truths_of_stem[_stem(sample.name)]) == 1:
            found = same_stem[0]
        if found is not None:
            used.add(found.name)
        pairs.append((found, sample))
    if not used:
        examples = f"e.g. {pred[0].name!r} and {truth[0].name!r}" if len(pred) and len(truth) else "one is empty"
        raise ValueError(f"predictions and truth have no image in common ({examples}): file stems must agree")
    return Matched(pairs, len(pred) - len(used))


def read_clips(source: Path | str, what: str) -> Clips:
    """Label maps of clips.

    Args:
        source: a DAVIS root (its ``Annotations``, the first resolution), a run folder (its ``masks``), a folder of clip
            folders, one clip's folder, or a COCO JSON whose annotations have a ``track_id``.
        what: "truth" or "prediction", for messages.

    Raises:
        ValueError: no such folder, or no maps in it.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".json":
        return clips_of(read_coco(path))
    _require_folder(path, what)
    if (path / "instances.json").is_file() and not (path / "masks").is_dir():
        raise ValueError(f"{path}: a run without masks/CLIP/FRAME.png: only runs on video have them")
    for inner in ("Annotations", "masks"):
        if (path / inner).is_dir():
            path = path / inner
            break
    path = next((path / inner for inner in RESOLUTIONS if (path / inner).is_dir()), path)
    files = list_files(path, LABEL_SUFFIXES)
    if not files:
        raise ValueError(f"{path}: no PNG maps in it: give DAVIS annotations or a run with masks/CLIP/FRAME.png")
    clips: Clips = defaultdict(dict)
    for file in sorted(files, key=lambda file: natural_key(file.as_posix())):
        clip = file.parent.as_posix() if file.parent != PurePosixPath(".") else path.name
        clips[clip][file.stem] = partial(load_ids, path / file)
    return dict(clips)


def clips_of(dataset: Dataset) -> Clips:
    """Label maps of a dataset of video samples: the tracks of their instances, else their ids.

    A sample that names no clip is a frame of the folder it is in.
    """
    clips: Clips = defaultdict(dict)
    for sample in dataset.with_label("instances"):
        clip = sample.name.rpartition("/")[0] if sample.clip is None else sample.clip
        clips[clip][_stem(sample.name)] = partial(_identity_map, sample)
    if not clips:
        raise ValueError("the dataset holds no masks: give samples with instances")
    return dict(clips)


def semantic_map(sample: Sample) -> npt.NDArray[Any] | None:
    """An image's class ids: its own map, else its instances drawn smaller over larger (crowds 255), else None."""
    if (semantic := sample.semantic) is not None:
        return semantic
    instances = sample.instances
    return None if instances is None else instances.semantic_map()


_INSTEAD_OF_UNKNOWN = 2**40
"""For an object that happens to have the number that means "not judged" in a map."""


def _identity_map(sample: Sample) -> npt.NDArray[Any]:
    """(H, W) ids of one frame's objects, 255 where it is not judged."""
    instances = sample.instances
    if instances is None:
        raise ImageError(f"{sample.name}: no instances: give every frame some, or an empty list")
    instances = instances[~instances.alternative]
    own = np.where(instances.tracks > 0, instances.tracks, instances.ids)
    own[own == UNKNOWN] = _INSTEAD_OF_UNKNOWN
    ids = np.concatenate([[0], own])[instances.label_map()]
    if (ignore := sample.ignore) is not None:
        ids[ignore] = UNKNOWN
    return ids


def _open_semantic(folder: Path) -> Opened:
    dataset = read_semantic_maps(folder)
    names = {**dataset.classes, **(find_classes([folder]) or {})}
    return Opened(Dataset(list(dataset), names, name=dataset.name), "semantic")


def _annotated_areas(path: Path) -> dict[str, list[float]]:
    """Image name to the areas its annotations give, for those with a mask, in the order of the file.

    COCO sorts truths into small, medium and large by the area of the polygon, which is not quite that of the mask.
    """
    names: dict[Any, PurePosixPath] = {}
    areas: dict[Any, list[float]] = defaultdict(list)
    for record in walk_records(path):
        if record.section == "images":
            names[record.content["id"]] = PurePosixPath(str(record.content.get("file_name")))
        elif record.section == "annotations" and record.content.get("segmentation"):
            area = record.content.get("area")
            areas[record.content["image_id"]].append(float(area) if isinstance(area, (int, float)) else np.nan)
    found = zip(names, sample_names(list(names.values())), strict=True)
    return {name: areas[identity] for identity, name in found if not np.isnan(areas[identity]).any()}


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip().startswith(b"[")


def _require_folder(path: Path, what: str) -> None:
    if not path.exists():
        raise ValueError(f"{path}: no such {what}: check the path")
    if not path.is_dir():
        raise ValueError(f"{path}: not a {what} that can be read: give a folder or a COCO JSON")


def _some(dataset: Dataset, message: str) -> Dataset:
    if not len(dataset):
        raise ValueError(message)
    return dataset


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _by_stem(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    out: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        out[_stem(sample.name)].append(sample)
    return out
