"""A detector and scenes small enough to train a few steps in seconds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from torchvision.models.resnet import ResNet

from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config

SETTINGS = (
    "data.scenes.train_images=30",
    "data.scenes.val_images=6",
    "data.scenes.size=64",
    "data.min_sizes=[48,64]",
    "data.max_size=96",
    "data.workers=0",
    "model.fpn_channels=16",
    "model.roi.width=32",
    "model.roi.boxes_per_image=16",
    "model.rpn.post_nms_train=40",
    "model.rpn.pre_nms_train=80",
    "model.anchor_sizes=[8,16,32,64,128]",
    "evaluation.untrained=false",
    "evaluation.every_epochs=0",
    "log.tensorboard=false",
    "log.every_iterations=1",
    "global_batch=12",
    "learning.warmup_iterations=2",
    "device=cpu",
)


def small_settings(folder: Path, *more: str) -> list[str]:
    """Command-line settings; scenes are cached and runs are written below ``folder``."""
    return [*SETTINGS, f"data.scenes.cache={folder / 'cache'}", f"output={folder / 'runs'}", *more]


def small_config(folder: Path, more: Sequence[str] = ()) -> Config:
    """The same as a configuration."""
    return load_config(None, small_settings(folder, *more))


@contextmanager
def thin_backbones() -> Iterator[None]:
    """Within it, stages of residual networks have an eighth of their channels, and all layers.

    A step takes a third to a seventh of the time, and a checkpoint 2 MB instead of 90.
    """
    make_layer: Any = ResNet._make_layer

    def thin(self: ResNet, block: Any, planes: int, *arguments: Any, **words: Any) -> Any:
        return make_layer(self, block, planes // 8, *arguments, **words)

    with mock.patch.object(ResNet, "_make_layer", thin):
        yield


@contextmanager
def small_and_quiet() -> Iterator[None]:
    """Both of these, for checks of training in which neither size nor pictures matter."""
    with thin_backbones(), nothing_drawn():
        yield


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Within it, runs draw no pictures, which would take as long as such a training."""
    with (
        mock.patch("megdet_hvd.engine.run.RunPictures.draw"),
        mock.patch("megdet_hvd.engine.run.RunPictures.draw_curves"),
    ):
        yield
