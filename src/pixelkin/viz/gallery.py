"""The gallery: one HTML file that shows a run's images and instances, with filters, and needs no server or network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelkin.data import Instances
from pixelkin.viz.colors import RGB, class_color, hex_color, instance_color, lighten
from pixelkin.viz.outlines import outline_paths
from pixelkin.viz.overlay import check_picture

THUMBNAIL = 448
"""Longer side of a thumbnail, in pixels; smaller images keep their size."""

THUMBNAIL_BYTES = 18_000
"""A thumbnail's quality is lowered until it fits."""

GRID = 1024
"""Outlines are drawn on a grid of this many steps along the longer side: about the resolution they are looked at."""

SCRIPTS = ("records", "clips", "overview", "detail", "player", "controls")
"""Parts of the page's script, in this order: each uses what those before it define."""


class Picture(TypedDict):
    """An extra picture of the detail view."""

    caption: str
    picture: str


class GalleryEntry(TypedDict):
    """One image of the gallery: plain JSON, some kilobytes beside the thumbnail; columns have one entry an instance."""

    name: str
    size: list[int]
    """Height and width of the image in pixels."""
    grid: list[int]
    """Width and height of the outlines' coordinates."""
    picture: str
    """The thumbnail, a data URI."""
    pictures: list[Picture]
    labels: list[int]
    scores: list[float | None]
    areas: list[int]
    crowd: list[int]
    source: list[int]
    """Index into ``sources``, the different sources of this image."""
    sources: list[str]
    colors: list[str]
    paths: list[str]
    """SVG path data on the grid, filled by the even-odd rule."""
    tracks: list[int]
    clip: str | None
    frame: int | None
    fps: float | None


def gallery_entry(
    name: str,
    image: npt.NDArray[np.uint8],
    instances: Instances,
    *,
    pictures: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    clip: str | None = None,
    frame: int | None = None,
    fps: float | None = None,
) -> GalleryEntry:
    """The compact record of one image; make it while the image is at hand and keep it (it is plain JSON).

    Args:
        name: the sample's name.
        image: (H, W, 3) uint8 RGB.
        instances: its masks, of the image's size.
        pictures: caption to (h, w, 3) uint8 RGB of the image's aspect ratio, shown in the detail view: fields,
            baselines. They carry the outlines too.
        clip: the video it is a frame of; the frames of a clip share a card, and the detail view plays them.
        frame: its number there.
        fps: how fast to play.

    Returns:
        A record for :func:`write_gallery`; ``json.loads(json.dumps(record)) == record``.

    Raises:
        ValueError: the image is not (H, W, 3) uint8, or the masks have another size.
    """
    check_picture(image)
    height, width = image.shape[:2]
    if (height, width) != instances.size:
        raise ValueError(f"{name}: the image is {(height, width)}, the masks {instances.size} (height, width)")
    scale = GRID / max(height, width)
    sources, source = np.unique(instances.sources, return_inverse=True)
    return GalleryEntry(
        name=name,
        size=[height, width],
        grid=[max(1, round(width * scale)), max(1, round(height * scale))],
        picture=_data_uri(image),
        pictures=[
            Picture(caption=str(key), picture=_data_uri(value, exact=True)) for key, value in (pictures or {}).items()
        ],
        labels=[int(v) for v in instances.labels],
        scores=[round(float(v), 4) if math.isfinite(v) else None for v in instances.scores],
        areas=[int(v) for v in instances.areas],
        crowd=[int(v) for v in instances.crowd],
        source=[int(v) for v in source],
        sources=[str(v) for v in sources],
        colors=[hex_color(instance_color(int(v))) for v in instances.ids],
        paths=outline_paths(instances, scale),
        tracks=[int(v) for v in instances.tracks],
        clip=clip,
        frame=frame,
        fps=fps,
    )


def with_tracks(entry: GalleryEntry, tracks: Sequence[int]) -> GalleryEntry:
    """The record with tracks that were found after it was made; colours follow them.

    Raises:
        ValueError: not one track an instance.
    """
    if len(tracks) != len(entry["labels"]):
        raise ValueError(f"{entry['name']}: {len(tracks)} tracks for {len(entry['labels'])} instances")
    changed = entry.copy()
    changed["tracks"] = [int(track) for track in tracks]
    changed["colors"] = [hex_color(instance_color(int(track))) for track in tracks]
    return changed


