"""The training loop: fetch, forward, backward, step, schedule, log."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from megdet_hvd.comm.position import compute, go_outside, note_waits, noted_waits, waiting
from megdet_hvd.config.derive import Derived
from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Batch
from megdet_hvd.engine.step.finite import check_finite
from megdet_hvd.engine.step.optimizer import set_rate
from megdet_hvd.engine.step.status import StatusMessage, StepStatus
from megdet_hvd.engine.step.time_split import NO_TIMES, StepTimes
from megdet_hvd.job.world import World
from megdet_hvd.model.detector import LOSSES
from megdet_hvd.model.device import autocast
from megdet_hvd.model.own import checked_losses


@dataclass(frozen=True)
class Step:
    """A finished step."""

    iteration: int
    """Steps done, this one included."""
    status: StepStatus
    """What all ranks saw in it."""
    rate: float
    """Learning rate it was taken with."""
    wait_s: float
    """Time spent waiting for pictures."""
    read: int = 0
    """Pictures that this rank read for it."""
    dark: tuple[str, ...] = ()
    """Those of them that are all but black, see :mod:`megdet_hvd.data.depth`."""
    times: StepTimes = NO_TIMES
    """Where its time went on this rank."""


def share_of_mean(losses: dict[str, Tensor], global_batch: int, world_size: int) -> Tensor:
    """This process's part of eq. (1): Σ l(x_i) · ranks / images of the global batch.

    ``losses`` are per image, (B,) each. DistributedOptimizer averages gradients over ranks and
    adds those of accumulated passes, so that the sum of all parts is 1/N · Σ l(x_i), however
    unevenly images lie on ranks and passes.
    """
    total = torch.stack([part.sum() for part in losses.values()]).sum()
    return total * (world_size / global_batch)


def train_steps(
    detector: nn.Module,
    optimizer: Any,
    scaler: Any,
    steps: Iterator[list[Batch]],
    config: Config,
    derived: Derived,
    world: World,
    device: torch.device,
    start_iteration: int,
    losses_of_own: list[str] | None = None,
) -> Iterator[Step]:
    """Take a step for each list of batches (one per accumulated pass), and say how it went.

    ``losses_of_own``: what a detector of the user's own calls its losses; None: it is ours.

    Raises:
        RunError: on all ranks: a loss is not finite, or a rank met a picture it can't read and
            may not skip. Weights are then as after the last finished step.
        StorageError: so, where a rank's storage did not give up a picture at the moment.
    """
    detector.train()
    iteration = start_iteration
    while True:
        began = time.monotonic()
        note_waits()
        go_outside("fetching pictures")
        batches = next(steps, None)
        if batches is None:
            return
        wait_s = time.monotonic() - began
        rate = derived.schedule.rate_at(iteration * config.global_batch)
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        message = StatusMessage(world, device, losses_of_own or LOSSES)
        message.problem = unreadable_problem(batches, config.data.unreadable_images)
        message.storage = next((text for batch in batches for text in batch.failed), None)
        for batch in batches:
            compute(iteration + 1, "forward")
            with autocast(config.precision, device):
                losses = detector(batch.to(device))
                if losses_of_own is not None:
                    losses = checked_losses(losses, losses_of_own, len(batch))
                share = share_of_mean(losses, config.global_batch, world.size)
            balance = getattr(detector, "sample_balance", None)
            message.add(losses, balance, len(batch), len(batch.unreadable))
            compute(iteration + 1, "backward")
            (share if scaler is None else scaler.scale(share)).backward()
        message.send()
        images = describe_images(batches)
        status = apply_gradients(
            detector, optimizer, scaler, config, world, message, images, iteration + 1
        )
        iteration += 1
        dark = tuple(file for batch in batches for file in batch.dark)
        times = StepTimes(time.monotonic() - began, wait_s, noted_waits())
        yield Step(iteration, status, rate, wait_s, sum(map(len, batches)), dark, times)


def apply_gradients(
    detector: nn.Module,
    optimizer: Any,
    scaler: Any,
    config: Config,
    world: World,
    message: StatusMessage,
    images: str,
    iteration: int,
) -> StepStatus:
    """Average the gradients over all ranks, clip their norm if asked for, and step.

    ``message`` has been sent; it is read here, with the gradient's norm: on a GPU the host waits
    once. ``images`` names this rank's pictures.

    Raises:
        RunError, StorageError: on all ranks: what the message says; or the averaged gradient is
            not finite. With a gradient scaler the latter is no error: it leaves the step out, and
            lowers its scale. Weights are as they were.
    """
    with waiting("gradients", range(world.size)):
        optimizer.synchronize()
    if scaler is not None:
        scaler.unscale_(optimizer)
    clip = config.learning.gradient_clip
    norm: Tensor | None = None
    trained = [p for p in detector.parameters() if p.grad is not None]
    if scaler is None or clip is not None:
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    status = message.read(iteration, images, norm if scaler is None else None)
    if status.gradient_norm is not None:
        half = config.horovod.compression == "fp16"
        check_finite(detector.named_parameters(), status.gradient_norm, iteration, half)
    if clip is not None and norm is not None:
        nn.utils.clip_grads_with_norm_(trained, clip, norm)
    with optimizer.skip_synchronize():
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
    return status


def unreadable_problem(batches: Sequence[Batch], policy: str) -> str | None:
    """Why this rank can't go on: the pictures it could not read; None where it can."""
    pictures = [picture for batch in batches for picture in batch.unreadable]
    if not pictures or policy == "skip":
        return None
    told = "; ".join(f"{picture.file} can't be read ({picture.reason})" for picture in pictures)
    return f"{told}; mend or remove the file, or set data.unreadable_images=skip"


def describe_images(batches: Sequence[Batch]) -> str:
    """The pictures of a rank's step, for a message."""
    infos = [info for batch in batches for info in batch.infos]
    ids = [str(info.image_id if info.original_id is None else info.original_id) for info in infos]
    return f"images {', '.join(ids)}" if ids else "no images"
