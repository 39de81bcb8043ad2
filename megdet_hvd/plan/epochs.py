"""Epochs to a fixed box AP by batch: what a larger batch costs on paper.

Medians of 726 MLPerf Mask R-CNN runs, v0.7 to v3.1, to box AP 0.377 with frozen BN
(github.com/mlcommons/training_results_v0.7 … v3.1): a run of ours does its policy's epochs instead.
"""

from itertools import pairwise

EPOCHS = ((128, 14.0), (144, 15.0), (256, 17.0))
"""(batch, epochs): 14 up to batch 128."""


def epochs_to_target(batch: int) -> float | None:
    """Linear between the known batches; None above 272, where nothing was published for SGD."""
    if batch <= EPOCHS[0][0]:
        return EPOCHS[0][1]
    if batch > 272:
        return None
    for (low, few), (high, many) in pairwise(EPOCHS):
        if batch <= high:
            return few + (many - few) * (batch - low) / (high - low)
    return EPOCHS[-1][1]
