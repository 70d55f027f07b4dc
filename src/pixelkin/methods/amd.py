"""AMD: objects from raw video, without a label of any kind (Liu, Wu, Yu, Lin, NeurIPS 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.methods.amd_adapt import adapt_clips
from pixelkin.methods.amd_config import AMDConfig
from pixelkin.methods.amd_examples import PairExamples
from pixelkin.methods.amd_flow import build_flow_network, divide
from pixelkin.methods.amd_flow_fit import adapt_flow, fit_flow, given_flow
from pixelkin.methods.amd_regions import PairLoss, build_network, choose, look, objects_of, segment_flow
from pixelkin.methods.base import Field, Fields, Method, MethodConfig, resolve_device
from pixelkin.models.flow_regions import FlowRegions
from pixelkin.training.budget import Budget, Stages
from pixelkin.training.loop import train
from pixelkin.viz import flow_wheel, heatmap, semantic_picture

if TYPE_CHECKING:
    import torch

    from pixelkin.models.amd import AMDNetwork

REGIONS, FLOW = "regions", "flow"

USED_LATER = ("flow", "region", "choose_by", "choose_on", "threshold", "min_area")
"""Settings that the training of the pathways does not depend on."""

LATER = 2.0
"""How much more of a time budget the clips have together than the training before them."""

NO_MODEL = "amd has no model yet: call fit or load first"


class AMD(Method):
    """What moves as one is one.

    As published (``objective=photometric``): a network divides single frames into a few regions; a second one gives
    each region one motion between two frames. The only teacher is how well these motions make either frame out of the
    other. One of the regions comes to be what moves by itself, and is then found in still images too. Which one, the
    fit finds without labels.

    As its successors have it (``objective=flow``): background and object each have one motion in closed form, and
    explain an optical flow that is given. A head on a pretrained backbone learns it from all clips; a copy of it may go
    on learning for each clip, of these or later ones.
    """

    name: ClassVar[str] = "amd"
    summary: ClassVar[str] = "learns from raw video what moves by itself, and finds it in still images"
    supervision: ClassVar[tuple[str, ...]] = ("clip",)
    links: ClassVar[bool] = True
    paper: ClassVar[str] = "The Emergence of Objectness: Learning Zero-Shot Segmentation from Videos, NeurIPS 2021"
    config_class = AMDConfig
    config: AMDConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        # A saved model says what it has: another version may take another backbone for "auto".
        self.config = self.config.model_copy(
            update={"backbone": self.config.backbone_name, "pretrained": self.config.from_weights}
        )
        self.network: AMDNetwork | FlowRegions | None = None

    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Learn the objective from the frames of clips, then choose the object's region; see :meth:`Method.fit`.

        Raises:
            ValueError: no clip, or none with two frames of one size in a row.
        """
        self.check(dataset)
        self.device = resolve_device(device)
        frames = dataset.with_label("clip")
        fitted = self._fit_flow if self.config.objective == "flow" else self._fit_photometric
        fitted(frames, Path(out), budget, seed)
        self.facts["label"] = min(self.classes, default=1)
        self.classes = self.classes or {1: "object"}

    def _fit_photometric(self, frames: Dataset, out: Path, budget: Budget | None, seed: int) -> None:
        """Train both pathways on pairs of frames, then choose the object's region."""
        import torch

        config = self.config
        examples = PairExamples(config, frames)
        stages = Stages(budget, {"pathways": 1.0} | ({"clips": LATER} if config.clip.adapted else {}))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_network(config, pretrained=config.from_weights)
        report = train(
            network,
            examples,
            PairLoss(config),
            config.training.model_copy(update={"seed": seed}),
            out=out / "pathways",
            budget=stages.begin("pathways"),
            device=self.device,
            identity={
                "config": config.model_dump(mode="json", exclude={"training", "clip", *USED_LATER}),
                "name": frames.name,
                "pairs": examples.digest(),
            },
        )
        self.network = network
        choice = choose(network, frames, config)
        heads: dict[str, Any] = {}
        if config.clip.adapted:
            heads = self._adapt_photometric(network, frames, out, stages.begin("clips"), seed, config.clip.adapted)
        self.facts = {
            "heads": heads,
            "clips": len(examples.clips),
            "pairs": sum(len(pairs) for pairs in examples.clips.values()),
            "region": choice.region,
            "agreement": round(choice.agreement, 3),
            "ranks": [round(float(rank), 3) for rank in choice.ranks],
            "training": {"iterations": report.iterations, "seconds": round(report.seconds, 1)},
        }

    def _adapt_photometric(
        self, network: AMDNetwork, frames: Dataset, out: Path, budget: Budget | None, seed: int, steps: int
    ) -> dict[str, Any]:
        return adapt_clips(network, frames, self.config, steps=steps, out=out / "clips", budget=budget, seed=seed)

    def _fit_flow(self, frames: Dataset, out: Path, budget: Budget | None, seed: int) -> None:
        """Prepare the clips, train the common head, and a copy of it for each clip."""
        found = fit_flow(self.config, frames, out=out, budget=budget, device=self.device, seed=seed)
        self.network, self.facts = found.network, found.facts

    def adapt(self, dataset: Dataset, *, out: Path, budget: Budget | None = None, seed: int = 0) -> None:
        """Give clips that it was not fitted on a division of their own, each from a fresh copy of the common one.

        Args:
            dataset: frames of clips.
            out: folder for what is computed once, flow and features.
            budget: most time or most steps a clip.
            seed: of the order of the examples.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
            ValueError: no clip with two frames of one size.
        """
        if self.network is None:
            raise RuntimeError(NO_MODEL)
        frames, out = dataset.with_label("clip"), Path(out)
        if isinstance(self.network, FlowRegions):
            heads = adapt_flow(self.network, self.config, frames, out=out, budget=budget, seed=seed)
        else:
            steps = self.config.clip.adapted_later
            heads = self._adapt_photometric(self.network, frames, out, budget, seed, steps)
        self.facts["heads"] = {**self.facts.get("heads", {}), **heads}

    @property
    def region(self) -> int:
        """The object's region: the one of the settings, else the one that the fit chose.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
        """
        if self.config.region is not None:
            return self.config.region
        if self.config.objective == "flow":
            return 1
        if "region" not in self.facts:
            raise RuntimeError(NO_MODEL)
        return int(self.facts["region"])

    def fields(self, sample: Sample, following: Sample | None = None) -> Fields:
        """``regions``: (regions, h, w) shares; with the next frame of the clip also ``flow``, the segment flow to it.

        Args:
            sample: the image.
            following: the next frame, of the same size; the segment flow is that of the common pathways.

        Raises:
            RuntimeError: the method is neither fitted nor loaded.
        """
        if self.network is None:
            raise RuntimeError(NO_MODEL)
        image = sample.image
        head = self.facts.get("heads", {}).get(sample.clip)
        clip = head["key"] if head else None
        if isinstance(self.network, FlowRegions):
            return self._divided(self.network, sample, image, following, clip)
        shares, _ = look(self.network, image, self.config, clip=clip)
        stride = float(np.sqrt(image.shape[0] * image.shape[1] / (shares.shape[1] * shares.shape[2])))
        maps = {REGIONS: Field(shares, stride)}
        if following is not None:
            maps[FLOW] = Field(segment_flow(self.network, image, following.image, self.config), stride)
        return Fields(sample.size, maps)

    def _divided(
        self,
        network: FlowRegions,
        sample: Sample,
        image: npt.NDArray[np.uint8],
        following: Sample | None,
        clip: str | None,
    ) -> Fields:
        """By the clip's own head, where it has one, and the common one elsewhere; ``flow`` is the given one."""
        shares = divide(network, image, self.config.flow, clip=clip)
        maps = {REGIONS: Field(shares, image.shape[0] / shares.shape[1])}
        if following is not None:
            maps[FLOW] = Field(given_flow(image, following.image, self.config.flow, self.device), maps[REGIONS].stride)
        return Fields(sample.size, maps)

    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Connected components of the object's region."""
        label = int(self.facts.get("label", 1))
        return objects_of(fields[REGIONS], sample, self.region, self.config, label=label)

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """The regions, the share of the object's, and the segment flow where there is one."""
        shares = fields[REGIONS]
        shown = {
            "regions": semantic_picture(shares.argmax(axis=0) + 1),
            f"region {self.region}": heatmap(shares[self.region], image=sample.image, low=0.0, high=1.0),
        }
        if FLOW in fields:
            shown["flow" if self.config.objective == "flow" else "segment flow"] = flow_wheel(fields[FLOW])
        return shown

    def state(self) -> dict[str, torch.Tensor]:
        """The weights of both pathways, or of the backbone and all heads."""
        return {} if self.network is None else dict(self.network.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up saved weights; no pretrained ones are looked for."""
        network: AMDNetwork | FlowRegions
        if self.config.objective == "flow":
            network = build_flow_network(self.config.backbone_name, self.config.flow, pretrained=False)
        else:
            network = build_network(self.config, pretrained=False)
        for head in self.facts.get("heads", {}).values():
            network.add_clip(head["key"])
        network.load_state_dict(tensors)
        self.network = network.to(resolve_device(self.device)).eval()

    def card(self) -> dict[str, str]:
        """What it learned from, which region is the object and how sure that is, and the backbone."""
        facts: dict[str, Any] = self.facts
        lines = {
            "Objective": self.config.objective,
            "Clips": f"{facts.get('clips', 0)}, {facts.get('pairs', 0)} pairs of frames",
            "Backbone": f"{self.config.backbone}, from {'its' if self.config.from_weights else 'random'} weights",
        }
        if self.config.objective == "photometric":
            lines["Object"] = (
                f"region {facts.get('region')} of {self.config.regions},"
                f" chosen without labels; {100 * facts.get('agreement', 0):.0f} % of the frames agree"
            )
        else:
            lines["Heads"] = f"one for all, and {len(facts.get('heads', {}))} for a clip each"
        if self.config.objective == "photometric" and facts.get("heads"):
            lines["Adapted"] = f"{len(facts['heads'])} clips have an appearance pathway of their own"
        if self.network is not None and self.config.from_weights:
            lines["Backbone licence"] = (
                self.network.backbone if isinstance(self.network, FlowRegions) else self.network.appearance.backbone
            ).licence
        if "training" in facts:
            spent = facts["training"]
            lines["Training"] = f"{spent['iterations']} iterations, {spent['seconds']} s on {self.device}"
        return lines
