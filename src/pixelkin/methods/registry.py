"""What methods there are, known by name without importing any of them."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixelkin.data import Dataset

if TYPE_CHECKING:
    from pixelkin.methods.base import Method


@dataclass(frozen=True)
class MethodInfo:
    """What a table of methods shows; ``target`` is ``module:class``."""

    name: str
    target: str
    summary: str
    supervision: tuple[str, ...]
    paper: str
    licence: str = "Apache-2.0"
    baseline: bool = False
    student: bool = False
    """Whether it learns from the instances of other methods; ``pixelkin train`` and ``predict`` are for these."""


METHODS: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            "siseg",
            "pixelkin.methods.siseg:SISeg",
            "divides semantic masks into instances",
            ("semantic",),
            "Synthetic Instance Segmentation from Semantic Image Segmentation Masks, arXiv 2308.00949",
        ),
        MethodInfo(
            "irnet",
            "pixelkin.methods.irnet:IRNet",
            "finds the objects of image tags",
            ("tags",),
            "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations, arXiv 1904.05044",
        ),
        MethodInfo(
            "bestie",
            "pixelkin.methods.bestie:BESTIE",
            "divides semantic maps, given or its own, by points or image tags",
            ("points", "tags"),
            "Beyond Semantic to Instance Segmentation: Weakly-Supervised Instance Segmentation via Semantic Knowledge"
            " Transfer and Self-Refinement, arXiv 2109.09477",
        ),
        MethodInfo(
            "amd",
            "pixelkin.methods.amd:AMD",
            "learns from raw video what moves by itself, and finds it in still images",
            ("clip",),
            "The Emergence of Objectness: Learning Zero-Shot Segmentation from Videos, NeurIPS 2021",
        ),
        MethodInfo(
            "oal",
            "pixelkin.methods.oal:OAL",
            "learns which pixels are one object from depth and motion, or from masks",
            ("depth", "clip", "semantic", "instances"),
            "after the idea of Object Affinity Learning (TPAMI 2023), our own design",
        ),
        MethodInfo(
            "semantic",
            "pixelkin.methods.semantic:SemanticSegmenter",
            "learns the class of every pixel; fine-tunes any backbone, to label new images or to judge the backbone",
            ("semantic",),
            "The Emergence of Objectness: Learning Zero-Shot Segmentation from Videos, section 4.3, NeurIPS 2021",
        ),
        MethodInfo(
            "components",
            "pixelkin.methods.baselines:Components",
            "connected components of every class; baseline, learns nothing",
            ("semantic",),
            "",
            baseline=True,
        ),
        MethodInfo(
            "watershed",
            "pixelkin.methods.baselines:Watershed",
            "distance-transform watershed of every class; baseline, learns nothing",
            ("semantic",),
            "",
            baseline=True,
        ),
        MethodInfo(
            "mask_rcnn",
            "pixelkin.students.mask_rcnn:MaskRCNNStudent",
            "student: learns from the instances of a run, finds them in new images",
            ("instances",),
            "Mask R-CNN, arXiv 1703.06870",
            student=True,
        ),
    )
}


class UnknownMethodError(ValueError):
    """No such method in this version; the message names those there are."""


def list_methods() -> list[MethodInfo]:
    """Every method of this version, recipes first, baselines last."""
    return list(METHODS.values())


def get_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UnknownMethodError: no such method; names the nearest and those there are.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        mend = f"did you mean {near[0]!r}?" if near else f"this version has {', '.join(METHODS)}"
        raise UnknownMethodError(f"unknown method {name!r}: {mend}")
    module, _, attribute = METHODS[name].target.partition(":")
    method: type[Method] = getattr(importlib.import_module(module), attribute)
    return method


def choose_method(dataset: Dataset) -> tuple[str, str]:
    """The method for the labels that are there, and why, as a clause.

    Raises:
        ValueError: no method of this version learns from these labels.
    """
    kinds = {kind for info in METHODS.values() for kind in info.supervision} - {"instances"}  # asked for by name
    # Measured best, first; that frames belong to clips is no label, so it comes last.
    for kind in sorted(kinds, key=lambda kind: (kind != "points", kind != "semantic", kind == "clip", kind)):
        for info in (info for info in METHODS.values() if kind in info.supervision):
            count = sum(sample.has(kind) for sample in dataset)
            if count and not info.baseline and not info.student:
                return info.name, f"{count} of {len(dataset)} images have {kind} labels, which it learns from"
    from pixelkin.methods.base import MENDS

    wanted = sorted(kinds)
    raise ValueError(
        f"no method of this version learns from what is here: give {' or '.join(MENDS[kind] for kind in wanted)}"
    )
