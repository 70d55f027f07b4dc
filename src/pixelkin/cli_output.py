"""What the command line prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelkin.run.images import Failure
    from pixelkin.run.judging import Evaluation
    from pixelkin.run.labelling import RunSummary


def show(summary: RunSummary) -> None:
    """What a run made."""
    counts = f"{summary.done} of {summary.images} images done"
    counts += f" ({summary.continued} before)" if summary.continued else ""
    counts += f", {summary.failed} failed" if summary.failed else ""
    counts += f", {summary.skipped} skipped" if summary.skipped else ""
    print(counts)
    per_class = [f"{count} {summary.classes[i]}" for i, count in sorted(summary.per_class.items(), key=lambda c: -c[1])]
    more = f" and {len(per_class) - 8} more" if len(per_class) > 8 else ""
    print(f"{sum(summary.per_class.values())} instances" + (f": {', '.join(per_class[:8])}{more}" if per_class else ""))
    if summary.alternatives:
        print(f"and {summary.alternatives} alternatives where their division is in doubt, with scores under 0.5")
    if summary.baselines:
        beside = ", ".join(f"{count} by {name}" for name, count in summary.baselines.items())
        print(f"baselines on the same semantic masks: {beside}")
    print(f"look: {summary.folder / 'gallery.html'}")
    if summary.films:
        print(f"watch: {summary.folder / 'overlays'} ({summary.films} mp4)")
    print(f"use:  {summary.folder / 'instances.json'} (COCO)")


def list_failures(failures: list[Failure], count: int, folder: Path) -> None:
    """What failed, on standard error; the first of them, and where all are."""
    if not count:
        return
    for failure in failures:
        named = failure.reason if failure.name in failure.reason else f"{failure.name}: {failure.reason}"
        print(f"{failure.stage}: {named}", file=sys.stderr)
    rest = f"{count - len(failures)} more; " if count > len(failures) else ""
    print(f"{rest}all of them: {folder / 'errors.jsonl'}", file=sys.stderr)


def print_result(result: Any) -> None:
    """The numbers of an evaluation and their protocol."""
    table(result.columns, result.rows)
    print(result.protocol_line)


def show_evaluation(evaluation: Evaluation) -> None:
    """How a student did on a truth, by each protocol."""
    run = evaluation.run
    print()
    for result in evaluation.results.values():
        print_result(result)
    print(f"kept: {evaluation.scores}")
    print(f"look: {run.folder / 'gallery.html'}")
    list_failures(run.first_failures, run.failed + run.skipped, run.folder)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under a heading."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width: keep every row on one line
    console.print(table)
