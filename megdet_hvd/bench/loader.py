"""Pictures a second on one core: the training loader against torchvision as its users call it.

``python -m megdet_hvd.bench loader [--annotations FILE --pictures FOLDER] [--turns 5] [--json
FILE]``: from JPEG files to the normalised floats that the network takes, 800/1333 pixels unless
told otherwise, boxes and flips too, one process on one core. Both sides go through the same
pictures in the same batches; their canvases must be equal. Then what a loader process takes for a
picture, and the process that trains beside it.

torchvision's side is ``CocoDetection`` wrapped for its transforms (v2: flip, floats), a
``DataLoader`` without workers, and the resizing of its Faster R-CNN (``GeneralizedRCNNTransform``).
Without files of your own, rendered pictures of COCO's usual size are measured, with noise that
makes their files as large as photographs' are.
"""

import argparse
import io
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.errors import RunError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from megdet_hvd.bench.turns import SideTimes
    from megdet_hvd.data.batch import Batch
    from megdet_hvd.data.index import ImageIndex
    from megdet_hvd.data.loader import TrainLoader

SIZE = (640, 480)
"""Width and height of rendered pictures, pixels: the commonest of COCO."""
NOISE = 14.0
"""Standard deviation of their noise, grey levels; with it a file has 0.13 MB, as COCO's have."""
QUALITY = 90
"""Of their JPEG files."""
BOXES = 7
"""Of each, as in COCO in the mean."""
_SETTLED = 4
"""Steps of a loader process that do not count: the first, for its start, and as many at the end."""
ROUNDED = 1
"""Multiples of 32 pixels by which sides of a canvas may differ: torchvision rounds sizes down."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = make_parser("megdet_hvd.bench loader", (__doc__ or "").split("\n")[0], settings=False)
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="a COCO-format file")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="its pictures")
    parser.add_argument("--images", type=int, default=48, help="how many pictures of it a turn")
    parser.add_argument("--batch", type=int, default=2, help="pictures of a batch")
    parser.add_argument("--min-size", type=int, default=800, help="shorter side, pixels")
    parser.add_argument("--max-size", type=int, default=1333, help="longer side at most, pixels")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--json", type=record_file, metavar="FILE", help="write the record there, too"
    )
    options = parse(parser, arguments)
    for name in ("images", "batch", "min_size", "max_size", "turns"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
    if (options.annotations is None) != (options.pictures is None):
        parser.error("--annotations and --pictures belong together; give both, or neither")
    if options.images < options.batch:
        parser.error(f"--images {options.images}: must be at least --batch, {options.batch}")
    with tempfile.TemporaryDirectory() as folder:
        if options.annotations is None:
            options.annotations, options.pictures = render_set(Path(folder), options.images)
        _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    import torch

    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.bench.turns import take_turns
    from megdet_hvd.model.normalise import normalise

    index = read_set(options.annotations, options.pictures)
    batches = min(options.images, len(index)) // options.batch
    if batches < 1:
        raise UserError(
            f"{options.annotations} has {len(index)} pictures, fewer than --batch {options.batch}; "
            "give a smaller --batch"
        )
    with one_core():
        ours, theirs = our_batches(index, options, batches), their_batches(options)
        order = [info.image_id for batch in ours() for info in batch.infos]
        megabytes = _megabytes(index, order)
        check_equal_work(ours(), theirs(order))
        machine = describe_machine(torch.device("cpu"))
        print(
            f"{machine}; {len(order)} pictures of {megabytes / len(order):.2f} MB, batches of "
            f"{options.batch}, {options.min_size}/{options.max_size} pixels, {options.turns} turns",
            flush=True,
        )

        def to_floats() -> None:
            for batch in ours():
                sizes = [info.size for info in batch.infos]
                normalise(batch.images, sizes, torch.float32, torch.channels_last)

        def to_bytes() -> None:
            for _ in ours():
                pass

        def torchvision() -> None:
            for _ in theirs(order):
                pass

        named: dict[str, Callable[[], None]] = {
            "ours": to_floats,
            "ours, bytes": to_bytes,
            "torchvision": torchvision,
        }
        sides = take_turns(named, options.turns)
    print("\n".join(speed_table(sides, len(order))))
    worker_ms, own_ms = process_cost(index, options, batches * options.turns)
    print(
        '"ours, bytes" ends with what is handed to the device, where it is normalised; "ours" and '
        "torchvision end with normalised floats"
    )
    print(
        f"a loader process takes {worker_ms:.2f} ms of processor time a picture, the process that "
        f"trains {own_ms:.2f} ms to take them over"
    )
    if options.json is not None:
        settings = {
            name: getattr(options, name) for name in ("images", "batch", "min_size", "max_size")
        }
        write_record(
            options.json,
            machine,
            settings,
            sides=sides,
            pictures=len(order),
            mean_file_mb=megabytes / len(order),
            loader_process_ms=worker_ms,
            training_process_ms=own_ms,
        )


@contextmanager
def one_core() -> Iterator[None]:
    """This process on one core of those it has, and torch with one thread."""
    import torch

    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(allowed)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


def read_set(annotations: Path, pictures: Path) -> "ImageIndex":
    """Everything that is in a COCO-format file. Raises UserError: it can't be used."""
    from megdet_hvd.data.coco import read_sources
    from megdet_hvd.data.source import PictureSource

    source = PictureSource(annotations, pictures)
    return read_sources([source], keep_empty=True, invalid_boxes="drop")


def our_batches(
    index: "ImageIndex", options: argparse.Namespace, batches: int
) -> "Callable[[], Iterator[Batch]]":
    """The training loader, in a thread of this process, as it is on a single core."""

    def go() -> "Iterator[Batch]":
        for (batch,) in train_loader(index, options, batches, workers=0):
            if batch.unreadable:
                raise RunError(f"{batch.unreadable[0].file}: {batch.unreadable[0].reason}")
            yield batch

    return go


