"""Crowding: touching objects of known identity, made from solitary ones, with no instance label anywhere.

A semantic map tells apart what does not touch. Cut out such solitary objects, press them against each other, and the
pair looks to a semantic map like one component, while its maker knows both. Two ways, by the kind of data:
:class:`FieldCrowder` fills a scene of objects of one size (cells, seeds, grains), :class:`PieceCrowder` presses a few
objects of any size (photos) against one, and also takes real contacts of different classes, whose masks it merges.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelkin.cues.pieces import Box, PictureStore, Piece, around, cut_out, find_pieces, resize, touching, window
from pixelkin.cues.pressing import Canvas, Donor, press, resized_donor, side_angle

UNKNOWN_OBJECT = -1
MANY, ONE, UNSURE = 1.0, 0.0, -1.0


class NoMaterialError(ValueError):
    """No image has an object that can be pressed against another."""


class FieldCrowder:
    """Scenes of many objects of about one size, as under a microscope: any direction is up.

    Args:
        store: pictures, each zoomed so that its objects have the usual size ``diameter``.
        diameter: usual side of an object (square root of its area) in the store's pixels.
        side: of an example in pixels.
        most: objects added to a scene.
        overlap: largest share of an object that another hides.

    Raises:
        NoMaterialError: no picture has a solitary object.
    """

    def __init__(
        self, store: PictureStore, *, diameter: float, side: int = 128, most: int = 14, overlap: float = 0.22
    ) -> None:
        self.store, self.side, self.most, self.overlap = store, side, most, overlap
        self.unit = diameter / 3
        self.pieces: dict[int, list[Piece]] = {}
        self.donors: dict[int, list[Piece]] = {}
        for i in range(len(store)):
            pieces = find_pieces(store[i], i, 16)
            donors = [piece for piece in pieces if piece.solitary and 0.25 < piece.area / diameter**2 < 1.8]
            if donors:
                self.pieces[i], self.donors[i] = pieces, donors
        if not self.donors:
            raise NoMaterialError("no object of the usual size stands alone in any image, to press others against")
        self.indices = sorted(self.donors)

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One example, see :func:`as_example`."""
        index = self.indices[rng.integers(len(self.indices))]
        picture = self.store[index]
        zoom = float(np.exp(rng.uniform(-0.35, 0.35)))
        extent = round(self.side / zoom)
        box = self._somewhere(self.pieces[index], picture.labels.shape, extent, rng)
        shape = (self.side, self.side)
        labels = resize(cut_out(picture.labels, box), shape, exact=True)
        numbers = np.unique(labels, return_inverse=True)[1].reshape(shape)
        canvas = Canvas(
            resize(cut_out(picture.image, box), shape).astype(np.float32),
            (numbers + (labels.min() > 0)).astype(np.int32),  # where there is no background, the first is an object
            np.concatenate([[False], picture.doubtful])[labels],
            resize(cut_out(np.ones(picture.labels.shape, np.uint8), box), shape, exact=True) > 0,
        )
        for _ in range(int(rng.integers(self.most)) if rng.random() < 0.85 else 0):
            present = np.unique(canvas.objects)
            present = present[present > 0]
            if not len(present):
                break
            source = index if rng.random() < 0.8 else int(rng.choice(self.indices))
            donor = self._donor(source, index, zoom, canvas, rng)
            onto, angle = int(rng.choice(present)), rng.uniform(0, 2 * np.pi)
            press(canvas, donor, onto, angle, rng, overlap=rng.uniform(0, self.overlap), bury=0.5)
        image, objects = _age(canvas.image, rng), np.where(canvas.unknown, UNKNOWN_OBJECT, canvas.objects)
        turns = int(rng.integers(4))
        if rng.random() < 0.5:
            image, objects = image[:, ::-1], objects[:, ::-1]
        return as_example(np.rot90(image, turns), np.rot90(objects, turns), self.unit, UNSURE)

    def _somewhere(self, pieces: list[Piece], size: tuple[int, ...], extent: int, rng: np.random.Generator) -> Box:
        """A square box that shows some piece, inside the picture where it fits."""
        y0, x0, y1, x1 = pieces[rng.integers(len(pieces))].box
        corner = []
        for middle, limit in (((y0 + y1) / 2, size[0]), ((x0 + x1) / 2, size[1])):
            start = int(middle - rng.uniform(0.2, 0.8) * extent)
            corner.append(int(np.clip(start, min(0, limit - extent), max(0, limit - extent))))
        return corner[0], corner[1], corner[0] + extent, corner[1] + extent

    def _donor(self, source: int, index: int, zoom: float, canvas: Canvas, rng: np.random.Generator) -> Donor:
        """A solitary object, turned; one from another picture takes the colour of the objects here."""
        picture = self.store[source]
        pieces = self.donors[source]
        piece = pieces[rng.integers(len(pieces))]
        y0, x0, y1, x1 = piece.box
        box = (y0 - 4, x0 - 4, y1 + 4, x1 + 4)
        image, mask = cut_out(picture.image, box), cut_out(picture.labels, box) == piece.number
        scale = zoom * float(np.exp(rng.normal(0, 0.2)))
        height, width = mask.shape
        side = int(np.ceil(np.hypot(height, width) * scale)) + 4
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), scale)
        matrix[0, 2] += (side - width) / 2
        matrix[1, 2] += (side - height) / 2
        flat = cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
        turned: npt.NDArray[np.float32] = np.asarray(flat, np.float32)
        shape = cv2.warpAffine(mask.astype(np.float32), matrix, (side, side)) > 0.5
        here = canvas.objects > 0
        if source != index and here.any() and shape.any():
            turned = turned + (canvas.image[here].mean(axis=0) - turned[shape].mean(axis=0))
        return Donor(turned * rng.uniform(0.8, 1.2) if rng.random() < 0.5 else turned, shape)


