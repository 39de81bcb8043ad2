"""A small detector with random weights that detects a lot, in a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.checkpoint.file import save_checkpoint
from megdet_hvd.config.load import config_to_dict, load_config
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.detector import Detector
from tests.evaluation.over_ranks import SMALL
from tests.evaluation.sets import CATEGORY_IDS, NAMES


def write_checkpoint(path: Path, overrides: Sequence[str] = ()) -> Detector:
    """Write it and return the detector, in training mode as it would be in a run."""
    config = load_config(None, [*SMALL, *overrides])
    detector = build_detector(config.model, len(NAMES), local_norm(config.model), seed=3)
    save_checkpoint(
        path,
        {
            "config": config_to_dict(config),
            "categories": list(NAMES),
            "category_ids": list(CATEGORY_IDS),
            "model": detector.state_dict(),
            "images_seen": 800,
            "iteration": 100,
        },
    )
    return detector
