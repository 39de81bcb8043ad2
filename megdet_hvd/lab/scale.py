"""How large the experiments are: *full* and *gradual* take hours of two cores, *quick* minutes.

Everything of the paper is there at a size that a processor can do: its detector slim, its pictures
small, its batches 16 … 128 as 8 … 64. *Gradual* differs in what decided all else in *full*: a
warm-up has as many updates at every batch, and the rate a picture is the paper's. *Quick* shows
that every part runs; its numbers say nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

BASE_BATCH = 8
"""k = 1: what the paper's 16 stands for."""
BN_SIZE = 8
"""Images a statistic wherever the BN size is not what is studied: a larger batch must not win by
its larger statistics."""
BATCHES = (8, 16, 32, 64)
"""k = 1, 2, 4, 8, beside the paper's 16, 32, 64, 128."""
JUDGED_BATCHES = (128, 256)
"""Judged by whether they diverge only: at equal epochs they would take too few updates."""
TUNED_RATES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Peak rates of the baseline, from which r is chosen."""
BN_SIZES = (2, 4, 8, 16, 32, 64)
"""Images a statistic at a batch of 64."""


@dataclass(frozen=True)
class LabScale:
    """The sizes of one way of running the experiments."""

    name: str
    """Records of one scale lie beside each other's, never among them."""
    train_images: int
    val_images: int
    side: int
    """Longer side of a scene, pixels."""
    shrink: float
    """Epochs of a policy, and its drops, are multiplied by it."""
    seeds: tuple[int, ...]
    base_rate: float
    """r, of a batch of ``BASE_BATCH``: tuned once on the baseline, then the same everywhere."""
    warmup_updates: int | None
    """Of the warm-up, at every batch; None: it is one epoch long, whatever the batch."""
    crop_scenes: int
    """Scenes that the crops of the pretraining are cut from."""
    crop_epochs: float
    rate_factors: tuple[float, ...]
    """Peak rates tried, in multiples of k·r."""
    rate_updates: int
    """Updates that a rate is tried for; a fifth is warm-up where ``warmup_updates`` is None."""
    judged_updates: int
    """Those of the judged batches, likewise: 100 are at the peak rate."""
    variance_sizes: tuple[int, ...]
    """N of the gradient's variance; at least two of them a whole statistic or more."""
    variance_pictures: int
    """Cut into batches of each N."""
    overhead_turns: int


FULL = LabScale(
    name="full",
    train_images=1000,
    val_images=300,
    side=96,
    shrink=1.0,
    seeds=(0, 1, 2),
    base_rate=0.04,
    warmup_updates=None,
    crop_scenes=2500,
    crop_epochs=10.0,
    rate_factors=(0.5, 1.0, 2.0, 4.0, 8.0),
    rate_updates=100,
    judged_updates=125,
    variance_sizes=(1, 2, 4, 8, 16, 32, 64),
    variance_pictures=512,
    overhead_turns=7,
)
GRADUAL = replace(
    FULL,
    name="gradual",
    train_images=2000,
    base_rate=0.01,
    warmup_updates=100,
    rate_factors=(*FULL.rate_factors, 16.0),
    rate_updates=200,
    judged_updates=200,
)
QUICK = LabScale(
    name="quick",
    train_images=128,
    val_images=32,
    side=96,
    shrink=2 / 11,
    seeds=(0,),
    base_rate=0.04,
    warmup_updates=None,
    crop_scenes=200,
    crop_epochs=2.0,
    rate_factors=(1.0, 8.0),
    rate_updates=8,
    judged_updates=10,
    variance_sizes=(1, 4, 8, 16),
    variance_pictures=64,
    overhead_turns=2,
)


def scene_settings(scale: LabScale) -> Mapping[str, Any]:
    """The slim detector and its pictures, by dotted name of the setting.

    ResNet-18, a pyramid of 64 channels, a box head of 256 units on 64 boxes a picture: 0.05
    processor seconds a picture of 96 pixels. The scenes' light, contrast and tint vary from picture
    to picture, without which a statistic over few of them would be as good as one over many.
    """
    return {
        "data.kind": "scenes",
        "data.scenes.train_images": scale.train_images,
        "data.scenes.val_images": scale.val_images,
        "data.scenes.size": scale.side,
        "data.min_sizes": [scale.side],
        "data.max_size": scale.side,
        "model.backbone": "resnet18",
        "model.fpn_channels": 64,
        "model.anchor_sizes": [8, 16, 32, 64, 128],
        "model.rpn.pre_nms_train": 200,
        "model.rpn.pre_nms_test": 200,
        "model.rpn.post_nms_train": 100,
        "model.rpn.post_nms_test": 100,
        "model.roi.width": 256,
        "model.roi.boxes_per_image": 64,
    }
