"""How good predictions are: COCO and VOC average precision, mIoU, video J and F."""

from pixelkin.metrics.average_precision import AveragePrecision
from pixelkin.metrics.crowding import crowded, divided
from pixelkin.metrics.evaluation import PROTOCOLS, Result, evaluate
from pixelkin.metrics.semantic import MeanIoU
from pixelkin.metrics.video import boundary_accuracy, judge_sequence, region_similarity
from pixelkin.metrics.voc import VOCAveragePrecision

__all__ = [
    "PROTOCOLS",
    "AveragePrecision",
    "MeanIoU",
    "Result",
    "VOCAveragePrecision",
    "boundary_accuracy",
    "crowded",
    "divided",
    "evaluate",
    "judge_sequence",
    "region_similarity",
]
