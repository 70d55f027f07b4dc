"""Overlays: an image with its instances painted on it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pixelkin.data import Instances
from pixelkin.viz.colors import RGB, Color, class_color, instance_color, lighten

Box = tuple[int, int, int, int]


def overlay(
    image: npt.NDArray[np.uint8],
    instances: Instances,
    classes: Mapping[int, str] | None = None,
    *,
    alpha: float = 0.45,
    thickness: int | None = None,
    scale: int = 1,
    color_by: Literal["instance", "class"] = "instance",
) -> RGB:
    """Paint instances on an image: a translucent fill, a crisp contour just inside the mask, and optional tags.

    Pixels outside every mask keep their value (but for the tags). Smaller instances lie over larger ones. A colour
    belongs to an instance's id, so a track keeps it from frame to frame.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: the masks, of the image's size.
        classes: class id to name; given, every instance is tagged with its name and score where there is room.
        alpha: strength of the fill, 0 (contours only) to 1.
        thickness: of the contour in pixels of the result; default follows the image's size.
        scale: whole-number magnification, for images too small to read tags on.
        color_by: colour by instance id or by class id.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: the image is not (H, W, 3) uint8, or the masks have another size.
    """
    check_picture(image)
    if image.shape[:2] != instances.size:
        raise ValueError(
            f"the image is {image.shape[:2]}, the masks {instances.size} (height, width): give both one size"
        )
    if scale < 1:
        raise ValueError(f"scale must be a whole number from 1, got {scale}")
    height, width = instances.size
    out = np.array(image)
    if scale > 1:
        out = np.array(Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC))
    line = thickness if thickness is not None else max(1, round(min(out.shape[:2]) / 320))
    color_of = instance_color if color_by == "instance" else _readable_class_color
    keys = instances.ids if color_by == "instance" else instances.labels
    colors = [color_of(int(key)) for key in keys]
    boxes = instances.boxes
    for i in np.argsort(-instances.areas, kind="stable"):
        x0, y0, x1, y1 = boxes[i]
        mask = instances.mask(int(i))[y0:y1, x0:x1]
        if scale > 1:
            mask = mask.repeat(scale, axis=0).repeat(scale, axis=1)
        _paint(out[y0 * scale : y1 * scale, x0 * scale : x1 * scale], mask, colors[i], alpha, line)
    if classes is not None and len(instances):
        _draw_tags(out, instances, classes, colors, boxes * scale)
    return out


def check_picture(image: npt.NDArray[Any]) -> None:
    """Raise ValueError unless the array is an (H, W, 3) uint8 picture."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"a picture must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font at a size in pixels."""
    return ImageFont.load_default(size)


def _readable_class_color(label: int) -> Color:
    return lighten(class_color(label), 0.25)  # the palette's dark colours vanish on photographs


def _paint(region: RGB, mask: npt.NDArray[np.bool_], color: Color, alpha: float, line: int) -> None:
    """Blend a colour into the part of a picture under a mask and draw the mask's inner edge."""
    if mask.size == 0:
        return
    import cv2

    paint = np.asarray(color, dtype=np.float32)
    region[mask] = (region[mask] * (1.0 - alpha) + paint * alpha).round().astype(np.uint8)
    line = min(line, max(1, min(mask.shape) // 6))  # a thick line would hide a small object
    if line > 0:
        kernel = np.ones((3, 3), dtype=np.uint8)
        solid = mask.astype(np.uint8)
        inner = cv2.erode(solid, kernel, iterations=line, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        region[mask & (inner == 0)] = color


def _draw_tags(
    out: RGB, instances: Instances, classes: Mapping[int, str], colors: list[Color], boxes: npt.NDArray[np.int64]
) -> None:
    """Write class names and scores beside the instances, the surest first, leaving out what would cover another tag."""
    height, width = out.shape[:2]
    letters = font(int(np.clip(round(min(height, width) / 34), 11, 30)))
    picture = Image.fromarray(out)
    draw = ImageDraw.Draw(picture)
    placed: list[Box] = []
    for i in np.argsort(-instances.scores, kind="stable"):
        label = int(instances.labels[i])
        text = f"{classes.get(label, f'class {label}')} {instances.scores[i]:.2f}"
        left, top, right, bottom = (round(v) for v in draw.textbbox((0, 0), text, font=letters))
        pad = max(2, (bottom - top) // 4)
        size = (right - left + 2 * pad, bottom - top + 2 * pad)
        spot = _free_spot(boxes[i], size, (width, height), placed)
        if spot is None:
            continue
        placed.append(spot)
        draw.rounded_rectangle((spot[0], spot[1], spot[2] - 1, spot[3] - 1), radius=pad, fill=colors[i])
        draw.text((spot[0] + pad - left, spot[1] + pad - top), text, fill=ink(colors[i]), font=letters)
    out[:] = np.asarray(picture)


def ink(color: Color) -> Color:
    """Near-black or white: whichever reads better on a colour."""
    red, green, blue = color
    return (16, 16, 20) if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else (255, 255, 255)


def _free_spot(
    box: npt.NDArray[np.int64], size: tuple[int, int], limits: tuple[int, int], placed: list[Box]
) -> Box | None:
    """A rectangle (x0, y0, x1, y1) above, inside or below a box that lies in the picture and meets no placed one."""
    x0, y0, x1, y1 = (int(v) for v in box)
    (tag_width, tag_height), (width, height) = size, limits
    if x1 == x0 or tag_width > width or tag_height > height:
        return None
    for x, y in ((x0, y0 - tag_height), (x0, y0), (x0, y1), (x1 - tag_width, y1 - tag_height)):
        x = min(max(x, 0), width - tag_width)
        if not 0 <= y <= height - tag_height:
            continue
        spot = (x, y, x + tag_width, y + tag_height)
        if not any(spot[0] < p[2] and p[0] < spot[2] and spot[1] < p[3] and p[1] < spot[3] for p in placed):
            return spot
    return None
