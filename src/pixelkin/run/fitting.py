"""Which method with which settings, and its model: loaded, found finished, or fitted now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelkin.data import Dataset
from pixelkin.methods.base import ConfigError, Method, MethodConfig, resolve_device
from pixelkin.methods.registry import METHODS, choose_method, get_method
from pixelkin.run.folder import relative
from pixelkin.run.images import Failure, survey
from pixelkin.training.progress import track

if TYPE_CHECKING:
    from pixelkin.training.budget import Budget

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What was asked for, resolved.

    Attributes:
        name: the method's.
        why: the reason, where it was chosen here.
        config: its settings.
        model: folder of a fitted model to use, or None to fit.
        budget: what fitting may cost, as text.
        device: ``cpu`` or ``cuda``.
        seed: of everything random.
        request: all of it and the inputs in JSON values, paths relative to the output folder: equal for equal calls.
    """

    name: str
    why: str
    config: MethodConfig
    model: Path | None
    budget: str | None
    device: str
    seed: int
    request: dict[str, Any]


def resolve(
    dataset: Dataset,
    out: Path,
    *,
    method: str = "auto",
    inputs: Mapping[str, Path | str | int | None],
    settings: Mapping[str, str] | None = None,
    model: Path | str | None = None,
    backbone: str | None = None,
    budget: str | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Recipe:
    """Resolve a call.

    Args:
        dataset: the opened source.
        out: the folder to write.
        method: a name, or ``auto`` for the one that suits the labels.
        inputs: the source and its flags, for the record; paths become relative to ``out``.
        settings: config keys and their values as text.
        model: folder of a fitted model.
        backbone: short for the setting of that name.
        budget: e.g. ``5m`` or ``2000it``.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of everything random.

    Raises:
        ValueError: something in the call is wrong; one line with the mend.
    """
    if budget is not None:
        from pixelkin.training.budget import Budget

        Budget.parse(budget)
    settings, why, base = dict(settings or {}), "", None
    if model is not None:
        loaded = Method.load(model, device="cpu")
        if method not in ("auto", loaded.name):
            raise ValueError(f"{model} is a model of {loaded.name}, not {method}: leave --method out")
        if backbone is not None:
            raise ValueError("--backbone and --model exclude each other: the model has its backbone")
        _check_classes(loaded, dataset)
        method, base, why = loaded.name, loaded.config, f"the model {Path(model).name} is one"
    elif method == "auto":
        method, why = choose_method(dataset)
    kind = get_method(method)
    if backbone is not None:
        if "backbone" not in kind.config_class.model_fields:
            raise ConfigError(f"{method} has no backbone: leave --backbone out")
        settings["backbone"] = backbone
    if "predict_tags" in settings and "predict_tags" not in kind.config_class.model_fields:
        raise ConfigError(f"{method} predicts no tags: leave --predict-tags out")
    config = kind.config_class.from_settings(settings, base=base)
    request: dict[str, Any] = {
        "method": method,
        "seed": seed,
        **{key: relative(value, out) if isinstance(value, Path) else value for key, value in inputs.items()},
        "model": relative(model, out),
        "budget": budget,
        "config": config.model_dump(mode="json"),
    }
    used = resolve_device(device) if not METHODS[method].baseline else "cpu"
    return Recipe(method, why, config, None if model is None else Path(model), budget, used, seed, request)


def _check_classes(method: Method, dataset: Dataset) -> None:
    """Raises ValueError where an id means one class in the dataset and another in a model that goes by ids."""
    if not method.names_classes:
        return
    for i, name in dataset.classes.items():
        known = method.classes.get(i, name)
        if known.casefold() != name.casefold() and f"class {i}" not in (known, name):
            raise ValueError(f"class {i} is {name!r} here but {known!r} in the model: give its ids with --classes FILE")


@dataclass(frozen=True)
class Fitted:
    """A method ready to label; None where no image could be read to learn from."""

    method: Method | None
    failures: dict[str, Failure] = field(default_factory=dict)
    """Images that could not be read, known only where this call did the fitting."""
    now: bool = False
    """Whether this call did the fitting."""
    images: int = 0
    """How many images it learned from, where it did."""


def fit_into(folder: Path, dataset: Dataset, recipe: Recipe, *, say: Say) -> Fitted:
    """The recipe's model: from ``recipe.model``, from ``folder`` where it is finished, or fitted now and saved there.

    One from ``recipe.model`` that is adapted first is kept in ``folder`` too.

    Raises:
        ValueError: the labels the method needs are missing.
    """
    finished = (folder / "config.json").is_file()
    if recipe.model is not None:
        kept = finished and recipe.config.adapts
        method = Method.load(folder if kept else recipe.model, device=recipe.device)
        method.config = recipe.config
        return Fitted(method) if kept or not recipe.config.adapts else _adapted(method, folder, dataset, recipe, say)
    if finished:
        return Fitted(Method.load(folder, device=recipe.device))
    kind = get_method(recipe.name)
    method = kind(recipe.config)
    method.device = recipe.device
    method.check(dataset)
    failures: dict[str, Failure] = {}
    usable = dataset
    if kind.learns:
        read = survey(dataset, track(dataset, "read"), (*kind.supervision, *kind.uses))
        usable, failures = read.usable, read.failures
        if not any(sample.has(label) for sample in usable for label in kind.supervision):
            return Fitted(None, failures)
        say(f"fitting {recipe.name} on {len(usable)} images" + (f", at most {recipe.budget}" if recipe.budget else ""))
    method.fit(usable, out=folder / "training", budget=_budget(recipe), device=recipe.device, seed=recipe.seed)
    method.save(folder)
    return Fitted(method, failures, now=True, images=len(usable))


def adapts(model: Path | str, settings: Mapping[str, str] | None) -> bool:
    """Whether a finished model is to be adapted to what it labels.

    Raises:
        ValueError: no model there, or a wrong setting.
    """
    loaded = Method.load(model, device="cpu")
    return loaded.config_class.from_settings(settings or {}, base=loaded.config).adapts


def _adapted(method: Method, folder: Path, dataset: Dataset, recipe: Recipe, say: Say) -> Fitted:
    """The finished model adapted to the dataset, and kept, so that a run that goes on has the same one."""
    read = survey(dataset, track(dataset, "read"), method.supervision)
    most = f", at most {recipe.budget}" if recipe.budget else ""
    say(f"adapting {recipe.name} to {len(read.usable)} images{most}")
    method.adapt(read.usable, out=folder / "training", budget=_budget(recipe), seed=recipe.seed)
    method.save(folder)
    return Fitted(method, read.failures, now=True, images=len(read.usable))


def _budget(recipe: Recipe) -> Budget | None:
    if recipe.budget is None:
        return None
    from pixelkin.training.budget import Budget

    return Budget.parse(recipe.budget)
