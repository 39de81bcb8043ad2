"""Parts of a run as a user might write them, for tests that name them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from megdet_hvd.config.schema import Config, DataConfig
from megdet_hvd.data.batch import Batch, Detections
from megdet_hvd.data.own import OwnSample
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.data.source import PictureSource
from megdet_hvd.evaluation.evaluate import Evaluation
from tests.evaluation.sets import NAMES


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


class Noise:
    """Pictures of noise that are opened by a function, none twice the same."""

    categories: tuple[str, ...] = ("cat", "dog")

    def __init__(self, count: int, **more: Any) -> None:
        self.count, self.more = count, more

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> OwnSample:
        boxes = [[1, 2, 11, 22], [0, 0, 40, 30]][: position % 3]
        labels = [1, 2][: position % 3]
        given = {"picture": partial(noise, position), "boxes": boxes, "labels": labels}
        more: Any = {**given, "size": (40, 30), **self.more}
        return OwnSample(**more)


def noise(position: int) -> Any:
    """An array, a tensor, or a Pillow picture, of 40 × 30 pixels."""
    pixels = np.random.default_rng(position).integers(0, 256, (30, 40, 3), np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    return (pixels, tensor, Image.fromarray(pixels))[position % 3]


def noises(split: str, data: DataConfig) -> Noise:
    """9 to train on and 6 to evaluate on."""
    return Noise(9 if split == "train" else 6)


class Scenes:
    """The rendered scenes, as a data set of one's own."""

    def __init__(self, source: PictureSource) -> None:
        content = json.loads(source.annotations.read_text())
        self.categories = [one["name"] for one in content["categories"]]
        self.folder, self.images = source.images, content["images"]
        self.boxes: dict[int, list[Any]] = {}
        for one in content["annotations"]:
            self.boxes.setdefault(one["image_id"], []).append(one)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> OwnSample:
        image = self.images[position]
        boxes = self.boxes.get(image["id"], [])
        corners = [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in boxes)]
        return OwnSample(
            self.folder / image["file_name"],
            corners,
            [one["category_id"] for one in boxes],
            image_id=image["id"],
            areas=[one["area"] for one in boxes],
            crowds=[one["iscrowd"] for one in boxes],
        )


def scenes(split: str, data: DataConfig) -> Scenes:
    """As the configuration's section ``scenes`` has them."""
    found = ensure_scenes(data.scenes)
    return Scenes(found.train if split == "train" else found.val)


def nothing(*_: object) -> None:
    """What a function without ``return`` gives."""


class Pets(Noise):
    """Noise under the names of the small sets that evaluation is tested with."""

    categories: tuple[str, ...] = NAMES

    def __getitem__(self, position: int) -> OwnSample:
        return replace(super().__getitem__(position), image_id=f"p{position}")


def pets(split: str, data: DataConfig) -> Pets:
    """4 pictures with texts as their ids."""
    return Pets(4)
