"""Parts of a run as a user might write them, for tests that name them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from megdet_hvd.config.schema import Config
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
