"""Called by several ranks: parts of the user's own that are not the same on each."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from megdet_hvd.config.schema import Config, DataConfig
from megdet_hvd.data.batch import Batch
from megdet_hvd.data.own import OwnSample
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.engine.result import TrainResult
from megdet_hvd.errors import UserError
from megdet_hvd.train import train
from tests.engine.small import small_and_quiet, small_config
from tests.extending.parts import Scenes, Tiny, scenes, tiny


def _first() -> bool:
    return os.environ["HOROVOD_RANK"] == "0"


class Listed(Scenes):
    """As a folder that each process lists in another order."""

    def __getitem__(self, position: int) -> OwnSample:
        at = position if _first() else len(self) - 1 - position
        return replace(super().__getitem__(at), image_id=None)


def listed(split: str, data: DataConfig) -> Scenes:
    found = ensure_scenes(data.scenes)
    return (Listed if split == "val" else Scenes)(found.train if split == "train" else found.val)


class Losses(Tiny):
    """One of 1 and one of 2 on each picture; in another order on each rank."""

    def __init__(self, *more: str, alike: bool = True) -> None:
        super().__init__(6)
        self.names = [*enumerate(("one", "two", *more), 1)]
        for name in ("a", "b") if _first() or alike else ("b", "a"):
            self.register_parameter(name, nn.Parameter(torch.ones(3)))

    def forward(self, batch: Batch) -> Any:
        found = super().forward(batch)
        if not self.training:
            return found
        zero = found["guess"] * 0 + 0 * sum(weight.sum() for weight in self.parameters())
        return {n: zero + k for k, n in (self.names if _first() else reversed(self.names))}


def turned(groups: list[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    if not _first():
        groups = [{**group, "params": group["params"][::-1]} for group in groups]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


class Counting(torch.optim.SGD):
    """Its state can't be in a checkpoint; that shows once it has some."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["count"] = np.float64(1)


def counting(groups: list[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    return Counting(groups, lr=0.1)


def what_differs(path: str) -> list[str]:
    """What each is told; and what is not refused, since the order needn't be the same."""
    config = small_config(Path(path), ("learning.max_iterations=2",))

    def trained(**given: Any) -> TrainResult:
        with small_and_quiet():
            return train(config, run_folder=Path(path) / "run", **given)

    def more(*_: object) -> nn.Module:
        return Losses(*(() if _first() else ("three",)))

    def other(*_: object) -> nn.Module:
        return Losses(alike=False)

    told = []
    for given in (
        {"dataset": listed, "detector": tiny},
        {"detector": more},
        {"detector": other},
        {"detector": tiny, "optimizer": turned},
    ):
        try:
            trained(**given)
        except UserError as error:
            told.append(str(error).partition("; ")[0])
    assert not (Path(path) / "run").exists()
    result = trained(dataset=scenes, detector=lambda *_: Losses())
    line, _ = (
        found
        for text in (result.run_folder / "metrics.jsonl").read_text().splitlines()
        if (found := json.loads(text))["kind"] == "train"
    )
    assert (line["one"], line["two"]) == (1.0, 2.0), line
    try:
        with small_and_quiet():
            train(config, run_folder=Path(path) / "other", detector=tiny, optimizer=counting)
    except UserError as error:
        told.append(str(error))
    lines = (Path(path) / "other" / "metrics.jsonl").exists()
    assert not lines, "a step was counted that can't be saved"
    return told