def write_gallery(
    path: Path | str,
    entries: Iterable[GalleryEntry],
    *,
    classes: Mapping[int, str],
    title: str,
    summary: Mapping[str, Any] | None = None,
    limit: int = 2000,
) -> None:
    """Write ``gallery.html``, complete in itself, one entry at a time and atomically (a temporary file, then a rename).

    The page forbids itself every request and every script but its own (Content-Security-Policy), and names and captions
    only ever reach it as text, so untrusted ones are harmless.

    Args:
        path: the file to write.
        entries: records of :func:`gallery_entry`; read once, never held together.
        classes: class id to name.
        title: the page's heading.
        summary: ``done``, ``failed`` and ``skipped`` counts and ``errors``, a list of (name, reason) or of mappings
            with these keys; each may be missing.
        limit: entries after this many are counted but not shown, and the page says so.

    Raises:
        ValueError: the limit is not positive.
        OSError: the file cannot be written; nothing is left behind.
    """
    import jinja2

    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    target = Path(path)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pixelkin.viz"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    sources = {"css": _source(environment, "gallery.css"), "js": _script(environment)}
    shown = _Counted(entries, limit)
    summary = summary or {}
    errors = [_error(error) for error in summary.get("errors", ())]
    page = environment.get_template("gallery.html.j2").generate(
        title=title,
        **sources,
        hashes={kind: _hash(text) for kind, text in sources.items()},
        config=_json({"classes": [_class_record(i, name) for i, name in sorted(classes.items())]}),
        entries=(_json(entry) for entry in shown),
        closing=lambda: _json({"shown": shown.shown, "total": shown.total}),
        counts=[(key, int(summary[key])) for key in ("done", "failed", "skipped") if summary.get(key) is not None],
        errors=errors[:limit],
        error_count=max(len(errors), int(summary.get("failed") or 0)),
    )
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # names hold anything a file system allows, lone surrogates too: those become character references
        with partial.open("w", encoding="utf-8", errors="xmlcharrefreplace", newline="\n") as file:
            file.writelines(page)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class _Counted:
    """The first entries of an iterable; the rest is only counted, once they are through."""

    def __init__(self, entries: Iterable[GalleryEntry], limit: int) -> None:
        self._entries = entries
        self._limit = limit
        self.total = 0

    @property
    def shown(self) -> int:
        return min(self.total, self._limit)

    def __iter__(self) -> Iterator[GalleryEntry]:
        for entry in self._entries:
            self.total += 1
            if self.total <= self._limit:
                yield entry


def _class_record(label: int, name: str) -> dict[str, Any]:
    return {"id": int(label), "name": str(name), "color": hex_color(lighten(class_color(int(label)), 0.25))}


def _error(error: Sequence[str] | Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(error, Mapping):
        return str(error.get("name", "?")), str(error.get("reason", error.get("error", "")))
    name, reason = error
    return str(name), str(reason)


def _source(environment: Any, name: str) -> Any:
    """A template file's text as it stands, for inlining."""
    from markupsafe import Markup

    text, _, _ = environment.loader.get_source(environment, name)
    return Markup(text.replace("\r\n", "\n"))  # browsers read it so, and the policy's hash must match


def _script(environment: Any) -> Any:
    """The parts of the script as one, which leaves no names behind."""
    from markupsafe import Markup

    parts = "".join(_source(environment, f"gallery_{part}.js") for part in SCRIPTS)
    return Markup(f'"use strict";\n(() => {{\n{parts}}})();\n')


def _hash(text: str) -> str:
    """The Content-Security-Policy hash of an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> Any:
    """JSON that is safe inside a script element: pure ASCII and no ``<``, ``>`` or ``&``."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _data_uri(picture: RGB, *, exact: bool = False) -> str:
    """A picture as a small WebP data URI, no larger than a thumbnail; an exact one is lossless where that is small."""
    check_picture(picture)
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=3.0)
    attempts: list[dict[str, Any]] = [{"quality": quality} for quality in (72, 50, 30)]
    if exact:
        attempts.insert(0, {"lossless": True})
    data = b""
    for options in attempts:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", method=4, **options)
        data = buffer.getvalue()
        if len(data) <= THUMBNAIL_BYTES:
            break
    return "data:image/webp;base64," + base64.b64encode(data).decode()
