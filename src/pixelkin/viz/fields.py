"""Pictures of dense fields: displacement, boundary, centres, semantic maps, and panels of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pixelkin.viz.colors import RGB, class_color, heat_colors
from pixelkin.viz.overlay import check_picture, font

Field = npt.NDArray[Any]


def flow_wheel(field: Field, *, limit: float | None = None, legend: bool = False) -> RGB:
    """A vector field as colours: the hue is the direction, the saturation the length; zero is white.

    Right is red (hue 0 degrees), down yellow-green (90), left cyan (180), up violet (270): opposite directions have
    opposite hues. A vector that is not finite is grey.

    Args:
        field: (2, h, w) in (dy, dx) order, any unit.
        limit: the length shown in full colour; longer ones are clipped. Default: the 99th percentile of the lengths.
        legend: draw a small wheel of the directions into the lower right corner.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        ValueError: the field is not (2, h, w), or the limit is not positive.
    """
    vectors = np.asarray(field, dtype=np.float64)
    if vectors.ndim != 3 or vectors.shape[0] != 2:
        raise ValueError(f"a vector field must be (2, h, w) in (dy, dx) order, got {vectors.shape}")
    known = np.isfinite(vectors).all(axis=0)
    dy, dx = np.where(known, vectors, 0.0)
    length = np.hypot(dy, dx)
    if limit is None:
        limit = _full_length(length[known])
    elif not limit > 0:
        raise ValueError(f"limit must be a positive length, got {limit}")
    picture = _hue_wheel(np.arctan2(dy, dx), np.minimum(length / limit, 1.0))
    picture[~known] = 128
    if legend:
        _draw_legend(picture)
    return picture


def wheel(diameter: int) -> RGB:
    """The legend of :func:`flow_wheel`: a disc whose colour at a point is that of the vector from the centre to it.

    Returns:
        (diameter, diameter, 3) uint8 RGB, white outside the disc.
    """
    if diameter < 1:
        raise ValueError(f"diameter must be at least 1 pixel, got {diameter}")
    axis = (np.arange(diameter) + 0.5) / diameter * 2.0 - 1.0
    y, x = np.meshgrid(axis, axis, indexing="ij")
    radius = np.hypot(y, x)
    return _hue_wheel(np.arctan2(y, x), np.where(radius <= 1.0, radius, 0.0))


def heatmap(
    values: Field,
    *,
    image: npt.NDArray[np.uint8] | None = None,
    low: float | None = None,
    high: float | None = None,
    alpha: float = 0.6,
) -> RGB:
    """A scalar field as colours, dark where low and bright where high; with an image, laid over its grey version.

    Args:
        values: (h, w) numbers; those not finite count as low.
        image: (H, W, 3) uint8 RGB to lay the field over; the field is resized to it.
        low: value shown darkest; default the minimum.
        high: value shown brightest; default the maximum.
        alpha: strength of the field over the image.

    Returns:
        (h, w, 3) uint8 RGB, or (H, W, 3) with an image.
    """
    heat = heat_colors(_unit_range(values, low, high))
    if image is None:
        return heat
    check_picture(image)
    height, width = image.shape[:2]
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None]
    laid = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.asarray((grey * (1.0 - alpha) + laid * alpha).round().astype(np.uint8))


def boundary_picture(boundary: Field) -> RGB:
    """Boundary probability as a picture: dark 0, bright 1, on a fixed scale so that pictures compare.

    Args:
        boundary: (h, w) numbers in 0..1; others are clipped, NaN counts as 0.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    return heatmap(boundary, low=0.0, high=1.0)


def centers_picture(
    heat: Field, points: npt.ArrayLike | None = None, *, image: npt.NDArray[np.uint8] | None = None
) -> RGB:
    """A centre heat map (fixed scale 0..1), with the centres found marked by crosses.

    Args:
        heat: (h, w) numbers in 0..1.
        points: (N, 2) centres as (y, x), in pixels of the heat map.
        image: (H, W, 3) uint8 RGB to lay the heat over.

    Returns:
        (h, w, 3) uint8 RGB, or (H, W, 3) with an image.
    """
    picture = heatmap(heat, low=0.0, high=1.0, image=image)
    marks = np.zeros((0, 2)) if points is None else np.asarray(points, dtype=np.float64).reshape(-1, 2)
    ratio = np.array(picture.shape[:2]) / np.array(np.shape(heat))
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    arm = max(1, round(min(picture.shape[:2]) / 80))
    for y, x in ((marks + 0.5) * ratio - 0.5).round():
        for color, thick in (((0, 0, 0), 3), ((90, 235, 255), 1)):  # a dark rim keeps the cross visible on bright heat
            draw.line((x - arm, y, x + arm, y), fill=color, width=thick)
            draw.line((x, y - arm, x, y + arm), fill=color, width=thick)
    return np.array(canvas)


