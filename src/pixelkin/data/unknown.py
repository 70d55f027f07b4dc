"""Where nobody knows what is in an image: one answer for all who learn from instances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pixelkin.data.instances import Instances
from pixelkin.data.sample import UNKNOWN, Sample

Mask = npt.NDArray[np.bool_]


def unknown_region(sample: Sample, instances: Instances, taken: Mask, doubtful: Mask) -> Mask:
    """The pixels that no label covers and that are not known to be background either.

    These are in a doubtful instance or in the sample's ``ignore``, or its semantic map calls them unknown or gives them
    a class, which no label then claims.

    Args:
        sample: the image; its ``semantic`` and ``ignore`` are used where they are there.
        instances: its instances.
        taken: (N,) which of them are labels.
        doubtful: (N,) which of them may or may not be something.

    Returns:
        (H, W) bool.
    """
    region = instances[doubtful].label_map() > 0
    if (semantic := sample.semantic) is not None:
        region |= (semantic == UNKNOWN) | (semantic > 0)
    if (ignore := sample.ignore) is not None:
        region |= ignore
    return np.asarray(region & (instances[taken].label_map() == 0))