def train_loader(
    index: "ImageIndex", options: argparse.Namespace, batches: int, workers: int
) -> "TrainLoader":
    """The loader of a run of one process, which flips half of the pictures."""
    from megdet_hvd.config.schema import DataConfig
    from megdet_hvd.data.loader import TrainLoader

    data = DataConfig(min_sizes=(options.min_size,), max_size=options.max_size, workers=workers)
    return TrainLoader(
        index,
        data,
        seed=0,
        global_batch=options.batch,
        accumulation=1,
        rank=0,
        world_size=1,
        start_iteration=0,
        end_iteration=batches,
    )


def process_cost(
    index: "ImageIndex", options: argparse.Namespace, batches: int
) -> tuple[float, float]:
    """Milliseconds of processor time a picture: of one loader process, of this one beside it."""
    import psutil

    before = set(multiprocessing.active_children())
    steps = iter(train_loader(index, options, batches + 2 * _SETTLED, workers=1))
    for _ in range(_SETTLED):
        next(steps)
    (worker,) = set(multiprocessing.active_children()) - before

    def spent() -> tuple[float, float]:
        times = psutil.Process(worker.pid).cpu_times()
        return times.user + times.system, time.process_time()

    began = spent()
    for _ in range(batches):
        next(steps)
    ended = spent()
    for _ in steps:
        pass
    each = 1000 / (batches * options.batch)
    return (ended[0] - began[0]) * each, (ended[1] - began[1]) * each


def their_batches(options: argparse.Namespace) -> "Callable[[Sequence[int]], Iterator[Tensor]]":
    """Torchvision's data set, transforms, loader and model's resize, for image ids in order."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
    from torchvision.models.detection.transform import GeneralizedRCNNTransform
    from torchvision.transforms import v2

    from megdet_hvd.model.normalise import IMAGENET_MEAN, IMAGENET_STD

    transforms = v2.Compose(
        [v2.ToImage(), v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float32, scale=True)]
    )
    with redirect_stdout(io.StringIO()):
        coco = CocoDetection(options.pictures, options.annotations, transforms=transforms)
    wrapped = wrap_dataset_for_transforms_v2(coco, target_keys=("boxes", "labels"))
    model: Any = GeneralizedRCNNTransform(
        options.min_size, options.max_size, list(IMAGENET_MEAN), list(IMAGENET_STD)
    )
    position = {number: k for k, number in enumerate(coco.ids)}

    def go(ids: Sequence[int]) -> "Iterator[Tensor]":
        loader: Any = DataLoader(
            wrapped,
            batch_size=options.batch,
            sampler=[position[number] for number in ids],
            collate_fn=_side_by_side,
        )
        for images, targets in loader:
            found, _ = model(list(images), [t if "boxes" in t else _no_boxes() for t in targets])
            yield found.tensors

    return go


def _side_by_side(samples: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(zip(*samples, strict=True))


def _no_boxes() -> "dict[str, Tensor]":
    """The target of a picture without boxes, which torchvision's wrapper leaves bare."""
    import torch

    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def check_equal_work(ours: "Iterator[Batch]", theirs: "Iterator[Tensor]") -> None:
    """Both sides' canvases are equal, but for torchvision's rounding of sizes.

    Raises:
        RunError: they aren't.
    """
    for batch, floats in zip(ours, theirs, strict=True):
        own, other = tuple(batch.images.shape), tuple(floats.shape)
        apart = max(abs(a - b) for a, b in zip(own, other, strict=True))
        if own[:2] != other[:2] or apart > ROUNDED * 32:
            ids = [info.image_id for info in batch.infos]
            raise RunError(
                f"the sides' canvases of images {ids} differ: {own} ours, {other} torchvision's"
            )


def _megabytes(index: "ImageIndex", ids: Sequence[int]) -> float:
    position = {int(number): k for k, number in enumerate(index.image_ids)}
    return sum(index.file(position[number]).stat().st_size for number in ids) / 1e6


def speed_table(sides: "Sequence[SideTimes]", pictures: int) -> list[str]:
    """Lines of a table: pictures a second, and how many times as many the first side brings."""
    width = max(len(side.name) for side in sides) + 2
    lines = [" " * width + "pictures/s by clock   ratio   by processor time   ratio"]
    first = sides[0]
    for side in sides:
        lines.append(
            f"{side.name:<{width}}{pictures / side.clock:19.1f}{side.clock / first.clock:8.2f}"
            f"{pictures / side.processor:20.1f}{side.processor / first.processor:8.2f}"
        )
    return lines


def render_set(folder: Path, count: int) -> tuple[Path, Path]:
    """A COCO-format file and the folder of its pictures, JPEGs of SIZE with noise."""
    from PIL import Image

    from megdet_hvd.data.scenes.scene import render

    pictures = folder / "pictures"
    pictures.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    random = np.random.default_rng(0)
    for number in range(1, count + 1):
        scene = render("train", number, max(SIZE) // 2).picture.resize(SIZE)
        noisy = np.asarray(scene) + random.normal(0, NOISE, (SIZE[1], SIZE[0], 3))
        picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        picture.save(pictures / f"{number}.jpg", quality=QUALITY)
        images.append(
            {"id": number, "file_name": f"{number}.jpg", "width": SIZE[0], "height": SIZE[1]}
        )
        for _ in range(BOXES):
            x, y = random.uniform(0, 400), random.uniform(0, 300)
            w, h = random.uniform(20, 200), random.uniform(20, 150)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    file = folder / "set.json"
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    return file, pictures
