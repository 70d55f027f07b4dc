"""Pixelkin: instance masks from the labels you already have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pixelkin.api import export_student, fit, label, predict, train_student
    from pixelkin.data import Dataset, Instances
    from pixelkin.formats import open_dataset
    from pixelkin.grouping.partition import partition
    from pixelkin.methods.registry import list_methods
    from pixelkin.metrics import evaluate
    from pixelkin.models.zoo import list_backbones
    from pixelkin.refinement import refine

__all__ = [
    "Dataset",
    "Instances",
    "evaluate",
    "export_student",
    "fit",
    "label",
    "list_backbones",
    "list_methods",
    "open_dataset",
    "partition",
    "predict",
    "refine",
    "train_student",
]

_HOMES = {
    "Dataset": "pixelkin.data",
    "Instances": "pixelkin.data",
    "evaluate": "pixelkin.metrics",
    "export_student": "pixelkin.api",
    "fit": "pixelkin.api",
    "label": "pixelkin.api",
    "list_backbones": "pixelkin.models.zoo",
    "list_methods": "pixelkin.methods.registry",
    "open_dataset": "pixelkin.formats",
    "partition": "pixelkin.grouping.partition",
    "predict": "pixelkin.api",
    "refine": "pixelkin.refinement",
    "train_student": "pixelkin.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import pixelkin`` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelkin' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
