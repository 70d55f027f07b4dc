"""Class lists: lines ``id name``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pixelkin.formats.files import SourceError, read_lines, whole

CLASSES_FILE = "classes.txt"
BACKGROUND_NAMES = {"background", "_background_", "__background__", "bg"}
UNKNOWN_NAMES = {"unknown", "void", "ignore", "ignored", "unlabeled", "unlabelled", "crowd", "border"}
MAX_CLASSES = 100_000


def read_classes(path: Path | str) -> dict[int, str]:
    """Read a class list: one ``id name`` a line; empty lines and lines that start with ``#`` are skipped.

    ``0 background`` and ``255 void`` may stand there and are left out, as they are no classes.

    Returns:
        Class id to name, ascending ids.

    Raises:
        SourceError: a line that is no ``id name``, an id or a name twice, or an empty list.
    """
    path = Path(path)
    classes: dict[int, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        identity, _, name = text.replace("\t", " ").partition(" ")
        name = name.strip()
        try:
            class_id = int(identity.rstrip(":,"))
        except ValueError:
            raise SourceError(f"{path}, line {number}: {text!r} does not start with an id: write 'id name'") from None
        if not name:
            raise SourceError(f"{path}, line {number}: class {class_id} has no name: write 'id name'")
        if (class_id == 0 and name.lower() in BACKGROUND_NAMES) or (class_id == 255 and name.lower() in UNKNOWN_NAMES):
            continue
        if class_id in classes or name in classes.values():
            raise SourceError(f"{path}, line {number}: id {class_id} or name {name!r} is there twice: remove one")
        if class_id <= 0 or class_id == 255:
            raise SourceError(
                f"{path}, line {number}: {class_id} cannot be a class (0 is background, 255 unknown): renumber"
            )
        classes[class_id] = name
        if len(classes) > MAX_CLASSES:
            raise SourceError(f"{path}: over {MAX_CLASSES} classes: is this a class list?")
    if not classes:
        raise SourceError(f"{path}: no classes in it: write one 'id name' a line")
    return dict(sorted(classes.items()))


def write_classes(path: Path | str, classes: Mapping[int, str]) -> None:
    """Write a class list that :func:`read_classes` reads."""
    with whole(Path(path)) as beside:
        beside.write_text("".join(f"{i} {name}\n" for i, name in sorted(classes.items())), encoding="utf-8")


def find_classes(near: Iterable[Path]) -> dict[int, str] | None:
    """The first ``classes.txt`` in one of the folders, its parent or the parent of that; None without any.

    Raises:
        SourceError: a list is there and cannot be read.
    """
    for folder in near:
        absolute = folder.absolute()
        for candidate in (absolute, *list(absolute.parents)[:2]):
            if (candidate / CLASSES_FILE).is_file():
                return read_classes(candidate / CLASSES_FILE)
    return None


def as_classes(classes: Mapping[int, str] | Path | str | None) -> dict[int, str] | None:
    """A class list given as a mapping or as a file."""
    if classes is None or isinstance(classes, Mapping):
        return None if classes is None else {int(i): str(name) for i, name in sorted(classes.items())}
    return read_classes(classes)


def class_id_of(text: str | int, classes: Mapping[int, str], where: str) -> int:
    """The id of a class given by its name or its id.

    Raises:
        SourceError: in no class list; ``where`` names the file and the place.
    """
    for class_id, name in classes.items():
        if text == name:
            return class_id
    digits = str(text).strip()
    if not isinstance(text, bool) and digits.isdecimal() and int(digits) in classes:
        return int(digits)
    known = ", ".join(f"{i} {name}" for i, name in list(classes.items())[:5])
    more = ", ..." if len(classes) > 5 else ""
    raise SourceError(f"{where}: class {text!r} is not in the class list ({known}{more}): add it or correct the entry")