def semantic_picture(semantic: Field, *, image: npt.NDArray[np.uint8] | None = None, alpha: float = 0.6) -> RGB:
    """A map of class ids in the PASCAL VOC colours (0 black, 255 cream); with an image, laid over it.

    Args:
        semantic: (H, W) integer class ids.
        image: (H, W, 3) uint8 RGB of the same size; background then shows the image itself.
        alpha: strength of the colours over the image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    ids = np.asarray(semantic)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"a semantic map must be (H, W) integers, got {ids.shape} {ids.dtype}")
    present, inverse = np.unique(ids, return_inverse=True)
    table = np.array([class_color(int(i)) for i in present], dtype=np.uint8).reshape(-1, 3)
    picture = table[inverse.reshape(ids.shape)]
    if image is None:
        return picture
    check_picture(image)
    if image.shape[:2] != ids.shape:
        raise ValueError(
            f"the image is {image.shape[:2]}, the semantic map {ids.shape} (height, width): give both one size"
        )
    mixed = (image * (1.0 - alpha) + picture * alpha).round().astype(np.uint8)
    return np.asarray(np.where((ids == 0)[..., None], image, mixed))


def panel(
    pictures: Mapping[str, npt.NDArray[np.uint8]] | Sequence[tuple[str, npt.NDArray[np.uint8]]],
    *,
    height: int = 256,
    columns: int | None = None,
) -> RGB:
    """Pictures side by side on white, each with a caption above it.

    Args:
        pictures: captions and (h, w, 3) uint8 RGB pictures, of any sizes. Small ones are enlarged without smoothing, so
            that a field's own pixels show.
        height: every picture's height in the panel, in pixels.
        columns: pictures in a row; default all.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: no pictures, or one that is not (h, w, 3) uint8.
    """
    items = list(pictures.items()) if isinstance(pictures, Mapping) else list(pictures)
    if not items:
        raise ValueError("a panel needs at least one picture")
    if height < 1 or (columns is not None and columns < 1):
        raise ValueError(f"height and columns must be positive, got {height} and {columns}")
    tiles = [_tile(caption, picture, height) for caption, picture in items]
    columns = min(columns or len(tiles), len(tiles))
    gap = 8
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    widths = [max(row[c].width for row in rows if c < len(row)) for c in range(columns)]
    row_height = tiles[0].height
    sheet = Image.new("RGB", (sum(widths) + gap * (columns + 1), (row_height + gap) * len(rows) + gap), (255, 255, 255))
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            sheet.paste(tile, (gap * (c + 1) + sum(widths[:c]), gap + (row_height + gap) * r))
    return np.array(sheet)


def _tile(caption: str, picture: npt.NDArray[np.uint8], height: int) -> Image.Image:
    """A picture at the given height with its caption above."""
    check_picture(picture)
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    smooth = Image.Resampling.NEAREST if picture.shape[0] < height else Image.Resampling.LANCZOS
    letters = font(max(11, round(height / 18)))
    line = round(letters.getbbox("Ag|")[3]) + 6
    tile = Image.new("RGB", (width, height + line), (255, 255, 255))
    draw = ImageDraw.Draw(tile)
    text = caption
    while text and draw.textlength(text, font=letters) > width:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    draw.text((0, 0), text, fill=(40, 40, 48), font=letters)
    tile.paste(Image.fromarray(picture).resize((width, height), smooth), (0, line))
    return tile


def _full_length(lengths: npt.NDArray[np.float64]) -> float:
    """The length shown in full colour: the 99th percentile, or the maximum where nearly all are zero."""
    if lengths.size == 0:
        return 1.0
    return float(np.percentile(lengths, 99)) or float(lengths.max()) or 1.0


def _unit_range(values: Field, low: float | None, high: float | None) -> npt.NDArray[np.float64]:
    """Stretch (h, w) values to 0..1; not finite ones become 0."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 2:
        raise ValueError(f"a scalar field must be (h, w), got {numbers.shape}")
    finite = np.isfinite(numbers)
    if not finite.any():
        return np.zeros_like(numbers)
    low = float(numbers[finite].min()) if low is None else low
    high = float(numbers[finite].max()) if high is None else high
    filled = np.where(finite, numbers, low)
    return np.asarray(np.clip((filled - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(filled))


def _hue_wheel(angle: npt.NDArray[np.float64], saturation: npt.NDArray[np.float64]) -> RGB:
    """HSV with full value to RGB: angle in radians (h, w), saturation 0..1 (h, w)."""
    sector = np.degrees(angle) / 60.0
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + sector) % 6.0
        channels.append(1.0 - saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))
    return np.asarray((np.stack(channels, axis=-1) * 255.0).round().astype(np.uint8))


def _draw_legend(picture: RGB) -> None:
    """Put a wheel with a thin dark ring into the lower right corner."""
    height, width = picture.shape[:2]
    diameter = min(max(12, min(height, width) // 4), 96, height, width)
    disc = wheel(diameter)
    axis = np.arange(diameter) + 0.5 - diameter / 2
    radius = np.hypot(axis[:, None], axis[None, :])
    disc[(radius > diameter / 2 - 1) & (radius <= diameter / 2)] = 60
    corner = picture[height - diameter :, width - diameter :]
    inside = radius <= diameter / 2
    corner[inside] = disc[inside]
