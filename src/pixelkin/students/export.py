"""A student as an ONNX file, compared with the student it came from."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pixelkin.data.synthetic import render_scene
from pixelkin.formats.files import whole
from pixelkin.methods.base import Method
from pixelkin.students.mask_rcnn import MaskRCNNConfig, MaskRCNNStudent
from pixelkin.students.network import MaskRCNN

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OUTPUTS = ("boxes", "scores", "labels", "masks")
TOLERANCE = {"boxes": 0.05, "scores": 1e-3, "masks": 5e-3}
"""The most that may differ: pixels, score, probability."""

DECISIVE = 2e-3
"""Detections whose scores are closer than this may come in another order, and the last ones be others."""


class ExportError(ValueError):
    """A student that cannot be exported; the message is one line with the mend."""


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the file.
        size: (height, width) of its input.
        detections: found by both in the image they were compared on.
        differences: the largest of ``boxes`` (pixels), ``scores`` and ``masks`` (probabilities).
    """

    path: Path
    size: tuple[int, int]
    detections: int
    differences: dict[str, float]


class _Exported(nn.Module):
    """Image (1, 3, H, W) in 0..1 to boxes (D, 4), scores (D,), labels (D,) class ids and masks (D, 28, 28)."""

    def __init__(self, network: MaskRCNN, class_ids: list[int], config: MaskRCNNConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.register_buffer("ids", torch.tensor([0, *class_ids]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        config = self.config
        size = torch.tensor([image.shape[-2], image.shape[-1]])
        found = self.network.detect(
            image[0], size, score=config.score, overlap=config.nms, keep=config.detections, empty_places=True
        )
        ids: Any = self.ids
        return found.boxes, found.scores, ids[found.classes], found.masks


def export_onnx(student: Method, path: Path, size: tuple[int, int] | None = None) -> ExportReport:
    """Write a student as an ONNX file with an input of fixed size, and run it to compare.

    The input ``image`` is (1, 3, H, W) float32 RGB in 0..1. The outputs have as many rows as the student's
    ``detections``, best first: ``boxes`` (x0, y0, x1, y1) in input pixels, ``scores`` (0 marks an empty row),
    ``labels`` (class ids) and ``masks`` (28, 28), probabilities stretched over the box.

    Args:
        student: a trained student.
        path: the file.
        size: height and width; raised to multiples of the coarsest stride. Default: 4:3 at the student's size.

    Raises:
        ExportError: not a student, a package is missing, or the file gives something else than the student.
    """
    if not isinstance(student, MaskRCNNStudent) or student.network is None:
        raise ExportError(f"a model of {student.name} cannot be exported: give a student, see pixelkin train")
    if size is not None and min(size) < 1:
        raise ExportError(f"size {size[0]},{size[1]}: height and width are at least 1")
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"export needs {', '.join(missing)}: pip install 'pixelkin[onnx]'")
    config, network = student.config, student.network.cpu().eval()
    if size is None:
        size = config.short_side, min(config.long_side, round(config.short_side * 4 / 3))
    height, width = (-(-side // network.pyramid.divisor) * network.pyramid.divisor for side in size)
    model = _Exported(network, student.facts["class_ids"], config).eval()
    image = torch.from_numpy(_picture((height, width)))
    with _quiet(), torch.no_grad():
        expected = [output.numpy() for output in model(image)]
        program = torch.onnx.export(
            model, (image,), input_names=["image"], output_names=list(OUTPUTS), dynamo=True, verbose=False
        )
    if program is None:
        raise ExportError("torch made no ONNX program: update torch")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside:
        program.save(beside, external_data=False)
        found = _run(beside, image.numpy())
        count, differences = compare(dict(zip(OUTPUTS, expected, strict=True)), found)
    return ExportReport(path, (height, width), count, differences)


def compare(expected: dict[str, npt.NDArray[Any]], found: dict[str, npt.NDArray[Any]]) -> tuple[int, dict[str, float]]:
    """How many detections there are, and the largest difference of each output.

    Scores are compared in their order; boxes and masks with the nearest of the same class in the other list, as equal
    scores have no order. The last ones, which a hair's breadth may exchange for others, are left out there.

    Raises:
        ExportError: a difference is over the tolerance.
    """
    full = expected["scores"][-1] > 0
    least = expected["scores"][-1] + DECISIVE if full else 0.0
    rows = np.flatnonzero(expected["scores"] > least)
    differences = dict.fromkeys(TOLERANCE, 0.0)
    differences["scores"] = float(np.abs(found["scores"].astype(np.float64) - expected["scores"]).max())
    for row in rows:
        same = np.flatnonzero((found["labels"] == expected["labels"][row]) & (found["scores"] > 0))
        gaps = np.abs(found["boxes"][same] - expected["boxes"][row]).max(axis=1, initial=0)
        if not len(same):
            raise ExportError(f"the exported student misses a detection of score {expected['scores'][row]:.3f}")
        match = same[np.argmin(gaps)]
        for name in ("boxes", "masks"):
            gap = np.abs(found[name][match].astype(np.float64) - expected[name][row]).max()
            differences[name] = float(np.maximum(differences[name], gap))  # which keeps what is not a number
    wrong = [f"{name} {gap:.3g}" for name, gap in differences.items() if not gap <= TOLERANCE[name]]
    if wrong:
        raise ExportError(f"the exported student differs from the student in {', '.join(wrong)}: update torch and onnx")
    return len(rows), differences


def _run(path: Path, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, runtime.run(list(OUTPUTS), {"image": image}), strict=True))


def _picture(size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(1, 3, H, W) in 0..1 with objects in it."""
    image = render_scene(0, size=(max(size[0], 64), max(size[1], 64))).image[: size[0], : size[1]]
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(Path(os.devnull).open("w")):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
