"""Parts of a run as a user might write them, for tests that name them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Batch, Detections
from megdet_hvd.evaluation.evaluate import Evaluation


class Lines:
    """Keeps what it is given, in a file of the run folder."""

    def __init__(self, run_folder: Path, config: Config, iteration: int) -> None:
        self.file = run_folder / "lines.txt"
        self.file.open("a").write(f"from {iteration}\n")

    def write(self, line: Mapping[str, Any]) -> None:
        self.file.open("a").write(f"{line['kind']} {line['iteration']}\n")

    def close(self) -> None:
        self.file.open("a").write("end\n")


def pictures(found: Evaluation) -> dict[str, float]:
    """How many pictures were evaluated."""
    return {"pictures": float(len(found.detections))}


def build(groups: list[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    """Plain SGD of torch."""
    return torch.optim.SGD(groups, lr=config.learning.base_rate)


class Tiny(nn.Module):
    """Finds one box a picture, the whole of it, of whatever class it likes best."""

    class_layers = "classes."

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4, eps=1e-3))
        self.classes = nn.Linear(4, num_classes)

    def forward(self, batch: Batch) -> Any:
        pooled = self.body(batch.images.float() / 255).mean((2, 3))
        scores = self.classes(pooled)
        if self.training:
            return {"guess": scores.square().sum(1)}
        found = []
        for info, score in zip(batch.infos, scores.softmax(1), strict=True):
            height, width = info.original_size
            box = torch.tensor([[0.0, 0.0, width, height]])
            found.append(Detections(box, score.max().view(1), score.argmax().view(1) + 1))
        return found


def tiny(num_classes: int, config: Config, pretrained: bool) -> nn.Module:
    """A detector of 200 weights."""
    return Tiny(num_classes)
