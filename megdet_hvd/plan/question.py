"""What is asked of the plan: a configuration, GPUs, what they are, and what connects them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.job_folder import carried
from megdet_hvd.plan.profiles import Network, Profile

TEMPLATES_GPUS = (8, 16, 32, 64, 128)
"""The paper's sizes, for which slurm/ has templates."""
GPUS_PER_MACHINE = 8
CORES_PER_GPU = 8
"""As slurm/'s templates ask for (``--cpus-per-task``)."""
IMAGES_PER_GPU = 2
"""The paper's: batch 16 on 8 GPUs to 256 on 128."""
COCO_TRAIN, COCO_TRAIN_BOXES, COCO_VAL = 118_287, 117_266, 5_000
"""Pictures of train2017, those of them with boxes, and of val2017 (docs/method.md)."""
COCO_CLASSES = 80


@dataclass(frozen=True)
class Question:
    """Everything but the number of GPUs."""

    config: Config
    profile: Profile
    network: Network
    gpus_per_machine: int
    cores_per_gpu: int
    images_per_gpu: int | None
    """The batch follows the GPUs; None: it stays the configuration's, whatever the GPUs."""
    train_images: int
    val_images: int
    classes: int = COCO_CLASSES
    """That the detector tells apart."""


def question_config(file: Path | None, overrides: Sequence[str]) -> Config:
    """The configuration of ``file``; None: the paper's at batch 16, ``configs/coco_016.yaml``.

    Raises:
        UserError: it can't be read, or a setting is wrong.
    """
    return load_config(file or carried() / "configs" / "coco_016.yaml", overrides)


def pictures(config: Config) -> tuple[int | None, int | None]:
    """Pictures of an epoch and of an evaluation; None: not known without the files.

    COCO 2017's are known by the files' names; rendered scenes by their settings; others are
    counted in the annotation file, where it is there.
    """
    if config.data.kind == "scenes":
        train, val = config.data.scenes.train_images, config.data.scenes.val_images
        return train, _first(config, val)
    names = [source.annotations.rpartition("/")[2] for source in config.data.train]
    found: int | None
    if names == ["instances_train2017.json"]:
        found = COCO_TRAIN if config.data.keep_empty else COCO_TRAIN_BOXES
    else:
        from megdet_hvd.submit.training import images_per_epoch

        found = images_per_epoch(config)
    val_found = _validation(config)
    return found, None if val_found is None else _first(config, val_found)


def _validation(config: Config) -> int | None:
    if config.data.kind == "own":  # data.dataset decides what it is evaluated on
        return None
    if not config.data.val:
        return 0
    names = [source.annotations.rpartition("/")[2] for source in config.data.val]
    if names == ["instances_val2017.json"]:
        return COCO_VAL
    from megdet_hvd.submit.training import pictures_of

    return pictures_of(config.data.val)


def _first(config: Config, images: int) -> int:
    limit = config.evaluation.max_images
    return images if limit is None else min(images, limit)


def canvas(short: int, longest: int) -> tuple[float, float]:
    """Height and width of a picture of 4 : 3, COCO's usual shape, resized as in training."""
    return float(short), min(short * 4 / 3, float(longest))


def mean_pixels(min_sizes: Sequence[int], longest: int) -> float:
    """Of a resized picture, one size of ``min_sizes`` as likely as another."""
    areas = [height * width for height, width in (canvas(s, longest) for s in min_sizes)]
    return sum(areas) / len(areas)


def padded_pixels(min_sizes: Sequence[int], longest: int, images: int) -> float:
    """Of each picture's canvas in a pass of ``images``: padded to the largest of their draws."""
    areas = sorted(height * width for height, width in (canvas(s, longest) for s in min_sizes))
    shares = [(k / len(areas)) ** images for k in range(len(areas) + 1)]
    return sum(
        area * (upto - below) for area, below, upto in zip(areas, shares, shares[1:], strict=False)
    )


def largest_pixels(min_sizes: Sequence[int], longest: int) -> float:
    """Of the largest canvas: the longest side as it may be, both padded to multiples of 32."""
    stride = 32
    short = max(min_sizes)
    height, width = (-(-side // stride) * stride for side in (short, max(longest, short)))
    return float(height * width)
