"""What a run keeps of the images that are done, as those read it who show or write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pixelkin.data import Instances
from pixelkin.formats import instances_from_annotations
from pixelkin.run.spool import Spool


class Records:
    """The records of the images that are done, with the tracks that linking found for them.

    Tracks lie in a spool of their own: they are found anew when another frame of the clip is labelled, and what the
    method said stays as it was.
    """

    def __init__(self, images: Spool, links: Spool) -> None:
        self._images, self._links = images, links

    def __contains__(self, name: str) -> bool:
        return name in self._images

    def get(self, name: str) -> dict[str, Any]:
        """The record of an image. Raises KeyError."""
        record = self._images.get(name)
        tracks = self.tracks(name)
        return record if tracks is None else with_track_ids(record, tracks)

    def tracks(self, name: str) -> list[int] | None:
        """A track for each instance, or None for an image that is not linked."""
        if name not in self._links:
            return None
        tracks: list[int] = self._links.get(name)["tracks"]
        return tracks


def with_track_ids(record: dict[str, Any], tracks: Sequence[int]) -> dict[str, Any]:
    """The record with a track for each of its annotations."""
    pairs = zip(record["annotations"], tracks, strict=True)
    return record | {"annotations": [each | {"track_id": number, "instance_id": number} for each, number in pairs]}


def instances_of(record: dict[str, Any]) -> Instances:
    """The instances of a record."""
    return instances_from_annotations(record["annotations"], size_of(record))


def size_of(record: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of its image."""
    return record["image"]["height"], record["image"]["width"]
