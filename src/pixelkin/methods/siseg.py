"""SISeg: from semantic masks to instances (arXiv 2308.00949), as published and beyond."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.methods.base import Fields, Method, MethodConfig, resolve_device
from pixelkin.methods.recipe import Recipe
from pixelkin.methods.siseg_crowding import CrowdingConfig, CrowdingRecipe
from pixelkin.methods.siseg_pairs import PairConfig, PairRecipe
from pixelkin.training.budget import Budget

if TYPE_CHECKING:
    import torch
    from torch import nn


class SISegConfig(MethodConfig):
    """Settings of :class:`SISeg`."""

    mode: Literal["crowding", "components", "paper"] = "crowding"
    """``crowding``: learn from touching objects made of solitary ones; ``components``: from pairs of pixels that share
    a connected component; ``paper``: from pairs that share a class, as published."""
    backbone: str = "efficientnet_lite0"
    """Any backbone that ``pixelkin backbones`` or timm knows."""
    crowding: CrowdingConfig = CrowdingConfig()
    pairs: PairConfig = PairConfig()


class SISeg(Method):
    """Divide the components of a semantic map into objects.

    A network learns a displacement to the middle of the object and a boundary between objects from the semantic maps
    alone; the maps themselves are taken as given, so every instance lies inside its class's mask.
    """

    name: ClassVar[str] = "siseg"
    summary: ClassVar[str] = "divides semantic masks into instances"
    supervision: ClassVar[tuple[str, ...]] = ("semantic",)
    reads: ClassVar[tuple[str, ...]] = ("semantic",)
    paper: ClassVar[str] = "Synthetic Instance Segmentation from Semantic Image Segmentation Masks, arXiv 2308.00949"
    config_class = SISegConfig
    config: SISegConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self.model: nn.Module | None = None

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Measure the objects, train the fields; see :meth:`Method.fit`.

        Raises:
            ValueError: no semantic masks, or none that this mode can learn from.
        """
        import torch

        from pixelkin.training.loop import train

        self.check(dataset)
        dataset = dataset.with_label("semantic")
        self.device = resolve_device(device)
        recipe = _make_recipe(self.config, pretrained=True)
        facts = recipe.measure(dataset)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = recipe.build(facts)
        part = "crowding" if self.config.mode == "crowding" else "pairs"
        settings = self.config.crowding if part == "crowding" else self.config.pairs
        report = train(
            model,
            recipe.example(dataset, facts),
            recipe.loss,
            settings.training.model_copy(update={"seed": seed}),
            out=Path(out),
            budget=budget,
            device=self.device,
            groups=recipe.groups(model, facts),
            identity={
                # but for what the loop looks at itself
                "config": self.config.model_dump(mode="json", exclude={part: {"training"}}),
                "images": len(dataset),
                "name": dataset.name,
            },
        )
        recipe.finish(model, dataset, facts)
        facts["mode"] = self.config.mode
        facts["training"] = {"iterations": report.iterations, "seconds": round(report.seconds, 1)}
        self.model, self.facts = model, facts

    def fields(self, sample: Sample) -> Fields:
        """Displacement and boundary of one image.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
            ValueError: the mode was changed since.
        """
        if self.model is None:
            raise RuntimeError("siseg has no model yet: call fit or load first")
        fitted = self.facts.get("mode", self.config.mode)
        if fitted != self.config.mode:
            raise ValueError(f"this model was fitted with mode={fitted}: leave mode out, or fit again")
        return self._recipe.fields(self.model, sample, self.facts)

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """The parts of the semantic map's components."""
        return self._recipe.group(fields, sample, self.facts)

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """Flow wheel of the displacement, and the boundary."""
        return self._recipe.pictures(fields, sample)

    def state(self) -> dict[str, torch.Tensor]:
        """The network's weights."""
        return {} if self.model is None else dict(self.model.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        model = self._recipe.build(self.facts)
        model.load_state_dict(tensors)
        self.model = model.to(resolve_device(self.device)).eval()

    def card(self) -> dict[str, str]:
        """Mode, backbone and its licence, and the length of the training."""
        lines = {"Mode": self.config.mode, "Backbone": self.config.backbone}
        licence: Any = getattr(getattr(self.model, "backbone", None), "licence", None)
        if licence:
            lines["Backbone licence"] = str(licence)
        training = self.facts.get("training")
        if training:
            lines["Training"] = f"{training['iterations']} iterations, {training['seconds']} s on {self.device}"
        return lines

    @property
    def _recipe(self) -> Recipe:
        """What to do, by the settings of this moment: those of a loaded model may be changed before labelling."""
        return _make_recipe(self.config, pretrained=False)


@functools.lru_cache(maxsize=4)
def _make_recipe(config: SISegConfig, *, pretrained: bool) -> Recipe:
    if config.mode == "crowding":
        return CrowdingRecipe(config.crowding, config.backbone, pretrained=pretrained)
    return PairRecipe(config.pairs, config.mode, config.backbone, pretrained=pretrained)
