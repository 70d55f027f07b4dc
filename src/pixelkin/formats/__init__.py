"""One module a format, and ``open_dataset`` for all of them."""

from pixelkin.formats.classes import read_classes, write_classes
from pixelkin.formats.coco import (
    annotation_record,
    image_record,
    instances_from_annotations,
    read_coco,
    read_coco_results,
    write_coco,
)
from pixelkin.formats.convert import convert, read_labelled
from pixelkin.formats.davis import read_davis, read_davis_masks, read_frames, write_davis
from pixelkin.formats.files import SourceError
from pixelkin.formats.folder import read_folder
from pixelkin.formats.kitti import read_kitti
from pixelkin.formats.label_png import read_label_maps, read_semantic_maps, write_label_png, write_label_pngs
from pixelkin.formats.palette import write_palette_png
from pixelkin.formats.report import ConversionReport, FileLoss
from pixelkin.formats.source import open_dataset, read_run
from pixelkin.formats.split_file import read_split_file
from pixelkin.formats.video import read_video
from pixelkin.formats.voc import read_voc, write_voc
from pixelkin.formats.wis import read_wis, read_wis_frame
from pixelkin.formats.yolo import read_yolo, write_yolo

__all__ = [
    "ConversionReport",
    "FileLoss",
    "SourceError",
    "annotation_record",
    "convert",
    "image_record",
    "instances_from_annotations",
    "open_dataset",
    "read_classes",
    "read_coco",
    "read_coco_results",
    "read_davis",
    "read_davis_masks",
    "read_folder",
    "read_frames",
    "read_kitti",
    "read_label_maps",
    "read_labelled",
    "read_run",
    "read_semantic_maps",
    "read_split_file",
    "read_video",
    "read_voc",
    "read_wis",
    "read_wis_frame",
    "read_yolo",
    "write_classes",
    "write_coco",
    "write_davis",
    "write_label_png",
    "write_label_pngs",
    "write_palette_png",
    "write_voc",
    "write_yolo",
]
