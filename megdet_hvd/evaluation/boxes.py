"""Ground truth and detections as flat arrays, the form in which they are scored."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.data.batch import Detections

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroundTruth:
    """The true boxes of n pictures, m in all. Pictures without boxes count too."""

    images: int
    """n; pictures are numbered 0…n-1 here, whatever their ids in the files are."""
    categories: tuple[str, ...]
    """Names of labels 1…K."""
    owners: Ints
    """(m,) number of each box's picture."""
    labels: Ints
    """(m,) 1…K."""
    boxes: Floats
    """(m, 4) x y w h as the annotation file has them, pixels."""
    areas: Floats
    """(m,) the file's ``area`` (of the object's outline): decides small, medium and large."""
    crowds: NDArray[np.bool_]
    """(m,) crowds: detections on them count neither way."""


@dataclass(frozen=True)
class FoundBoxes:
    """The detections of all pictures, d in all, by picture and best first within it."""

    owners: Ints
    """(d,) number of each box's picture."""
    labels: Ints
    """(d,) 1…K."""
    boxes: Floats
    """(d, 4) x y w h, pixels of the original picture, rounded as they are written to JSON."""
    scores: Floats
    """(d,) 0…1."""


DECIMALS = 3
"""Thousandths of a pixel: the results file stays small, and AP is computed from the same."""


def flatten(found: Mapping[int, Detections]) -> FoundBoxes:
    """Detections by number of picture (tensors on the CPU) as flat arrays."""
    numbers = sorted(found)
    counts = [len(found[number].scores) for number in numbers]
    ends = np.cumsum(counts, dtype=np.int64).tolist()
    total = ends[-1] if ends else 0
    boxes, scores = np.empty((total, 4)), np.empty(total)
    labels = np.empty(total, np.int64)
    # Each array is filled in place: millions of boxes are in memory once.
    for number, count, end in zip(numbers, counts, ends, strict=True):
        own = found[number]
        boxes[end - count : end] = np.asarray(own.boxes).reshape(-1, 4)
        scores[end - count : end] = np.asarray(own.scores)
        labels[end - count : end] = np.asarray(own.labels)
    with np.errstate(invalid="ignore"):  # infinite corners
        boxes[:, 2:] -= boxes[:, :2]
    return FoundBoxes(
        owners=np.repeat(np.asarray(numbers, np.int64), counts),
        labels=labels,
        boxes=np.round(boxes, DECIMALS, out=boxes),
        scores=scores,
    )
