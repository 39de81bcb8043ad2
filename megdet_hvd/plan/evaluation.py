"""How long evaluations take: inference over all GPUs, then the COCO numbers on one rank."""

import math
from fractions import Fraction

COCO_NUMBERS_S = 5.2
"""Processor seconds from detections in memory to the 12 numbers: 5000 pictures × 100 detections.
Measured here, `python -m megdet_hvd.bench eval`, AMD EPYC, no GPU."""
COCO_NUMBERS_IMAGES = 5000


def evaluations_of(iterations: int, batch: int, images: int, every_epochs: float) -> int:
    """Of a run: after each iteration that completes a period of epochs, and after the last.

    Args:
        iterations: of the run, as far as it goes.
        batch: images of one.
        images: of an epoch.
        every_epochs: the period; 0: after the last iteration only.
    """
    if every_epochs <= 0:
        return 1
    period = Fraction(str(every_epochs)) * images

    def periods(iteration: int) -> int:
        return math.floor(iteration * batch / period)

    due = min(iterations, periods(iterations))  # of several in one iteration one is measured
    last_is_due = periods(iterations) > periods(iterations - 1)
    return due if last_is_due else due + 1


def evaluation_s(images: int, gpus: int, inference_s: float) -> float:
    """Seconds of one evaluation: the rank with most pictures, and the numbers."""
    return math.ceil(images / gpus) * inference_s + COCO_NUMBERS_S * images / COCO_NUMBERS_IMAGES