class PieceCrowder:
    """One component at a time, of any size: alone, in real contact with another class, or crowded by its own.

    Args:
        store: pictures.
        side: of an example in pixels; the component and a margin fill it.
        margin: free space around the component on each side, as a share of its longer side.
        alone: share of examples that show a component as it is.
        contacts: share of examples that show two touching components of different classes as one mask.
        smallest: pixels a component needs to be shown.

    Raises:
        NoMaterialError: no picture has a component that large.
    """

    def __init__(
        self,
        store: PictureStore,
        *,
        side: int = 128,
        margin: float = 0.25,
        alone: float = 0.35,
        contacts: float = 0.2,
        smallest: int = 200,
    ) -> None:
        self.store, self.side, self.margin, self.alone, self.contacts = store, side, margin, alone, contacts
        self.unit = side / 8
        self.pieces: list[Piece] = []
        self.pairs: list[tuple[Piece, Piece]] = []
        for i in range(len(store)):
            picture = store[i]
            found = {piece.number: piece for piece in find_pieces(picture, i, smallest)}
            self.pieces += [piece for piece in found.values() if not picture.doubtful[piece.number - 1]]
            for a, b in sorted(touching(picture)):
                if a in found and b in found and found[a].class_id != found[b].class_id:
                    self.pairs.append((found[a], found[b]))
        if not self.pieces:
            raise NoMaterialError(f"no component of {smallest} pixels looks like one object, to press others against")
        self.kinds: dict[int, list[Piece]] = {}
        for piece in self.pieces:
            self.kinds.setdefault(piece.class_id, []).append(piece)
        weights = np.array([len(self.kinds[piece.class_id]) ** -0.5 for piece in self.pieces])
        self.odds = weights / weights.sum()  # between one share a component and one share a class

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One example, see :func:`as_example`."""
        kind = rng.random()
        if kind < self.alone:
            image, objects, crowd = self._alone(self._any(rng), rng)
        elif kind < self.alone + self.contacts and self.pairs:
            image, objects, crowd = self._contact(rng)
        else:
            image, objects, crowd = self._crowded(rng)
        image, objects = resize(image, (self.side, self.side)), resize(objects, (self.side, self.side), exact=True)
        if rng.random() < 0.5:
            image, objects = image[:, ::-1], objects[:, ::-1]
        if rng.random() < 0.5:
            image = _recolour(image, rng)
        return as_example(image, objects, self.unit, crowd)

    def _any(self, rng: np.random.Generator) -> Piece:
        return self.pieces[rng.choice(len(self.pieces), p=self.odds)]

    def _frame(self, box: Box, rng: np.random.Generator) -> Box:
        """The window of a component, shifted and scaled a little."""
        y0, x0, y1, x1 = window(box, self.margin)
        side = max(round((y1 - y0) * np.exp(rng.uniform(-0.25, 0.25))), 8)
        top = round((y0 + y1 - side) / 2 + rng.uniform(-0.08, 0.08) * side)
        left = round((x0 + x1 - side) / 2 + rng.uniform(-0.08, 0.08) * side)
        return top, left, top + side, left + side

    def _alone(self, piece: Piece, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
        picture, box = self.store[piece.picture], self._frame(piece.box, rng)
        objects = (cut_out(picture.labels, box) == piece.number).astype(np.int32)
        return cut_out(picture.image, box).astype(np.float32), objects, ONE

    def _contact(self, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
        a, b = self.pairs[rng.integers(len(self.pairs))]
        picture, box = self.store[a.picture], self._frame(around([a.box, b.box]), rng)
        labels = cut_out(picture.labels, box)
        objects = (labels == a.number).astype(np.int32) + 2 * (labels == b.number)
        return cut_out(picture.image, box).astype(np.float32), objects.astype(np.int32), MANY

    def _crowded(self, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
        piece = self._any(rng)
        picture = self.store[piece.picture]
        y0, x0, y1, x1 = piece.box
        longer = max(y1 - y0, x1 - x0)
        reach, middle = round(1.6 * longer) + 4, ((y0 + y1) // 2, (x0 + x1) // 2)
        box = (middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach)
        zoom = min(1.0, 0.9 * self.side / longer)
        side = round(2 * reach * zoom)
        objects = resize((cut_out(picture.labels, box) == piece.number).astype(np.int32), (side, side), exact=True)
        inside = resize(cut_out(np.ones(picture.labels.shape, np.uint8), box), (side, side), exact=True) > 0
        image = resize(cut_out(picture.image, box), (side, side)).astype(np.float32)
        canvas = Canvas(image, objects, np.zeros(objects.shape, bool), inside)
        if not objects.any():
            return self._alone(piece, rng)
        for _ in range(min(int(rng.geometric(0.6)), 4)):
            onto = int(rng.integers(1, canvas.objects.max() + 1))
            donor = self._donor(piece, zoom, side, rng)
            press(canvas, donor, onto, side_angle(rng), rng, overlap=rng.uniform(0.01, 0.4))
        together, parts = cv2.connectedComponents((canvas.objects > 0).astype(np.uint8), connectivity=8)
        largest = np.bincount(parts[canvas.objects == 1], minlength=together).argmax()
        objects = np.where(parts == largest, canvas.objects, 0).astype(np.int32)
        rows, columns = np.nonzero(objects)
        bounds = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        frame = self._frame(bounds, rng)
        crowd = MANY if len(np.unique(objects)) > 2 else ONE
        return cut_out(np.clip(canvas.image, 0, 255), frame), cut_out(objects, frame), crowd

    def _donor(self, piece: Piece, zoom: float, side: int, rng: np.random.Generator) -> Donor:
        """An object, mostly of the same class, brought to about the size of ``piece``."""
        own = self.kinds[piece.class_id]
        pool = own if len(own) > 1 and rng.random() < 0.85 else self.pieces
        other = pool[rng.integers(len(pool))]
        picture = self.store[other.picture]
        image, mask = cut_out(picture.image, other.box), cut_out(picture.labels, other.box) == other.number
        scale = zoom * (piece.area / other.area) ** 0.5 * float(np.exp(rng.normal(0, 0.35)))
        scale = min(scale, 0.9 * side / max(mask.shape))
        donor = resized_donor(image, mask, scale, mirrored=rng.random() < 0.5)
        return donor._replace(image=_recolour(donor.image, rng)) if rng.random() < 0.7 else donor


def as_example(image: npt.NDArray[Any], objects: npt.NDArray[Any], unit: float, crowd: float) -> dict[str, Tensor]:
    """What :class:`pixelkin.models.mask_unet.MaskUNet` learns from.

    Args:
        image: (H, W, 3), 0..255.
        objects: (H, W) integers, H and W even: 0 none, -1 foreground of unknown identity, else the object's number.
        unit: pixels that count as 1 in the distance channel.
        crowd: whether the mask holds many objects (1), one (0), or nobody knows (-1).

    Returns:
        ``image`` (3, H, W) float 0..1; ``mask`` (2, H, W), see :func:`mask_channels`; ``objects`` (H/2, W/2) int64;
        ``crowd`` ().
    """
    return {
        "image": torch.from_numpy(np.ascontiguousarray(np.clip(image, 0, 255).transpose(2, 0, 1), np.float32) / 255),
        "mask": torch.from_numpy(mask_channels(objects != 0, unit)),
        "objects": torch.from_numpy(np.ascontiguousarray(objects[::2, ::2], np.int64)),
        "crowd": torch.tensor(crowd),
    }


def mask_channels(mask: npt.NDArray[np.bool_], unit: float) -> npt.NDArray[np.float32]:
    """(H, W) bool to (2, H, W): the mask, and the distance to its outside in ``unit`` pixels."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.stack([mask.astype(np.float32), distance / unit])


def _recolour(image: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    tint = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, (1, 1, 3))
    return np.clip(image * tint + rng.uniform(-20, 20), 0, 255).astype(np.float32)


def _age(image: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Blur, light, noise and now and then a negative, over the whole scene, so that seams are nothing special."""
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2)))
    lit = image * rng.uniform(0.7, 1.3) + rng.uniform(-15, 15) + rng.normal(0, rng.uniform(0, 4), image.shape)
    return np.clip(255 - lit if rng.random() < 0.15 else lit, 0, 255).astype(np.float32)
