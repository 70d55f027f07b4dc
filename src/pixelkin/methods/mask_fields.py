"""The fields of a :class:`pixelkin.models.mask_unet.MaskUNet` for an image, tile by tile or component by component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from pixelkin.cues.crowding import mask_channels
from pixelkin.cues.pieces import Box, Picture, cut_out, resize, window
from pixelkin.methods.base import Field, Fields
from pixelkin.models.mask_unet import MaskUNet

Map = npt.NDArray[np.float32]

TILE, OVERLAP = 512, 64
"""Side of the tiles in which a large image passes the network, and how much they overlap, in pixels."""

AT_ONCE = 16
"""Components that pass the network together."""

FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""The axes of (B, C, H, W) along which the mirror images are turned."""


def scene_fields(model: MaskUNet, picture: Picture, unit: float, *, flips: bool) -> dict[str, Field]:
    """``displacement`` and ``boundary`` of a whole picture.

    Args:
        model: the network, in eval mode.
        picture: its stride is 2 over its zoom.
        unit: pixels that count as 1 in the mask's distance channel.
        flips: average over mirror images.
    """
    height, width = picture.labels.shape
    displacement = np.zeros((2, -(-height // 2), -(-width // 2)), np.float32)
    boundary = np.zeros(displacement.shape[1:], np.float32)
    mask = picture.labels > 0
    for y, x in ((y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)):
        bottom, right = min(y + TILE, height), min(x + TILE, width)
        # Sides that are multiples of 32, as in training: else the backbone's padding shifts its coarse maps.
        below, beside = OVERLAP + (y - bottom) % 32, OVERLAP + (x - right) % 32
        box = (y - OVERLAP, x - OVERLAP, bottom + below, right + beside)
        inside = cut_out(mask, box)
        if not inside.any():
            continue
        arrows, ridges = predict(model, [cut_out(picture.image, box)], [inside], unit, flips=flips)
        rows, columns = slice(y // 2, -(-bottom // 2)), slice(x // 2, -(-right // 2))
        local = tuple(slice(OVERLAP // 2, OVERLAP // 2 + part.stop - part.start) for part in (rows, columns))
        boundary[rows, columns] = ridges[0][local]
        for axis in (0, 1):
            displacement[axis, rows, columns] = arrows[0, axis][local]
    stride = 2 / picture.zoom
    return {"displacement": Field(displacement, stride), "boundary": Field(boundary, stride)}


def piece_fields(
    model: MaskUNet, picture: Picture, unit: float, *, side: int, margin: float, flips: bool
) -> dict[str, Field]:
    """``displacement/3`` and ``boundary/3`` of a window around each component, here the third.

    A component that the picture's zoom has made vanish has none.

    Args:
        model: the network, in eval mode.
        picture: see :func:`~pixelkin.cues.pieces.load_picture`.
        unit: pixels of a window that count as 1 in the mask's distance channel.
        side: of a window for the network.
        margin: see :func:`~pixelkin.cues.pieces.window`.
        flips: average over mirror images.
    """
    maps: dict[str, Field] = {}
    places = ndimage.find_objects(picture.labels, max_label=len(picture.classes))
    boxes = {
        i: window((place[0].start, place[1].start, place[0].stop, place[1].stop), margin)
        for i, place in enumerate(places, start=1)
        if place is not None
    }
    numbers = list(boxes)
    for some in (numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE)):
        images = [resize(cut_out(picture.image, boxes[i]), (side, side)) for i in some]
        masks = [cut_out(picture.labels, boxes[i]) == i for i in some]
        shown = [resize(mask.astype(np.uint8), (side, side), exact=True) > 0 for mask in masks]
        arrows, ridges = predict(model, images, shown, unit, flips=flips)
        for i, arrow, ridge in zip(some, arrows, ridges, strict=True):
            top, left, bottom, _ = boxes[i]
            stride = (bottom - top) / picture.zoom / ridge.shape[0]
            origin = (top / picture.zoom, left / picture.zoom)
            maps[f"displacement/{i}"] = Field(arrow, stride, origin)
            maps[f"boundary/{i}"] = Field(ridge, stride, origin)
    return maps


def predict(
    model: MaskUNet,
    images: Sequence[npt.NDArray[np.uint8]],
    masks: Sequence[npt.NDArray[np.bool_]],
    unit: float,
    *,
    flips: bool,
) -> tuple[Map, Map]:
    """Fields of (H, W, 3) images and (H, W) masks of one size, at stride 2.

    Returns:
        (B, 2, h, w) displacement, (dy, dx) in field pixels, and (B, h, w) boundary in 0..1.
    """
    device = next(model.parameters()).device
    image = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device).float() / 255
    mask = torch.from_numpy(np.stack([mask_channels(m, unit) for m in masks])).to(device)
    turns = FLIPS if flips else FLIPS[:1]
    arrows, ridges = torch.zeros((), device=device), torch.zeros((), device=device)
    with torch.inference_mode():
        for turn in turns:
            said = model(image.flip(turn), mask.flip(turn))
            signs = torch.tensor([-1.0 if axis in turn else 1.0 for axis in (2, 3)], device=device)
            arrows = arrows + said.displacement.flip(turn) * signs.view(1, 2, 1, 1)
            ridges = ridges + said.boundary.sigmoid().flip([axis - 1 for axis in turn])
    scale = model.reach / len(turns)
    return (arrows * scale).cpu().numpy(), (ridges / len(turns)).cpu().numpy()


def whole_fields(fields: Fields) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Displacement and boundary over the whole image; those of windows at half its size, the smaller ones on top."""
    if "boundary" in fields:
        return fields["displacement"], fields["boundary"]
    height, width = -(-fields.size[0] // 2), -(-fields.size[1] // 2)
    displacement, boundary = np.zeros((2, height, width), np.float32), np.zeros((height, width), np.float32)
    numbers = [name.removeprefix("boundary/") for name in fields.maps if name.startswith("boundary/")]
    for number in sorted(numbers, key=lambda n: -fields.stride(f"boundary/{n}")):
        ridge, arrow = fields.maps[f"boundary/{number}"], fields[f"displacement/{number}"]
        top, left, bottom, right = box = _place(ridge)
        there = (slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0)))
        rows, columns = boundary[there].shape
        here = (slice(max(-top, 0), max(-top, 0) + rows), slice(max(-left, 0), max(-left, 0) + columns))
        boundary[there] = _fit(ridge.array, box)[here]
        for axis in (0, 1):
            displacement[axis][there] = _fit(arrow[axis], box)[here] * ridge.stride / 2
    return displacement, boundary


def _fit(array: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    return resize(np.asarray(array, np.float32), (box[2] - box[0], box[3] - box[1]))


def _place(field: Field) -> Box:
    """Where a field lies on a grid of half the image's size."""
    top, left = (round(value / 2) for value in field.origin)
    height, width = (max(round(cells * field.stride / 2), 1) for cells in field.array.shape[-2:])
    return top, left, top + height, left + width
