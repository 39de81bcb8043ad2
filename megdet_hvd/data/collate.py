"""Pictures decoded, transformed and laid on one canvas: the work of one loader step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megdet_hvd.data.batch import Batch, ImageInfo, Target, Unreadable
from megdet_hvd.data.canvas import BatchCanvas
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.opening import pixels_at
from megdet_hvd.data.resizing import Resizer, resized
from megdet_hvd.data.transforms import (
    Augmentation,
    UnreadablePicture,
    draw_augmentation,
    flip_boxes,
    resized_size,
    scale_boxes,
)
from megdet_hvd.errors import StorageError


@dataclass(frozen=True)
class TrainTransform:
    """What training does to pictures."""

    seed: int
    """The run's seed."""
    min_sizes: tuple[int, ...]
    """Shorter side, pixels; each picture draws one per epoch."""
    max_size: int
    """Longer side at most, pixels."""
    flip_probability: float
    """Probability of a horizontal flip."""
    resizer: Resizer = "torch"
    """Who resizes."""

    def draw(self, epoch: int, source: int, image_id: int) -> Augmentation:
        """The draw of one picture in one epoch."""
        return draw_augmentation(
            self.seed,
            epoch,
            source,
            image_id,
            min_sizes=self.min_sizes,
            flip_probability=self.flip_probability,
        )


@dataclass(frozen=True)
class EvalTransform:
    """What evaluation does to pictures: resizing only."""

    min_size: int
    """Shorter side, pixels."""
    max_size: int
    """Longer side at most, pixels."""
    resizer: Resizer = "torch"
    """Who resizes."""

    def draw(self, epoch: int, source: int, image_id: int) -> Augmentation:
        """The same for every picture."""
        del epoch, source, image_id
        return Augmentation(self.min_size, flip=False)


def load_batch(
    index: ImageIndex,
    pictures: Sequence[tuple[int, int]],
    transform: TrainTransform | EvalTransform,
    *,
    with_targets: bool,
) -> Batch:
    """Decode, transform and collate pictures, given as (position in the index, epoch).

    A picture that can't be decoded is named in ``Batch.unreadable`` and missing from the rest. One
    that storage does not give up at the moment is told of in ``Batch.failed``, and no exception:
    loader processes would turn it into another one.
    """
    work = []
    for position, epoch in pictures:
        record = index.record(position)
        draw = transform.draw(epoch, record.source, record.image_id)
        size = resized_size(record.width, record.height, draw.min_size, transform.max_size)
        work.append((epoch, record, draw, size))
    canvas = BatchCanvas([size for *_, size in work])
    infos: list[ImageInfo] = []
    targets: list[Target] = []
    unreadable: list[Unreadable] = []
    failed: list[str] = []
    dark: list[str] = []
    for epoch, record, draw, size in work:
        try:
            rows, black = pixels_at(index, record.index)
        except UnreadablePicture as error:
            unreadable.append(Unreadable(str(record.file), str(error)))
            continue
        except StorageError as error:
            failed.append(str(error))
            continue
        if black is not None:
            dark.append(f"{record.file}{black}")
        picture = torch.from_numpy(rows).permute(2, 0, 1)
        canvas.lay(resized(picture, size, transform.resizer), flip=draw.flip)
        infos.append(
            ImageInfo(
                index=record.index,
                source=record.source,
                image_id=record.image_id,
                epoch=epoch,
                original_size=(record.height, record.width),
                size=(size[1], size[0]),
                original_id=None if index.original_ids is None else index.original_id(record.index),
            )
        )
        if with_targets:
            boxes = scale_boxes(record.boxes, (record.width, record.height), size)
            if draw.flip:
                boxes = flip_boxes(boxes, size[0])
            targets.append(Target(torch.from_numpy(boxes), torch.from_numpy(record.labels.copy())))
    return Batch(
        canvas.finished(),
        tuple(infos),
        tuple(targets),
        tuple(unreadable),
        tuple(failed),
        tuple(dark),
    )
