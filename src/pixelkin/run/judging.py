"""What a trained student is scored on, and its scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pixelkin.data import Dataset
from pixelkin.formats import open_dataset
from pixelkin.formats.files import SourceError
from pixelkin.formats.source import devkit_of
from pixelkin.metrics import evaluate
from pixelkin.metrics.evaluation import Result
from pixelkin.run.folder import RunError, write_json
from pixelkin.run.labelling import RunSummary

FOLDER = "evaluation"
"""Of a student's folder: the run on the images of the truth."""

SCORES = "scores.json"
"""In there: protocol to numbers."""


@dataclass(frozen=True)
class Truth:
    """Images whose instances are known.

    Attributes:
        path: as it was given.
        dataset: the images that have instances, be there none in them; named by the last two parts of the path.
        protocols: to score by: ``coco``, and ``voc`` where it is a VOC devkit.
    """

    path: Path
    dataset: Dataset
    protocols: tuple[str, ...]


@dataclass
class Evaluation:
    """How a student did: the run on the images of the truth, and a result for each protocol."""

    run: RunSummary
    results: dict[str, Result]

    @property
    def scores(self) -> Path:
        """The file with the numbers."""
        return self.run.folder / SCORES


def open_truth(path: Path, taught: Dataset) -> Truth:
    """Open what a student will be scored on, with all that can be wrong with it found before it is trained.

    Args:
        path: anything :func:`~pixelkin.formats.open_dataset` opens in which images have instances.
        taught: what the student learns from.

    Raises:
        SourceError: no truth, none of its images there, or other class ids than those taught.
    """
    found = open_dataset(path)
    dataset = Dataset(list(found.with_label("instances")), found.classes, name="/".join(path.absolute().parts[-2:]))
    if not len(dataset):
        raise SourceError(f"{path}: no image in it has instances: give a COCO JSON with masks or a VOC devkit folder")
    files = [sample.path for sample in dataset if sample.path is not None]
    if not any(file.is_file() for file in files):
        where = f" in {files[0].parent}" if files else ""
        raise SourceError(f"{path}: its images are not there{where}: put them beside it")
    ours, theirs = taught.classes, dataset.classes
    if ours and theirs and not ours.keys() & theirs.keys():
        raise SourceError(
            f"{path}: no class id in common with {taught.name} ({min(theirs)} {theirs[min(theirs)]!r}, ... and"
            f" {min(ours)} {ours[min(ours)]!r}, ...): use the same ids"
        )
    return Truth(path, dataset, ("coco", "voc") if _is_voc(path) else ("coco",))


def judge(run: RunSummary, truth: Truth) -> Evaluation:
    """Score a run on the truth's images by each of its protocols, and keep the numbers in the run.

    Raises:
        RunError: no image of the truth could be predicted.
        ValueError: labels of the truth that cannot be read.
    """
    if not run.done:
        raise RunError(f"no image of {truth.path} could be read, see {run.folder / 'errors.jsonl'}: mend them")
    # a COCO file itself, as it says by which area an object counts as small or large
    source = truth.path if truth.path.suffix.lower() == ".json" else truth.dataset
    made = Evaluation(run, {name: evaluate(run.folder, source, protocol=name) for name in truth.protocols})
    write_json(made.scores, {name: result.to_json() for name, result in made.results.items()})
    return made


def _is_voc(path: Path) -> bool:
    """Whether this is a VOC devkit folder, or an image set of one."""
    folder = path if path.is_dir() else next((p.parent for p in path.absolute().parents if p.name == "ImageSets"), None)
    return folder is not None and devkit_of(folder) is not None
