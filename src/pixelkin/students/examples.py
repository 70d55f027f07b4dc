"""Training examples of a student, and batches of images of unequal size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelkin.data import Dataset
from pixelkin.students.losses import Target
from pixelkin.students.pictures import Picture, flipped, load_picture, paste, resized

MASK_WINDOW = 112
"""Side of the window in which a mask is kept, stretched over its box."""

RAGGED = ("boxes", "classes", "weights", "masks", "doubtful")
"""What has as many rows as an image has labels."""


def fit_size(size: tuple[int, int], short_side: float, long_side: float) -> tuple[int, int]:
    """(height, width) of an image enlarged or shrunk until its short side fits, or its long side if that is sooner."""
    scale = min(short_side / min(size), long_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


class LabelledImages:
    """Makes the training examples: a random image, flipped, in a random size, perhaps with things of another pasted on.

    Args:
        dataset: images with instances.
        class_ids: the class id of each index, from index 1 on.
        mean_score: scores become weights as multiples of it; 0: all labels weigh 1.
        short_side: of the images, in pixels.
        long_side: and at most so many.
        jitter: least and greatest factor of both sides.
        flip: whether half of the images are flipped.
        copy_paste: share of the images that get things of another pasted on.
        min_score: labels below it are not learned.
        unknown: whether something may be unknown, see :func:`~pixelkin.students.pictures.load_picture`.
    """

    def __init__(
        self,
        dataset: Dataset,
        class_ids: Sequence[int],
        *,
        mean_score: float,
        short_side: int,
        long_side: int,
        jitter: tuple[float, float],
        flip: bool,
        copy_paste: float,
        min_score: float,
        unknown: bool,
    ) -> None:
        self.dataset = dataset
        self.index = {identity: i for i, identity in enumerate(class_ids, start=1)}
        self.mean_score = mean_score
        self.sides = short_side, long_side
        self.jitter, self.flip, self.copy_paste = jitter, flip, copy_paste
        self.min_score, self.unknown = min_score, unknown

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One example: ``image`` (3, h, w) uint8, and the fields of :class:`Target` as tensors."""
        picture = self._picture(rng)
        if rng.random() < self.copy_paste:
            picture = paste(picture, self._picture(rng), rng)
        factor = float(rng.uniform(*self.jitter))
        height, width = picture.image.shape[:2]
        rows, columns = fit_size((height, width), *(factor * side for side in self.sides))
        scale = np.array([columns / width, rows / height] * 2, dtype=np.float32)
        boxes = np.array([thing.box for thing in picture.things], dtype=np.float32).reshape(-1, 4) * scale
        windows = [resized(thing.mask.astype(np.float32), (MASK_WINDOW, MASK_WINDOW)) for thing in picture.things]
        masks = np.array(windows, dtype=np.float32).reshape(-1, MASK_WINDOW, MASK_WINDOW)
        scores = np.array([thing.score for thing in picture.things], dtype=np.float32)
        weights = scores / self.mean_score if self.mean_score else np.ones_like(scores)
        unknown = resized(picture.unknown.astype(np.float32), (columns, rows)) >= 0.5
        return {
            "image": torch.from_numpy(_planes(resized(picture.image, (columns, rows)))),
            "boxes": torch.from_numpy(boxes),
            "classes": torch.tensor([self.index[thing.label] for thing in picture.things], dtype=torch.long),
            "weights": torch.from_numpy(weights),
            "masks": torch.from_numpy((255 * masks).round().astype(np.uint8)),
            "doubtful": torch.from_numpy(picture.doubtful * scale),
            "unknown": torch.from_numpy(unknown),
        }

    def _picture(self, rng: np.random.Generator) -> Picture:
        sample = self.dataset[int(rng.integers(len(self.dataset)))]
        picture = load_picture(sample, min_score=self.min_score, unknown=self.unknown)
        return flipped(picture) if self.flip and rng.random() < 0.5 else picture


def _planes(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


class Padding:
    """Puts examples of unequal size into one batch.

    Images and unknown regions are laid into the upper left corner of a common frame, whose sides are multiples of a
    divisor; what is listed per label is joined, with how many rows belong to each image in ``NAME_rows``.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor

    def __call__(self, examples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The batch of some examples."""
        sizes = torch.tensor([example["image"].shape[-2:] for example in examples])
        height, width = (-(-int(side) // self.divisor) * self.divisor for side in sizes.amax(dim=0))
        images = torch.zeros((len(examples), 3, height, width), dtype=torch.uint8)
        unknown = torch.zeros((len(examples), height, width), dtype=torch.bool)
        for i, example in enumerate(examples):
            rows, columns = example["image"].shape[-2:]
            images[i, :, :rows, :columns] = example["image"]
            unknown[i, :rows, :columns] = example["unknown"]
        batch = {"images": images, "sizes": sizes, "unknown": unknown}
        for key in RAGGED:
            batch[key] = torch.cat([example[key] for example in examples])
            batch[f"{key}_rows"] = torch.tensor([len(example[key]) for example in examples])
        return batch


def unpack(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, list[Target]]:
    """Images (B, 3, H, W) in 0..1, their sizes (B, 2), and what is known of each, from a batch of :class:`Padding`."""
    parts = {key: torch.split(batch[key], batch[f"{key}_rows"].tolist()) for key in RAGGED}
    targets = [
        Target(boxes, classes, weights, masks.float() / 255, doubtful, unknown)
        for boxes, classes, weights, masks, doubtful, unknown in zip(
            *(parts[key] for key in RAGGED), batch["unknown"], strict=True
        )
    ]
    return batch["images"].float() / 255, batch["sizes"], targets
