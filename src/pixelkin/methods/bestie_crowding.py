"""Crowding for BESTIE: a certified object of another image pressed against one of a crop, so that both are known.

Certified objects stand alone, or there would be no telling, so a network that learns from nothing else has never seen
two of a class touch. This shows it such pairs; SISeg's crowding (:mod:`pixelkin.cues.crowding`) is the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pixelkin.cues.pieces import Picture, cut_out, find_pieces, resize
from pixelkin.cues.pressing import Canvas, press, resized_donor, side_angle
from pixelkin.cues.transfer import nearest_pixels, transfer
from pixelkin.data import Dataset, Sample
from pixelkin.data.components import class_components
from pixelkin.methods.bestie_config import CenterConfig
from pixelkin.methods.bestie_views import Places, View, enough_seen, held, homes_of, labelled
from pixelkin.methods.windows import Window
from pixelkin.models.center_fields import STRIDE

TRIES = 10
"""Pairs of a partner and another image that are tried for one example."""

SMALLER, LARGER = 0.7, 1.4
"""Side of the donor over that of its partner, sides being square roots of areas."""

MAGNIFIED = 3.0
"""A donor that would be enlarged more is too coarse."""

OVERLAP = 0.3
"""Largest share of the smaller object that the other hides."""

MARGIN = 6
"""Pixels around a donor that the soft seam may need."""


class Certified(NamedTuple):
    """An object cut out of its image.

    Attributes:
        class_id: its class.
        image: (h, w, 3) uint8 RGB, a little more than the object.
        mask: (h, w) bool.
        witness: (2,) (y, x) in them of the point that certifies it.
    """

    class_id: int
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    witness: Places


class Crowder:
    """Presses certified objects of other images of a dataset against those of a crop; holds one image at a time.

    Args:
        dataset: images with semantic maps and points.
        classes: ids that the network knows.
        config: the settings.
        mend: whether the points mend the classes of the maps.
    """

    def __init__(self, dataset: Dataset, classes: Sequence[int], config: CenterConfig, *, mend: bool = False) -> None:
        self.dataset, self.classes, self.config, self.mend = dataset, classes, config, mend
        named: dict[int, list[int]] = {}
        for index, sample in enumerate(dataset):
            for class_id in {point.label for point in sample.points or ()}:
                named.setdefault(class_id, []).append(index)
        self.images = {class_id: np.array(indices) for class_id, indices in named.items()}
        self.barren: set[tuple[int, int]] = set()  # spares looking again; changes no outcome

    def __call__(
        self, view: View, image: npt.NDArray[np.uint8], window: Window, index: int, rng: np.random.Generator
    ) -> tuple[View, npt.NDArray[np.uint8]]:
        """A crop and its (3, side, side) image with one more object, see :func:`press_against`.

        Both are as they were where the crop has nothing certified, or no donor was found or fitted.

        Args:
            view: what is certified in the crop.
            image: of the crop.
            window: the crop.
            index: of its image in the dataset, which gives no donor.
            rng: decides everything.

        Raises:
            ImageError: a file that cannot be read.
        """
        inside = held(np.ones(window.size, np.bool_), window, False)
        for _ in range(TRIES if len(view.classes) else 0):
            partner = int(rng.integers(len(view.classes)))
            donor = self._donor(int(view.classes[partner]), index, rng)
            made = None if donor is None else press_against(view, image, inside, partner, donor, self.config, rng)
            if made is not None:
                return made
        return view, image

    def _donor(self, class_id: int, index: int, rng: np.random.Generator) -> Certified | None:
        """One of another image, if that has any."""
        images = self.images.get(class_id, np.zeros(0, np.int64))
        images = images[images != index]
        if not len(images):
            return None
        chosen = int(rng.choice(images))
        if (chosen, class_id) in self.barren:
            return None
        found = certified_object(self.dataset[chosen], class_id, self.classes, self.config, rng, mend=self.mend)
        if found is None:
            self.barren.add((chosen, class_id))
        return found


def certified_object(
    sample: Sample,
    class_id: int,
    classes: Sequence[int],
    config: CenterConfig,
    rng: np.random.Generator,
    *,
    mend: bool = False,
) -> Certified | None:
    """A random object of a class that an image's points certify: whole, and all of its component.

    None if there is none, or if a point of the class lies on nothing: it may be another object of a component beside
    it. Images are looked at no larger than crops are cut from.

    Args:
        sample: an image with a semantic map and points.
        class_id: of the object.
        classes: ids that the network knows.
        config: the settings.
        rng: which one.
        mend: whether the points mend the classes of the map.

    Raises:
        ImageError: no semantic map, or a file that cannot be read.
    """
    scale = min(1.0, config.long_side[1] / max(sample.size))
    height, width = (max(1, round(side * scale)) for side in sample.size)
    whole, places, ids = labelled(sample, (height, width), classes, mend=mend)
    transferred = transfer(whole, places, ids, min_area=config.min_area)
    if class_id in ids[homes_of(transferred, places, ids) < 0]:
        return None
    image = sample.image
    image = image if image.shape[:2] == (height, width) else np.asarray(resize(image, (height, width)), np.uint8)
    names = transferred.classes
    picture = Picture(image, transferred.labels, names, names != class_id, scale)
    pieces = [piece for piece in find_pieces(picture, 0, 1) if piece.solitary]
    if not pieces:
        return None
    piece = pieces[rng.integers(len(pieces))]
    y0, x0, y1, x1 = piece.box
    box = (max(y0 - MARGIN, 0), max(x0 - MARGIN, 0), min(y1 + MARGIN, height), min(x1 + MARGIN, width))
    witness = places[transferred.points[piece.number - 1]] - box[:2]
    return Certified(class_id, cut_out(image, box), cut_out(transferred.labels, box) == piece.number, witness)


def press_against(
    view: View,
    image: npt.NDArray[np.uint8],
    inside: npt.NDArray[np.bool_],
    partner: int,
    found: Certified,
    config: CenterConfig,
    rng: np.random.Generator,
) -> tuple[View, npt.NDArray[np.uint8]] | None:
    """A crop in which an object touches a certified one and is certified, too, the last of the view's instances.

    What it hides is its own; of an instance that shows too little after that nothing is known any more. Points that it
    hides say nothing more, and a crowded component that loses one is not to be divided.

    Args:
        view: what is certified in the crop.
        image: (3, H, W) uint8 of the crop.
        inside: (H, W) bool, where the crop is within its image.
        partner: row of the instance to press against.
        found: what to press; it is brought to about the partner's size.
        config: the settings.
        rng: decides size, side, what lies in front, and the seam.

    Returns:
        The new view and image; None if it does not fit, or either of the two would show too little.
    """
    count, shape = len(view.classes), view.labels.shape
    scale = np.exp(rng.uniform(np.log(SMALLER), np.log(LARGER)))
    scale *= np.sqrt((view.labels == partner + 1).sum() / found.mask.sum())
    if scale > MAGNIFIED:
        return None
    mirrored = bool(rng.random() < 0.5)
    donor = resized_donor(found.image, found.mask, float(scale), mirrored=mirrored)
    objects = _objects(view)
    number = objects.max() + 1
    canvas = Canvas(image.transpose(1, 2, 0).astype(np.float32), objects, np.zeros(shape, np.bool_), inside)
    corner = press(canvas, donor, partner + 1, side_angle(rng), rng, overlap=rng.uniform(0, OVERLAP), light=0)
    if corner is None:
        return None
    there = canvas.objects == number

    witness = (found.witness + 0.5) * donor.mask.shape / found.mask.shape - 0.5
    if mirrored:
        witness[1] = donor.mask.shape[1] - 1 - witness[1]
    witnesses = np.concatenate([view.witnesses, [witness + corner]])
    labels = np.where(there, np.int32(count + 1), view.labels)
    if config.center == "point":  # centres that are not seen cannot be learned
        at = nearest_pixels(witnesses, shape)
        blind = there[at[:, 0], at[:, 1]] != (np.arange(count + 1) == count)
        labels[np.isin(labels, np.flatnonzero(blind) + 1)] = 0
    labels, kept = enough_seen(labels, witnesses, config, shape[0])
    if partner not in kept or count not in kept:
        return None
    near = cv2.dilate(there.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if not (near & (labels == np.flatnonzero(kept == partner)[0] + 1)).any():
        return None

    hidden = _under(there, view.crowded)
    homes = _under(view.components, view.crowded)
    torn = np.unique(homes[hidden])
    components = np.where(np.isin(view.components, torn), 0, view.components)
    crowded, spare = ~np.isin(homes, torn), ~_under(there, view.spare)
    made = View(
        np.where(there, found.class_id, view.semantic),
        labels,
        np.append(view.classes, found.class_id)[kept],
        witnesses[kept],
        np.where(there, view.components.max() + 1, components).astype(np.int32),
        view.crowded[crowded],
        view.crowded_classes[crowded],
        view.spare[spare],
        view.spare_classes[spare],
    )
    return made, np.ascontiguousarray(canvas.image.round().clip(0, 255).astype(np.uint8).transpose(2, 0, 1))


def _objects(view: View) -> npt.NDArray[np.int32]:
    """The instances of a view by number, then what else of its map may be one.

    Rims are nobody's: instances divided on cells leave such crumbs, which would keep others from touching them.
    """
    others = class_components(np.where(view.labels > 0, 0, view.semantic)).labels
    thick = cv2.erode((others > 0).astype(np.uint8), np.ones((STRIDE, STRIDE), np.uint8)) > 0
    others = np.where(np.isin(others, others[thick]), others, 0)
    return np.where(others > 0, others + len(view.classes), view.labels).astype(np.int32)


def _under(values: npt.NDArray[Any], places: Places) -> npt.NDArray[Any]:
    """The (P,) values of an (H, W) map at (P, 2) places within it."""
    at = nearest_pixels(places, values.shape)
    return values[at[:, 0], at[:, 1]]
