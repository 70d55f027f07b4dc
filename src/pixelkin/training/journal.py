"""What a training tells: a JSON line every so many steps, and a progress bar where someone watches."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def someone_watches() -> bool:
    """Whether a progress bar belongs on stderr: it is a terminal, and PIXELKIN_QUIET is not set."""
    return sys.stderr.isatty() and not os.environ.get("PIXELKIN_QUIET")


class Journal:
    """Log and progress of one training; a context manager.

    Args:
        path: the log, one JSON object a line, appended to. None in processes that do not write.
        step: steps done so far. Lines of later steps, left by a run that was killed, are dropped: they come again.
    """

    def __init__(self, path: Path | None, step: int = 0) -> None:
        self._path = path
        self._progress: Progress | None = None
        if path is not None:
            _keep_until(path, step)
        if path is not None and someone_watches():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[losses]}"),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task("training", total=1.0, losses="")

    def __enter__(self) -> Journal:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, progress: float) -> None:
        """Show the share that is done, 0 to 1."""
        if self._progress is not None:
            self._progress.update(self._task, completed=progress)

    def write(self, *, step: int, losses: Mapping[str, float], **values: Any) -> None:
        """Append a line."""
        if self._progress is not None:
            self._progress.update(self._task, losses="  ".join(f"{name} {value:.4g}" for name, value in losses.items()))
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "losses": dict(losses), **values}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log; a line cut short by a kill is left out."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [json.dumps(entry) + "\n" for entry in read_log(path) if entry["step"] <= step]
    beside = path.with_name(f".{path.name}.writing")
    beside.write_text("".join(kept), encoding="utf-8")
    os.replace(beside, path)
