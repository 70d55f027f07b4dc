"""The method contract: config, fields, and the class every recipe is."""

from __future__ import annotations

import difflib
import json
import platform
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pydantic

import pixelkin
from pixelkin.data import Dataset, Instances, Sample
from pixelkin.methods.registry import METHODS, get_method
from pixelkin.models.zoo import plain_name

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from pixelkin.training.budget import Budget

MENDS = {
    "semantic": "semantic masks (--semantic DIR)",
    "tags": "image tags (--tags FILE)",
    "points": "points (--points FILE)",
    "depth": "depth maps (--depth DIR)",
    "instances": "instances (a finished run or a COCO JSON)",
    "clip": "video frames (a video file, or a folder of clips as SOURCE)",
}


class ConfigError(ValueError):
    """A setting that does not exist or has no such value; the message is one line with the mend."""


class MethodConfig(pydantic.BaseModel):
    """Base of every method's settings: strict, so that a mistyped key or a value of the wrong type fails at once."""

    AFTER_FITTING: ClassVar[frozenset[str]] = frozenset()
    """Settings of a student that may still be changed when it predicts."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)

    @property
    def adapts(self) -> bool:
        """Whether a finished model is to be adapted to what it labels, by :meth:`Method.adapt`."""
        return False

    @classmethod
    def from_settings(cls, settings: Mapping[str, str], *, base: MethodConfig | None = None) -> Self:
        """Build from text, as ``--set key=value`` gives it; keys left out stay as in ``base`` or as by default.

        A nested config is reached with a dot (``training.batch_size=4``), a tuple is written ``a,b,c``, None ``none``.

        Raises:
            ConfigError: an unknown key (names the nearest valid one) or a value that does not parse.
        """
        nested: dict[str, Any] = {}
        for key, text in settings.items():
            *path, last = key.split(".")
            model: type[pydantic.BaseModel] = cls
            place = nested
            for part in path:
                inner = _field_type(model, part, key)
                if not (isinstance(inner, type) and issubclass(inner, pydantic.BaseModel)):
                    raise ConfigError(f"{key}: {part!r} has no settings inside: remove what follows the dot")
                model, place = inner, place.setdefault(part, {})
            place[last] = _parse(_field_type(model, last, key), text)
        try:
            return cls.model_validate(_merge((base or cls()).model_dump(), nested), strict=False)
        except pydantic.ValidationError as error:
            raise ConfigError(_one_line(error)) from None


def _field_type(model: type[pydantic.BaseModel], name: str, key: str) -> Any:
    if name not in model.model_fields:
        near = difflib.get_close_matches(name, model.model_fields, n=1, cutoff=0.4)
        known = ", ".join(model.model_fields) or "none"
        raise ConfigError(
            f"unknown setting {key!r}: " + (f"did you mean {near[0]!r}?" if near else f"known are {known}")
        )
    return model.model_fields[name].annotation


def _parse(annotation: Any, text: str) -> Any:
    """The text as pydantic reads it: lists split at commas, ``none`` as None where allowed, a choice as what it is."""
    options = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()
    if text.lower() == "none" and type(None) in options:
        return None
    if any(typing.get_origin(option) in (tuple, list) for option in (annotation, *options)):
        return [part.strip() for part in text.split(",") if part.strip()]
    choices = [c for o in (annotation, *options) if typing.get_origin(o) is typing.Literal for c in typing.get_args(o)]
    return next((choice for choice in choices if str(choice) == text), text)  # numbers among them


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Changes laid over the defaults, level by level: a nested default keeps what is not changed."""
    return base | {
        key: _merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in changes.items()
    }


