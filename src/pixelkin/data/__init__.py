"""What everything speaks: Instances, Sample, Dataset."""

from pixelkin.data.dataset import Dataset
from pixelkin.data.instances import RLE, Instances, decode_mask, encode_mask
from pixelkin.data.sample import ImageError, Point, Sample

__all__ = ["RLE", "Dataset", "ImageError", "Instances", "Point", "Sample", "decode_mask", "encode_mask"]
