"""Pictures of several annotation files, numbered so that equal ids don't collide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from megdet_hvd.data.batch import Detections
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.evaluation.boxes import FoundBoxes, GroundTruth, flatten


@dataclass(frozen=True)
class Numbering:
    """The evaluated pictures, by annotation file and then by id.

    That is the order in which ``COCOeval`` takes the pictures of one file, so that detections
    with equal scores fall in the same order as there.
    """

    index: ImageIndex
    positions: tuple[int, ...]
    """Position in the index of number 0, 1, …"""

    @classmethod
    def of(cls, index: ImageIndex, positions: Sequence[int]) -> "Numbering":
        """Number the pictures at these positions of the index."""
        chosen = np.asarray(positions, np.int64)
        order = np.lexsort((index.image_ids[chosen], index.sources[chosen]))
        return cls(index, tuple(int(position) for position in chosen[order]))

    def ground_truth(self) -> GroundTruth:
        """The true boxes of the numbered pictures, crowds included."""
        index = self.index
        bounds = [(index.offsets[p], index.offsets[p + 1]) for p in self.positions]
        counts = [int(end - begin) for begin, end in bounds]
        spans = [np.arange(begin, end) for begin, end in bounds]
        rows = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        return GroundTruth(
            images=len(self.positions),
            categories=index.categories,
            owners=np.repeat(np.arange(len(self.positions)), counts),
            labels=index.labels[rows],
            boxes=index.raw_boxes[rows],
            areas=index.areas[rows],
            crowds=index.crowds[rows],
        )

    def found_boxes(self, detections: Mapping[int, Detections]) -> FoundBoxes:
        """Detections by position in the index, as flat arrays by number."""
        return flatten(
            {
                number: detections[position]
                for number, position in enumerate(self.positions)
                if position in detections
            }
        )
