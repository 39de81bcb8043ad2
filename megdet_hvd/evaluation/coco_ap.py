"""COCO's 12 numbers and AP per class."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from megdet_hvd.evaluation.boxes import FoundBoxes, GroundTruth
from megdet_hvd.evaluation.coco_eval import coco_numbers
from megdet_hvd.serialize import serializable

STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Names of the 12 numbers, in pycocotools' order. AP is the paper's mmAP, AP@[.50:.95]."""

_MEANING = (
    "AP    IoU 0.50:0.95",
    "AP50  IoU 0.50",
    "AP75  IoU 0.75",
    "APs   small, area < 32²",
    "APm   medium",
    "APl   large, area > 96²",
    "AR1   1 detection a picture",
    "AR10  10 detections a picture",
    "AR100 100 detections a picture",
    "ARs   small",
    "ARm   medium",
    "ARl   large",
)


@serializable
@dataclass(frozen=True)
class CocoResult:
    """How well the detections of a set of pictures fit its ground truth."""

    stats: dict[str, float | None]
    """The 12 numbers of ``STATS``, 0…1. None where there is no ground truth of that kind
    (pycocotools says -1, which is easily averaged by mistake)."""
    per_class: dict[str, float | None]
    """AP@[.50:.95] by class name; None for a class without ground truth."""
    images: int
    """Pictures scored, those without boxes included."""
    detections: int
    """Boxes found in them."""
    unreadable: int = 0
    """Pictures among them that could not be decoded; they count as having no detections."""

    @property
    def ap(self) -> float | None:
        """mmAP; None where there is no ground truth at all: no detector is the best there."""
        return self.stats["AP"]

    @property
    def ap50(self) -> float | None:
        """AP at IoU 0.50; None where there is no ground truth at all."""
        return self.stats["AP50"]

    def as_metrics(self) -> dict[str, Any]:
        """Plain values for a line of ``metrics.jsonl``."""
        return {**self.stats, "per_class": dict(self.per_class)}

    def lines(self) -> list[str]:
        """The numbers as text, one a line, and AP per class, lowest first."""
        lines = [f"{self.images} pictures, {self.detections} detections"]
        if self.unreadable:
            lines[0] += f", {self.unreadable} pictures unreadable (counted as without detections)"
        for name, meaning in zip(STATS, _MEANING, strict=True):
            lines.append(f"  {meaning:<32} {_shown(self.stats[name])}")
        width = max([len(name) for name in self.per_class], default=0)
        lines.append(f"AP per class ({len(self.per_class)} classes)")
        ordered = sorted(self.per_class.items(), key=lambda item: (item[1] is None, item[1] or 0))
        lines += [f"  {name:<{width}} {_shown(ap)}" for name, ap in ordered]
        return lines


def in_short(ap: float | None, ap50: float | None, images: int) -> str:
    """A result in a line of a log."""
    return f"mmAP {_shown(ap)}, AP@.5 {_shown(ap50)} on {images} pictures"


def score(truth: GroundTruth, found: FoundBoxes, *, unreadable: int = 0) -> CocoResult:
    """Compare detections with ground truth as COCO does.

    The numbers are those of pycocotools' ``COCOeval`` on the annotation file and the results file,
    with three of its traps avoided: no detections at all score 0 (``loadRes`` crashes on an empty
    list), an annotation with id 0 can be matched, and equal image ids of two files stay apart.
    """
    numbers, precision = coco_numbers(truth, found)
    per_class = {name: _mean(precision[:, :, k, 0, -1]) for k, name in enumerate(truth.categories)}
    stats = {
        name: None if value < 0 else float(value)
        for name, value in zip(STATS, numbers, strict=True)
    }
    return CocoResult(stats, per_class, truth.images, len(found.scores), unreadable)


def _mean(precision: Any) -> float | None:
    known = precision[precision > -1]
    return float(np.mean(known)) if known.size else None


def _shown(value: float | None) -> str:
    return "no ground truth" if value is None else f"{value:.3f}"
