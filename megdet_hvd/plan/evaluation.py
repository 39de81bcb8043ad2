"""How long evaluations take: inference over all GPUs, then the COCO numbers on one rank."""

import math

COCO_NUMBERS_S = 5.2
"""Processor seconds from detections in memory to the 12 numbers: 5000 pictures × 100 detections.
Measured here, `python -m megdet_hvd.bench eval`, AMD EPYC, no GPU."""
COCO_NUMBERS_IMAGES = 5000


def evaluations_of(end_epoch: float, every_epochs: float) -> int:
    """Each time so many epochs have passed, and at the end; 0: at the end only."""
    if every_epochs <= 0:
        return 1
    return math.ceil(round(end_epoch / every_epochs, 9))


def evaluation_s(images: int, gpus: int, inference_s: float) -> float:
    """Seconds of one evaluation: the rank with most pictures, and the numbers."""
    return math.ceil(images / gpus) * inference_s + COCO_NUMBERS_S * images / COCO_NUMBERS_IMAGES
