"""Evaluate on however many ranks there are; each tells what came out."""

from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import AnnotationSource, Config
from megdet_hvd.data.batch import Batch, Detections
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation import gather
from megdet_hvd.evaluation.evaluate import evaluate_detector
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.model.build import build_detector, local_norm
from tests.evaluation.sets import imperfect, open_set

SMALL = (
    "data.min_sizes=[64]",
    "data.max_size=96",
    "data.workers=0",
    "evaluation.images_per_process=2",
    "model.fpn_channels=16",
    "model.roi.width=16",
    "model.rpn.post_nms_test=40",
    "model.roi.score_threshold=0",
)


class Known(nn.Module):
    """Gives the detections that were made up for each picture."""

    def __init__(self, found: dict[int, Detections]) -> None:
        super().__init__()
        self.found = found
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[int] = []

    def forward(self, batch: Batch) -> list[Detections]:
        assert not self.training
        self.seen += [info.index for info in batch.infos]
        return [self.found[info.index] for info in batch.infos]


def outcome(detector: nn.Module, index: ImageIndex, config: Config, world: World) -> dict[str, Any]:
    """Plain values of an evaluation, or the message that ended it."""
    detector.train()
    try:
        evaluation = evaluate_detector(detector, index, config, world)
    except UserError as error:
        return {"message": str(error)}
    assert detector.training
    return {
        "seen": getattr(detector, "seen", []),
        "stats": evaluation.result.stats,
        "per_class": evaluation.result.per_class,
        "unreadable": evaluation.result.unreadable,
        "boxes": {str(k): v.boxes.tolist() for k, v in evaluation.detections.items()},
        "scores": {str(k): v.scores.tolist() for k, v in evaluation.detections.items()},
    }


def source_of(folder: Path) -> AnnotationSource:
    """A set of ``write_set``."""
    return AnnotationSource(
        annotations=str(folder / "annotations.json"), images=str(folder / "images")
    )


def all_outcomes(folder: Path, world: World) -> dict[str, Any]:
    """Made-up detections on two files; a detector's own; an unreadable picture, both ways."""
    config = load_config(None, SMALL)
    skipping = load_config(None, [*SMALL, "data.unreadable_images=skip"])
    both = open_set(source_of(folder / "one"), source_of(folder / "two"))
    mixed = open_set(source_of(folder / "mixed"))
    damaged = open_set(source_of(folder / "damaged"))
    detector = build_detector(config.model, 3, local_norm(config.model), seed=0)
    return {
        "known": outcome(Known(imperfect(both, 7)), both, config, world),
        "real": outcome(detector, mixed, config, world),
        "stop": outcome(Known(imperfect(damaged, 7)), damaged, config, world),
        "skip": outcome(Known(imperfect(damaged, 7)), damaged, skipping, world),
    }


def evaluated(folder: str) -> dict[str, Any]:
    """All outcomes, as this rank has them."""
    world = start()
    outcomes = all_outcomes(Path(folder), world)
    stop()
    return outcomes


def gathered(counts: list[list[int]], most_bytes: int) -> dict[str, Any]:
    """What came of pictures with so many boxes, those of each rank in a list; and each message."""
    world = start()
    first = sum(len(one) for one in counts[: world.rank])
    found = {
        first + place: Detections(
            torch.full((count, 4), float(first + place)),
            torch.arange(count) / 8,
            torch.full((count,), world.rank + 1),
        )
        for place, count in enumerate(counts[world.rank])
    }
    with mock.patch.object(gather, "pack", wraps=gather.pack) as packed:
        taken = gather.gather_detections(found, world, most_bytes)
    stop()
    return {
        "shares": [
            [len(one.scores) for one in call.args[0].values()] for call in packed.mock_calls
        ],
        "taken": [
            [position, one.boxes[:, 0].tolist(), one.scores.tolist(), one.labels.tolist()]
            for position, one in taken.items()
        ],
    }
