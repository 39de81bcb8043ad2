"""The training loader and the evaluation batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from megdet_hvd.config.schema import DataConfig
from megdet_hvd.data.ahead import load_ahead
from megdet_hvd.data.batch import Batch
from megdet_hvd.data.collate import EvalTransform, TrainTransform, load_batch
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.pinned import room_before
from megdet_hvd.data.resizing import resizer_of
from megdet_hvd.data.sampler import Stream, block
from megdet_hvd.data.worker_count import configured_workers


@dataclass(frozen=True)
class _TrainSteps:
    """Step number to the batches that one rank handles in it."""

    index: ImageIndex
    stream: Stream
    transform: TrainTransform
    global_batch: int
    accumulation: int
    rank: int
    world_size: int

    def __getitem__(self, step: int) -> list[Batch]:
        return [self._batch(step, accumulated) for accumulated in range(self.accumulation)]

    def files(self, step: int) -> list[str]:
        """The pictures of a step."""
        passes = range(self.accumulation)
        drawn = [picture for accumulated in passes for picture in self._pictures(step, accumulated)]
        return [str(self.index.file(position)) for position, _ in drawn]

    def _batch(self, step: int, accumulated: int) -> Batch:
        pictures = self._pictures(step, accumulated)
        return load_batch(self.index, pictures, self.transform, with_targets=True)

    def _pictures(self, step: int, accumulated: int) -> list[tuple[int, int]]:
        positions = block(
            step,
            accumulated,
            self.rank,
            global_batch=self.global_batch,
            accumulation=self.accumulation,
            world_size=self.world_size,
        )
        return [self.stream.at(position) for position in positions]


@dataclass(frozen=True)
class _EvalSteps:
    """Batch number to the pictures of it."""

    index: ImageIndex
    positions: tuple[int, ...]
    images_per_batch: int
    transform: EvalTransform

    def __getitem__(self, step: int) -> Batch:
        pictures = [(position, 0) for position in self._chosen(step)]
        return load_batch(self.index, pictures, self.transform, with_targets=False)

    def files(self, step: int) -> list[str]:
        """The pictures of a batch."""
        return [str(self.index.file(position)) for position in self._chosen(step)]

    def _chosen(self, step: int) -> tuple[int, ...]:
        start = step * self.images_per_batch
        return self.positions[start : start + self.images_per_batch]


class TrainLoader:
    """The batches of one rank, step by step, from any iteration on.

    Each step is a list of ``accumulation`` batches. All ranks take equally many steps. Pictures
    that can't be decoded are in ``Batch.unreadable``, never an exception: the caller makes all
    ranks agree on what follows.
    """

    def __init__(
        self,
        index: ImageIndex,
        config: DataConfig,
        *,
        seed: int,
        global_batch: int,
        accumulation: int,
        rank: int,
        world_size: int,
        start_iteration: int,
        end_iteration: int,
        local_size: int = 1,
        cores: int | None = None,
        limit_s: float = 0.0,
        device: torch.device | None = None,
    ) -> None:
        """Steps ``start_iteration`` … ``end_iteration`` - 1 of the stream.

        Args:
            index: the training pictures.
            config: sizes, flips, grouping, workers.
            seed: the run's seed.
            global_batch: pictures per step, over all ranks and accumulated passes.
            accumulation: batches per step.
            rank: this process.
            world_size: processes.
            start_iteration: first step, counted from 0.
            end_iteration: the step after the last.
            local_size: ranks of this machine; for ``workers=auto``.
            cores: this rank's own share of them; None: those it may run on, shared by all ranks.
            limit_s: how long pictures may be waited for, see `load_ahead`; 0: for ever.
            device: where pictures go from here; for a GPU they are laid where it can fetch them.
        """
        images = -(-global_batch // (world_size * accumulation))
        self.workers = configured_workers(
            config,
            images=images * accumulation,
            min_size=max(config.min_sizes),
            local_size=local_size,
            cores=cores,
        )
        """Loader processes; 0: a thread of this process loads one step ahead."""
        self._start, self._end = start_iteration, end_iteration
        self._limit_s, self._room = limit_s, room_before(device)
        by_shape = config.aspect_grouping > 1
        self._steps = _TrainSteps(
            index=index,
            stream=Stream(
                n=len(index),
                seed=seed,
                aspects=index.aspects if by_shape else None,
                chunk=config.aspect_grouping,
            ),
            transform=TrainTransform(
                seed=seed,
                min_sizes=config.min_sizes,
                max_size=config.max_size,
                flip_probability=config.flip_probability,
                resizer=resizer_of(config.resize),
            ),
            global_batch=global_batch,
            accumulation=accumulation,
            rank=rank,
            world_size=world_size,
        )

    def __len__(self) -> int:
        return max(0, self._end - self._start)

    def __iter__(self) -> Iterator[list[Batch]]:
        numbers = range(self._start, self._end)
        return load_ahead(self._steps, numbers, self.workers, self._limit_s, self._room)


def eval_transform(config: DataConfig) -> EvalTransform:
    """How evaluation resizes, from the settings."""
    auto = config.eval_min_size == "auto"
    min_size = max(config.min_sizes) if auto else int(config.eval_min_size)
    resizer = resizer_of(config.resize)
    return EvalTransform(min_size=min_size, max_size=config.max_size, resizer=resizer)


def eval_batches(
    index: ImageIndex,
    config: DataConfig,
    positions: Sequence[int],
    images_per_batch: int,
    *,
    local_size: int = 1,
    cores: int | None = None,
    limit_s: float = 0.0,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """The pictures at ``positions``, in that order, without augmentation and without targets.

    Args:
        index: the pictures.
        config: sizes and workers.
        positions: this rank's share of the index.
        images_per_batch: pictures per batch; the last may hold fewer.
        local_size: ranks of this machine; for ``workers=auto``.
        cores: this rank's own share of them; None: those it may run on, shared by all ranks.
        limit_s: how long pictures may be waited for, see `load_ahead`; 0: for ever.
        device: where pictures go from here; for a GPU they are laid where it can fetch them.
    """
    steps = _EvalSteps(index, tuple(positions), images_per_batch, eval_transform(config))
    count = -(-len(positions) // images_per_batch)
    workers = configured_workers(
        config,
        images=images_per_batch,
        min_size=steps.transform.min_size,
        local_size=local_size,
        cores=cores,
    )
    return load_ahead(steps, range(count), workers, limit_s, room_before(device))
