"""What everything speaks: Instances, Sample, Dataset."""

from pixelkin.data.dataset import Dataset
from pixelkin.data.instances import ALTERNATIVE, RLE, Instances, decode_mask, encode_mask
from pixelkin.data.sample import Camera, ImageError, Point, Sample

__all__ = [
    "ALTERNATIVE",
    "RLE",
    "Camera",
    "Dataset",
    "ImageError",
    "Instances",
    "Point",
    "Sample",
    "decode_mask",
    "encode_mask",
]
