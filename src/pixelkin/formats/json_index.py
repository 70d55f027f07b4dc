"""Walking through a large JSON file without holding it: where each record of its lists begins and ends."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pixelkin.data import ImageError
from pixelkin.formats.files import SourceError

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"


class Record(NamedTuple):
    """One object of a list: the list's key (empty if the file is the list), where its bytes are, its content."""

    section: str
    start: int
    end: int
    content: dict[str, Any]


def walk_records(path: Path, sections: set[str] | None = None) -> Iterator[Record]:
    """Every object in every list at the top of a JSON file, one at a time.

    Args:
        path: the file.
        sections: takes up the keys of the lists seen, empty ones too.

    Raises:
        SourceError: no such file, or not JSON.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from _walk(path, data, set() if sections is None else sections)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file: check the path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}: cannot be read ({error}): write it again") from None


def _walk(path: Path, data: mmap.mmap, sections: set[str]) -> Iterator[Record]:
    section: str | None = None
    depth, key, start = 0, b'""', 0
    home = -1  # depth inside the list whose objects we want
    for token in _TOKEN.finditer(data):
        text = token.group()
        first = text[:1]
        if text == b'"':
            raise SourceError(f"{path}: not a whole JSON file (a string does not end): write it again")
        if first == b'"':
            if depth == 1 and section is None:
                key = text
        elif first in _OPENING:
            if first == b"[" and section is None and depth <= 1:
                section, home = (str(_parse(path, key, token.start())) if depth else ""), depth + 1
                sections.add(section)
            elif first == b"{" and section is not None and depth == home:
                start = token.start()
            depth += 1
        else:
            depth -= 1
            if depth < 0:
                break
            if first == b"}" and section is not None and depth == home:
                content = _parse(path, data[start : token.end()], start)
                yield Record(section, start, token.end(), content)
            elif depth < home:
                section, home = None, -1
    if depth != 0:
        raise SourceError(f"{path}: not a whole JSON file (brackets do not close): write it again")


def _parse(path: Path, text: bytes, start: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not JSON at byte {start} ({error}): write it again") from None


def read_records(path: Path, spans: Any) -> list[dict[str, Any]]:
    """Read some records again.

    Args:
        path: the file that was walked through.
        spans: start, end, start, end, ... in bytes.

    Raises:
        ImageError: the file has changed since.
    """
    records: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            for start, end in zip(spans[::2], spans[1::2], strict=True):
                file.seek(start)
                record = json.loads(file.read(end - start))
                if not isinstance(record, dict):
                    raise ValueError("no record there")
                records.append(record)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: changed while it was being used ({error}): start again") from None
    return records
