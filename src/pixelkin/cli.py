"""The command line: each command parses, calls one public function and prints."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import pixelkin
from pixelkin.cli_output import list_failures, print_result, show, show_evaluation, table

DONE, SOME_FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="pixelkin",
    help="Instance masks from the labels you already have.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Protocol(str, Enum):
    """How to score."""

    coco = "coco"
    voc = "voc"
    agnostic = "agnostic"
    semantic = "semantic"
    video = "video"


class Format(str, Enum):
    """What to write."""

    coco = "coco"
    voc = "voc"
    yolo = "yolo"
    label_png = "label-png"


SourceArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder of images, video, COCO JSON, VOC devkit, DAVIS folder or split file.", show_default=False
    ),
]
MethodOption = Annotated[str, typer.Option("--method", help="See `pixelkin methods`; auto suits the labels.")]
Semantic = Annotated[Path | None, typer.Option("--semantic", help="Folder of PNG of class ids; 255 unknown.")]
Tags = Annotated[str | None, typer.Option("--tags", help="CSV `image,class1;class2`, or `xml` for VOC XML.")]
Points = Annotated[Path | None, typer.Option("--points", help="JSON list of {image, x, y, label}.")]
Depth = Annotated[Path | None, typer.Option("--depth", help="Folder of 16-bit PNG or .npy.")]
Classes = Annotated[Path | None, typer.Option("--classes", help="File of lines `id name`.")]
Backbone = Annotated[str | None, typer.Option("--backbone", help="See `pixelkin backbones`.")]
BudgetOption = Annotated[str | None, typer.Option("--budget", help="Most time or steps to fit: 5m, 2000it.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same result.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method.")]
PredictTags = Annotated[
    bool, typer.Option("--predict-tags", help="Images without tags: let the model say what is in them.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N images.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    if version:
        print(f"pixelkin {pixelkin.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def label(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="The run folder to write; an unfinished one continues.")],
    method: MethodOption = "auto",
    semantic: Semantic = None,
    tags: Tags = None,
    points: Points = None,
    depth: Depth = None,
    classes: Classes = None,
    model: Annotated[Path | None, typer.Option("--model", help="A fitted model; without it, fit first.")] = None,
    backbone: Backbone = None,
    budget: BudgetOption = None,
    device: DeviceOption = Device.auto,
    seed: Seed = 0,
    predict_tags: PredictTags = False,
    settings: Settings = None,
    limit: Limit = None,
) -> None:
    """Label every image of SOURCE: instances.json, gallery.html and more in the run folder."""
    summary = pixelkin.label(
        source,
        out=out,
        method=method,
        semantic=semantic,
        tags=tags,
        points=points,
        depth=depth,
        classes=classes,
        model=model,
        backbone=backbone,
        budget=budget,
        device=device.value,
        seed=seed,
        settings=_pairs(settings, predict_tags=predict_tags),
        limit=limit,
        say=print,
    )
    show(summary)
    list_failures(summary.first_failures, summary.failed + summary.skipped, out)
    raise typer.Exit(SOME_FAILED if summary.failed else DONE)


@app.command()
def fit(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="The model folder to write; an unfinished one continues.")],
    method: MethodOption = "auto",
    semantic: Semantic = None,
    tags: Tags = None,
    points: Points = None,
    depth: Depth = None,
    classes: Classes = None,
    backbone: Backbone = None,
    budget: BudgetOption = None,
    device: DeviceOption = Device.auto,
    seed: Seed = 0,
    predict_tags: PredictTags = False,
    settings: Settings = None,
    limit: Limit = None,
) -> None:
    """Fit a method on SOURCE and keep the model."""
    summary = pixelkin.fit(
        source,
        out=out,
        method=method,
        semantic=semantic,
        tags=tags,
        points=points,
        depth=depth,
        classes=classes,
        backbone=backbone,
        budget=budget,
        device=device.value,
        seed=seed,
        settings=_pairs(settings, predict_tags=predict_tags),
        limit=limit,
        say=print,
    )
    print("this model was finished before" if summary.finished_before else f"fitted on {summary.images} images")
    print(f"use it: pixelkin label IMAGES --model {out} --out RUN")
    list_failures(summary.failures, len(summary.failures), out)
    raise typer.Exit(SOME_FAILED if summary.failures else DONE)


@app.command()
def train(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or a COCO JSON.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The student's folder to write; an unfinished one continues.")],
    images: Annotated[Path | None, typer.Option("--images", help="Where the images are, if they moved.")] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Score the student on it: COCO JSON, VOC devkit or image set.")
    ] = None,
    backbone: Backbone = None,
    budget: BudgetOption = None,
    device: DeviceOption = Device.auto,
    seed: Seed = 0,
    settings: Settings = None,
    limit: Limit = None,
) -> None:
    """Train a Mask R-CNN on the instances of RUN."""
    summary = pixelkin.train_student(
        run,
        out=out,
        images=images,
        truth=truth,
        backbone=backbone,
        budget=budget,
        device=device.value,
        seed=seed,
        settings=_pairs(settings),
        limit=limit,
        say=print,
    )
    print("this student was finished before" if summary.finished_before else f"trained on {summary.images} images")
    print(f"use it: pixelkin predict {out} IMAGES --out RUN")
    list_failures(summary.failures, len(summary.failures), out)
    failed = len(summary.failures)
    if summary.evaluation is not None:
        show_evaluation(summary.evaluation)
        failed += summary.evaluation.run.failed
    raise typer.Exit(SOME_FAILED if failed else DONE)


@app.command()
def predict(
    student: Annotated[Path, typer.Argument(help="Folder that train wrote.", show_default=False)],
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", help="The run folder to write; an unfinished one continues.")],
    tags: Tags = None,
    device: DeviceOption = Device.auto,
    settings: Settings = None,
    limit: Limit = None,
) -> None:
    """Find the instances of every image of SOURCE with a student; writes a run as label does."""
    summary = pixelkin.predict(
        student, source, out=out, tags=tags, device=device.value, settings=_pairs(settings), limit=limit, say=print
    )
    show(summary)
    list_failures(summary.first_failures, summary.failed + summary.skipped, out)
    raise typer.Exit(SOME_FAILED if summary.failed else DONE)


@app.command()
def export(
    student: Annotated[Path, typer.Argument(help="Folder that train wrote.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.onnx", help="The file to write.")],
    size: Annotated[str | None, typer.Option("--size", metavar="H,W", help="Height and width of its input.")] = None,
) -> None:
    """Write a student as ONNX, compared with the student on an image."""
    report = pixelkin.export_student(student, out=out, size=None if size is None else _size(size))
    gaps = ", ".join(f"{name} {gap:.2g}" for name, gap in report.differences.items())
    print(f"wrote {report.path}: input 1x3x{report.size[0]}x{report.size[1]}, RGB in 0..1")
    print(f"largest differences from the student over {report.detections} detections: {gaps}")


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Argument(help="Run folder or COCO JSON.", show_default=False)],
    truth: Annotated[
        Path,
        typer.Argument(help="COCO JSON, VOC devkit, folder of label PNG, semantic PNG or DAVIS.", show_default=False),
    ],
    protocol: Annotated[Protocol, typer.Option("--protocol", help="How to score.")] = Protocol.coco,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers there too.")] = None,
    max_detections: Annotated[
        int, typer.Option("--max-detections", min=1, help="Most detections of an image and class that count.")
    ] = 1000,
) -> None:
    """Score PRED against TRUTH."""
    result = pixelkin.evaluate(pred, truth, protocol=protocol.value, max_detections=max_detections)
    print_result(result)
    if json_file is not None:
        import json

        json_file.write_text(json.dumps(result.to_json(), indent=1) + "\n")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Run folder, COCO JSON, VOC devkit or label PNG.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="What to write.")],
    to: Annotated[Format, typer.Option("--to", help="The format.")],
    unmarked: Annotated[
        bool, typer.Option("--unmarked", help="WIS: boxes without a mask too, as regions that do not count.")
    ] = False,
) -> None:
    """Convert instances between formats; says what a format cannot hold."""
    from pixelkin.formats import convert as convert_files

    report = convert_files(source, out, to=to.value, unmarked=unmarked)
    for line in report.lines():
        print(line)
    raise typer.Exit(SOME_FAILED if report.failed else DONE)


@app.command()
def methods() -> None:
    """List the methods, what they learn from, and their licences."""
    rows = [
        (info.name, " or ".join(info.supervision), info.summary, info.paper, info.licence)
        for info in pixelkin.list_methods()
    ]
    table(("method", "learns from", "what it does", "paper", "licence"), rows)


@app.command()
def backbones() -> None:
    """List the backbones and the licences of their weights."""
    rows = [
        (info.name, info.licence, "yes" if info.offline else "downloads", f"{info.parameters / 1e6:.1f} M", info.note)
        for info in pixelkin.list_backbones()
    ]
    table(("backbone", "licence of the weights", "offline", "parameters", "note"), rows)
    print("Any other timm feature extractor, and hf-hub:OWNER/NAME, works too.")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where to put it.")] = Path("demo"),
    method: MethodOption = "siseg",
) -> None:
    """Take real images that touch apart, with no download."""
    from pixelkin.demo import run_demo

    summary = run_demo(out, method=method, say=print)
    show(summary)
    list_failures(summary.first_failures, summary.failed + summary.skipped, summary.folder)
    raise typer.Exit(SOME_FAILED if summary.failed else DONE)


def main() -> None:
    """The ``pixelkin`` program."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code.

    A wrong call is one line on standard error: what, and the mend. ``PIXELKIN_DEBUG=1`` shows the traceback instead.
    """
    command = typer.main.get_command(app)
    try:
        code = int(command.main(arguments, prog_name="pixelkin", standalone_mode=False) or DONE)
        return code if code != INTERRUPTED else _interrupted()  # what newer versions of Typer make of Ctrl-C
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if type(error).__name__ == "Abort":  # and older ones
            return _interrupted()
        line = _one_line(error)
        if line is None or os.environ.get("PIXELKIN_DEBUG"):
            raise
        print(f"error: {line}", file=sys.stderr)
        return WRONG_CALL


def _one_line(error: Exception) -> str | None:
    """The line for an error that the user can mend; None for a fault of ours."""
    if hasattr(error, "format_message"):  # a usage error of Typer
        context = getattr(error, "ctx", None)
        text = f"{error.format_message().rstrip('.')}: see {context.command_path if context else 'pixelkin'} --help"
    elif isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("pixelkin."):
        text = str(error) or type(error).__name__
    else:
        return None
    return " ".join(text.split())


def _interrupted() -> int:
    print("\ninterrupted: the same command continues where it stopped", file=sys.stderr)
    return INTERRUPTED


def _pairs(settings: list[str] | None, *, predict_tags: bool = False) -> dict[str, str]:
    pairs: dict[str, str] = {"predict_tags": "true"} if predict_tags else {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set {text}: write --set key=value")
        pairs[key.strip()] = value.strip()
    return pairs


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--size {text}: write --size height,width, say --size 320,448") from None
    return height, width
