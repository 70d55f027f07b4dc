"""The baselines as methods: what a semantic map gives without learning anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pydantic

from pixelkin.data import Dataset, ImageError, Instances, Sample
from pixelkin.grouping.components import connected_components, marker_distance, watershed
from pixelkin.methods.base import Field, Fields, Method, MethodConfig
from pixelkin.methods.registry import METHODS

if TYPE_CHECKING:
    from pixelkin.training.budget import Budget

COUNT_PIXELS = 1_000_000
"""Larger semantic maps are thinned out before the watershed counts in them."""


class ComponentsConfig(MethodConfig):
    """Settings of :class:`Components`."""

    min_area: int = pydantic.Field(default=16, ge=0)
    """Smaller components are dropped, in pixels."""
    connectivity: int = 8
    """4 or 8 neighbours."""


class _Baseline(Method):
    """A semantic map is its only field, and fitting is little or nothing."""

    supervision: ClassVar[tuple[str, ...]] = ("semantic",)
    reads: ClassVar[tuple[str, ...]] = ("semantic",)
    learns: ClassVar[bool] = False

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Only note the classes."""
        self.check(dataset)

    def fields(self, sample: Sample) -> Fields:
        """The semantic map as it was given."""
        semantic = sample.semantic
        if semantic is None:
            raise ImageError(f"{sample.name}: no semantic mask: give one or leave the image out")
        return Fields(sample.size, {"semantic": Field(semantic)})


class Components(_Baseline):
    """Every 8-connected component of a class is one instance."""

    name: ClassVar[str] = "components"
    summary: ClassVar[str] = METHODS["components"].summary
    config_class: ClassVar[type[MethodConfig]] = ComponentsConfig
    config: ComponentsConfig

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Scores are the square roots of the areas."""
        settings = self.config
        return connected_components(fields["semantic"], min_area=settings.min_area, connectivity=settings.connectivity)


class WatershedConfig(MethodConfig):
    """Settings of :class:`Watershed`."""

    min_distance: int | None = pydantic.Field(default=None, ge=1)
    """Markers are at least so many pixels apart; none: from the size of the objects of the whole set."""
    sigma: float = pydantic.Field(default=1.0, ge=0)
    """Smoothing of the distance transform, in pixels."""
    min_area: int = pydantic.Field(default=16, ge=0)
    """Smaller pieces are dropped, in pixels."""


class Watershed(_Baseline):
    """Every class is cut at the narrows of its shape."""

    name: ClassVar[str] = "watershed"
    summary: ClassVar[str] = METHODS["watershed"].summary
    learns: ClassVar[bool] = True
    config_class: ClassVar[type[MethodConfig]] = WatershedConfig
    config: WatershedConfig

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Measure the objects of the set, unless the distance is given."""
        self.check(dataset)
        distance = self.config.min_distance
        if distance is None:
            maps = (sample.semantic for sample in dataset.with_label("semantic"))
            distance = marker_distance(semantic for semantic in maps if semantic is not None)
        self.facts = {"min_distance": distance}

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Scores are the square roots of the areas."""
        settings = self.config
        return watershed(
            fields["semantic"], self.facts.get("min_distance"), sigma=settings.sigma, min_area=settings.min_area
        )


def count_baselines(semantic: npt.NDArray[np.integer]) -> dict[str, int]:
    """How many instances the baselines find in an (H, W) semantic map; for the slow one, a large map is thinned out."""
    step = int(np.ceil(np.sqrt(max(semantic.size, 1) / COUNT_PIXELS)))
    thin = watershed(semantic[::step, ::step], min_area=max(1, round(16 / step**2)))
    return {"components": len(connected_components(semantic)), "watershed": len(thin)}
