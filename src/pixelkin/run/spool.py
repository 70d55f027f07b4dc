"""An append-only file of named JSON records that survives being killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Spool:
    """One record a line, ``"name" TAB {...}``; each is on the disk when :meth:`append` returns.

    A torn last line, left by a kill in the middle of a write, is cut off on opening. Only names and offsets are held in
    memory; of two records of one name the later counts.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._offsets: dict[str, int] = {}
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            self._offsets[json.loads(line.split(b"\t", 1)[0])] = end
            end += len(line)
        self._file.truncate(end)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add a record and wait until the disk has it."""
        line = f"{json.dumps(name)}\t{json.dumps(record, separators=(',', ':'))}\n".encode()
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._offsets[name] = offset

    def get(self, name: str) -> dict[str, Any]:
        """The record of a name. Raises KeyError."""
        self._file.seek(self._offsets[name])
        record: dict[str, Any] = json.loads(self._file.readline().split(b"\t", 1)[1])
        return record

    def __contains__(self, name: str) -> bool:
        return name in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