def _one_line(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"setting {where}={first['input']}: {first['msg'][:1].lower()}{first['msg'][1:]}"


@dataclass(frozen=True)
class Field:
    """One dense tensor of one image, or of a window of it.

    Vector fields have the channel order (dy, dx) in units of field pixels.

    Attributes:
        array: (C, h, w) or (h, w).
        stride: image pixels that a field pixel covers on each axis.
        origin: (y, x) of the upper left corner in image pixels; may lie outside the image.
    """

    array: npt.NDArray[Any]
    stride: float = 1
    origin: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Fields:
    """The named dense tensors of one image of ``size`` (height, width), e.g. displacement, boundary, semantic."""

    size: tuple[int, int]
    maps: Mapping[str, Field] = field(default_factory=dict)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The array of a field."""
        return self.maps[name].array

    def __contains__(self, name: str) -> bool:
        return name in self.maps

    def stride(self, name: str) -> float:
        """Image pixels per field pixel."""
        return self.maps[name].stride


class Method(ABC):
    """A recipe from images and weak labels to instances.

    ``fields`` and ``group`` see one image at a time and must not depend on the images before it: a run that is killed
    and continued gives the same labels as one that was not.

    Attributes:
        config: the settings.
        classes: class id to name, from the dataset it was fitted on.
        facts: what ``fit`` found out that labelling needs (JSON values), e.g. the radius of its pairs. Saved.
        trained_on: name and number of images of the dataset, and which labels it had. Saved.
        device: where the model lives: ``auto``, ``cpu`` or ``cuda``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    supervision: ClassVar[tuple[str, ...]]
    """Kinds of labels it can learn from; one of them is enough."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Kinds of labels an image must have one of to be labelled; images without are skipped."""
    learns: ClassVar[bool] = True
    """Whether ``fit`` looks at the images."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Further kinds of labels ``fit`` looks at, where an image has them."""
    names_classes: ClassVar[bool] = False
    """Whether its model knows classes by their ids, so that the labels of an image must mean the same by them."""
    links: ClassVar[bool] = False
    """Whether a run gives the instances of clips their tracks, along the optical flow: for methods that set none."""
    paper: ClassVar[str] = ""
    config_class: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = self.config_class() if config is None else config
        self.classes: dict[int, str] = {}
        self.facts: dict[str, Any] = {}
        self.trained_on: dict[str, Any] = {}
        self.device = "auto"

    @abstractmethod
    def fit(
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, device: str = "auto", seed: int = 0
    ) -> None:
        """Learn from the dataset. Resumes from what it left in ``out`` when it was interrupted.

        Args:
            dataset: images with at least one of the kinds of labels in ``supervision``.
            out: folder for checkpoints and logs.
            budget: most time or iterations to spend; the method's own default otherwise.
            device: ``auto``, ``cpu`` or ``cuda``.
            seed: same seed, same result on one device.

        Raises:
            ValueError: the labels it needs are missing; call :meth:`check` first thing.
        """

    def adapt(  # noqa: B027
        self, dataset: Dataset, *, out: Path, budget: Budget | None = None, seed: int = 0
    ) -> None:
        """Adapt the finished model to what it is going to label, where the settings ask for it (``config.adapts``).

        Args:
            dataset: what will be labelled; its images can be read.
            out: folder for checkpoints and what is computed once.
            budget: most time or iterations to spend.
            seed: same seed, same result on one device.
        """

    @abstractmethod
    def fields(self, sample: Sample) -> Fields:
        """The dense fields of one image."""

    @abstractmethod
    def group(self, fields: Fields, sample: Sample) -> Instances:
        """Fields to instances, with scores and sources; no learning here."""

    def semantic(self, sample: Sample, fields: Fields) -> npt.NDArray[np.uint8] | None:
        """(H, W) class ids, 255 unknown, for methods that make a semantic map; written to the run's ``semantic/``."""
        return None

    def pictures(self, fields: Fields, sample: Sample) -> dict[str, npt.NDArray[np.uint8]]:
        """Named (h, w, 3) uint8 RGB pictures of the fields for the gallery's detail view."""
        return {}

    def label(self, dataset: Dataset) -> Iterator[tuple[Sample, Instances | Exception]]:
        """Label the images one by one, in order. A bad image yields its exception and the next one follows."""
        for sample in dataset:
            try:
                yield sample, self.group(self.fields(sample), sample)
            except Exception as error:  # one bad image must not end the run
                yield sample, error

    def check(self, dataset: Dataset) -> None:
        """Note what the dataset is (``classes``, ``trained_on``) and that it has labels to learn from.

        Raises:
            ValueError: no image has any of the labels in ``supervision``; the line says which flag gives them.
        """
        counts = {kind: sum(sample.has(kind) for sample in dataset) for kind in self.supervision}
        if self.supervision and not any(counts.values()):
            needs = " or ".join(MENDS.get(kind, kind) for kind in self.supervision)
            raise ValueError(f"{self.name} learns from labels that are not here: give {needs}")
        self.classes = dict(dataset.classes)
        self.trained_on = {"name": dataset.name, "images": len(dataset), "labels": counts}

    def state(self) -> dict[str, torch.Tensor]:
        """The weights to save; empty for a method without any."""
        return {}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:  # noqa: B027
        """Take up weights that :meth:`state` gave, on ``self.device``; config, classes and facts are already set."""

    def card(self) -> dict[str, str]:
        """More lines of the model card, e.g. the backbone and its licence."""
        return {}

    def save(self, folder: Path | str) -> None:
        """Write ``config.json``, ``model.safetensors`` and ``README.md`` (the model card).

        ``config.json`` comes last, so a folder that has one is complete.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.state()
        if tensors:
            from safetensors.torch import save

            data = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
        else:
            from safetensors.numpy import save as save_empty

            data = save_empty({})
        _replace(folder / "model.safetensors", data)
        _replace(folder / "README.md", self._model_card().encode())
        config = self.config.model_dump(mode="json")
        if "backbone" in config:  # whichever folder its weights came from, from now on they are in this one
            config["backbone"] = plain_name(config["backbone"])
        saved = {
            "method": self.name,
            "pixelkin": pixelkin.__version__,
            "config": config,
            "classes": {str(i): name for i, name in self.classes.items()},
            "facts": self.facts,
            "trained_on": self.trained_on,
        }
        _replace(folder / "config.json", (json.dumps(saved, indent=1) + "\n").encode())

    @staticmethod
    def load(folder: Path | str, *, device: str = "auto") -> Method:
        """The method saved in a folder, whichever it is.

        Raises:
            ValueError: no model there, or one that this version cannot read.
        """
        folder = Path(folder)
        try:
            saved = json.loads((folder / "config.json").read_text())
            kind = get_method(saved["method"])
            method = kind(kind.config_class.model_validate_json(json.dumps(saved["config"])))
            method.classes = {int(i): str(name) for i, name in saved["classes"].items()}
            method.facts, method.trained_on, method.device = saved["facts"], saved["trained_on"], device
        except FileNotFoundError:
            raise ValueError(f"{folder}: no model here (no config.json): give a folder that fit wrote") from None
        except pydantic.ValidationError as error:
            raise ValueError(f"{folder}: saved by another version ({_one_line(error)}): fit again") from None
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / 'config.json'}: not a model's config ({error}): fit again") from None
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise ValueError(f"{folder}: model.safetensors is missing: copy it beside config.json or fit again")
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(weights, framework="numpy") as file:
                has_weights = bool(list(file.keys()))
            if has_weights:
                from safetensors.torch import load_file

                method.restore(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{weights}: these weights do not fit the config ({reason}): fit again") from None
        return method

    def _model_card(self) -> str:
        labels = ", ".join(f"{kind} ({count})" for kind, count in self.trained_on.get("labels", {}).items()) or "none"
        lines = {
            "Method": f"{self.name}: {self.summary}",
            "Paper": self.paper,
            "Trained on": f"{self.trained_on.get('name') or 'unnamed data'}, {self.trained_on.get('images', 0)} images",
            "Supervision": labels,
            "Classes": ", ".join(f"{i} {name}" for i, name in self.classes.items()) or "none named",
            **self.card(),
            "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        }
        table = "\n".join(f"- **{key}**: {value}" for key, value in lines.items() if value)
        info = METHODS.get(self.name)
        licence = info.licence if info else "Apache-2.0"
        use = f"`pixelkin label IMAGES --method {self.name} --model FOLDER --out RUN`"
        if info and info.student:
            use = "`pixelkin predict FOLDER IMAGES --out RUN`"
        return (
            f"# {self.name} model\n\n{table}\n\nCode: {licence}. Weights follow the terms of the data.\n\nUse: {use}\n"
        )


def resolve_device(device: str) -> str:
    """``cuda`` or ``cpu`` for what was asked, where ``auto`` takes CUDA if it is there.

    Raises:
        ValueError: another name, or ``cuda`` without such a device.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}: give auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device here: give --device cpu, or auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def versions() -> dict[str, str]:
    """Versions of what results depend on, without importing any of it."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"pixelkin": pixelkin.__version__, "python": platform.python_version()}
    for package in ("torch", "timm", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _replace(path: Path, data: bytes) -> None:
    """Write beside and rename, so that a kill leaves the old file or the new one."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(data)
    beside.replace(path)
