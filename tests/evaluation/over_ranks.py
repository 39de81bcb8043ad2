"""Evaluate on however many ranks there are; rank 0 writes what came out to the file named."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from megdet_hvd.comm.session import start, stop
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.batch import Batch, Detections
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.evaluate import evaluate_detector
from megdet_hvd.model.build import build_detector, local_norm
from tests.evaluation.sets import imperfect, open_set


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


def main(kind: str, out: str, *annotation_files: str) -> None:
    """Kind: known, real, skip or stop."""
    torch.set_num_threads(1)
    world = start()
    sources = [
        AnnotationSource(annotations=file, images=str(Path(file).parent / "images"))
        for file in annotation_files
    ]
    index = open_set(*sources)
    overrides = ["data.min_sizes=[64]", "data.max_size=96", "evaluation.images_per_process=2"]
    if kind == "skip":
        overrides.append("data.unreadable_images=skip")
    config = load_config(None, overrides)
    detector: nn.Module
    if kind == "real":
        detector = build_detector(config.model, 3, local_norm(config.model), seed=0)
        detector.roi_heads.score_threshold = 0.0
    else:
        detector = Known(imperfect(index, 7))
    detector.train()
    message = ""
    try:
        evaluation = evaluate_detector(detector, index, config, world)
    except UserError as error:
        message = str(error)
    assert detector.training
    seen = getattr(detector, "seen", [])
    print(f"rank {world.rank} of {world.size} saw {sorted(seen)}; {message}", flush=True)
    if not message and world.is_main:
        content = {
            "stats": evaluation.result.stats,
            "per_class": evaluation.result.per_class,
            "unreadable": evaluation.result.unreadable,
            "boxes": {k: v.boxes.tolist() for k, v in evaluation.detections.items()},
            "scores": {k: v.scores.tolist() for k, v in evaluation.detections.items()},
        }
        Path(out).write_text(json.dumps(content))
    stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
