"""Detections as flat arrays: what they hold, and that millions of boxes are in memory once."""

import tracemalloc

import torch

from megdet_hvd.data.batch import Detections
from megdet_hvd.evaluation.boxes import flatten


def some(count: int, start: float) -> Detections:
    corners = start + torch.arange(4 * count, dtype=torch.float32).reshape(count, 4)
    return Detections(corners, torch.full((count,), 0.5), torch.full((count,), 3))


def test_corners_become_sides_by_number_of_picture() -> None:
    found = flatten({5: some(2, 0.12345), 1: some(0, 0.0), 2: some(1, 7.0)})
    assert found.owners.tolist() == [2, 5, 5] and found.labels.tolist() == [3, 3, 3]
    assert found.boxes.tolist() == [[7, 8, 2, 2], [0.123, 1.123, 2, 2], [4.123, 5.123, 2, 2]]
    assert found.scores.tolist() == [0.5, 0.5, 0.5]
    assert flatten({}).boxes.shape == (0, 4)


def test_no_second_copy_of_them_is_made() -> None:
    detections = {number: some(100, 0.0) for number in range(300)}
    tracemalloc.start()
    try:
        found = flatten(detections)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = (found.owners, found.labels, found.boxes, found.scores)
    assert kept >= sum(array.nbytes for array in arrays)
    assert peak < 1.2 * kept
