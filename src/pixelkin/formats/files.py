"""Files and names: listing images, matching labels to them, safe paths, whole writes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}
)
LABEL_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".npy"})
RUN_FILES = ("run.json", "fit.json")


class SourceError(ValueError):
    """A source or a label file that cannot be used; the message is one line: what is wrong and how to mend it."""


def natural_key(text: str) -> list[Any]:
    """Sort key by which ``frame_2`` comes before ``frame_10``."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", text))]


def list_files(
    folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES, *, exclude: Iterable[Path] = ()
) -> list[PurePosixPath]:
    """Files below a folder that have one of the suffixes, as paths relative to it, in natural order.

    Hidden files and folders, the folders in ``exclude`` and finished or unfinished runs (which hold masks, not inputs)
    are left out. Links are followed, each folder once.
    """
    hidden_from = {path.resolve() for path in exclude}
    seen: set[Path] = set()
    found: list[PurePosixPath] = []
    for where, folders, files in os.walk(folder, followlinks=True):
        here = Path(where)
        real = here.resolve()
        skip = real in seen or (here != folder and (real in hidden_from or any(name in files for name in RUN_FILES)))
        seen.add(real)
        folders[:] = [] if skip else sorted(name for name in folders if not name.startswith("."))
        if skip:
            continue
        relative = PurePosixPath(here.relative_to(folder).as_posix())
        found += [
            relative / name for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found, key=lambda path: (natural_key(path.as_posix()), path.as_posix()))


def sample_names(paths: Sequence[PurePosixPath]) -> list[str]:
    """A unique name for each path: without its suffix, which stays only where two paths differ in nothing else."""
    bare = [path.with_suffix("").as_posix() for path in paths]
    counts: dict[str, int] = defaultdict(int)
    for name in bare:
        counts[name] += 1
    return [path.as_posix() if counts[name] > 1 else name for path, name in zip(paths, bare, strict=True)]


def match(names: Sequence[str], paths: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """Which label file belongs to which sample: the one of the same relative path, else the only one of the same stem.

    A stem decides only where one sample and one file have it: of ``a/1.jpg`` and ``b/1.jpg`` neither takes ``1.png``.

    Args:
        names: sample names, all of the dataset.
        paths: label files relative to their folder.

    Returns:
        Sample name to file, only for the samples that have one.
    """
    by_path = {path.with_suffix("").as_posix(): path for path in paths}
    by_stem: dict[str, list[PurePosixPath]] = defaultdict(list)
    for path in paths:
        by_stem[path.stem].append(path)
    sharing: dict[str, int] = defaultdict(int)
    for name in names:
        sharing[_stem(name)] += 1
    found: dict[str, PurePosixPath] = {}
    for name in names:
        same_path = by_path.get(name) or by_path.get(_without_image_suffix(name))
        same_stem = by_stem.get(_stem(name), [])
        if same_path is not None:
            found[name] = same_path
        elif len(same_stem) == 1 and sharing[_stem(name)] == 1:
            found[name] = same_stem[0]
    return found


class NameIndex:
    """Finds the sample that a label file means by ``sub/a.jpg``, ``sub/a``, ``a.jpg`` or ``a``.

    Args:
        names: the sample names.
        where: the label file, for error messages.
    """

    def __init__(self, names: Iterable[str], where: str) -> None:
        self._names = set(names)
        self._where = where
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self._names:
            self._by_stem[_stem(_without_image_suffix(name))].append(name)

    def find(self, text: str, place: str) -> str:
        """The sample's name. ``place`` says where in the file the text stands.

        Raises:
            SourceError: no such image, or several.
        """
        wanted = str(PurePosixPath(text.strip().replace("\\", "/")))
        for candidate in (wanted, _without_image_suffix(wanted)):
            if candidate in self._names:
                return candidate
        same_stem = self._by_stem.get(_stem(_without_image_suffix(wanted)), []) if "/" not in wanted else []
        if len(same_stem) == 1:
            return same_stem[0]
        if same_stem:
            raise SourceError(
                f"{self._where}, {place}: {len(same_stem)} images are called {text!r}, e.g. {min(same_stem)!r}:"
                " write the path below the source"
            )
        raise SourceError(f"{self._where}, {place}: no image {text!r} in the source: correct or remove the entry")


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _without_image_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_SUFFIXES else name


def inside(folder: Path, text: Any, where: str) -> Path:
    """A path that a file names, joined to the folder it must stay under.

    Raises:
        SourceError: absolute, climbing out with ``..``, or no path at all.
    """
    if not isinstance(text, str) or not text or "\0" in text:
        raise SourceError(f"{where}: {text!r} is no file name: write a path relative to the folder of the images")
    path = PurePosixPath(text.replace("\\", "/"))
    windows = PureWindowsPath(text)
    if path.is_absolute() or windows.drive or windows.root or ".." in path.parts:
        raise SourceError(
            f"{where}: {text!r} leads out of the folder of the images: write a path relative to that folder"
        )
    return folder / path


def require_folder(path: Path, what: str) -> Path:
    """The path, if it is a folder that exists. Raises SourceError."""
    if not path.exists():
        raise SourceError(f"{path}: no such {what}: check the path")
    if not path.is_dir():
        raise SourceError(f"{path}: a file, but the {what} must be a folder: give the folder it is in")
    return path


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises SourceError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file: check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not JSON that can be read ({error}): write it again") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises SourceError."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not text that can be read ({error}): save it as UTF-8") from None


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; renamed to it when all went well, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
