"""A folder that one process at a time writes, with a record of how it was made."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pixelkin.training.config import WITHOUT_EFFECT


class RunError(ValueError):
    """The folder cannot be used for this call; the message is one line with the mend."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the operating system frees it when the process ends, however it ends.

    Raises:
        RunError: another living process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise RunError(f"cannot write to {folder} ({error.strerror}): give another --out") from None
    with file:
        if not _take(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise RunError(f"process {holder} is writing {folder}: wait for it or give another --out")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[str]) -> bool:
        file.seek(1 << 30)  # a byte far behind the text, as Windows locks forbid reading too
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _take(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write beside and rename."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(path)


def relative(path: Path | str | None, folder: Path) -> str | None:
    """A path as seen from a folder, so that both can move together and no record names a machine's folders."""
    if path is None:
        return None
    try:
        return Path(os.path.relpath(Path(path).resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return Path(path).resolve().as_posix()


UNIMPORTANT = tuple(f".training.{key}" for key in sorted(WITHOUT_EFFECT))
"""Ends of settings that change nothing that is learned: a run may go on with others."""


def continued(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's record (``run.json``, ``fit.json``) says, if this request continues it; empty for a new folder.

    Raises:
        RunError: the record was made by another request; says what differs.
    """
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        old = record["request"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise RunError(
            f"{path} is not a record this version wrote: delete {path.parent} or give another --out"
        ) from None
    before, now = (
        {key: flat[key] for key in flat if not key.endswith(UNIMPORTANT)} for flat in (_flat(old), _flat(request))
    )
    if before.get("method") != now.get("method"):  # then the settings differ as a matter of course
        before, now = ({key: flat[key] for key in flat if not key.startswith("config.")} for flat in (before, now))
    differ = [
        f"{key} {before.get(key)}, now {now.get(key)}" for key in {**before, **now} if before.get(key) != now.get(key)
    ]
    if differ:
        what = "; ".join(differ[:4]) + ("; ..." if len(differ) > 4 else "")
        raise RunError(f"{path.parent} was made with other settings ({what}): give another --out, or delete it")
    return record


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
