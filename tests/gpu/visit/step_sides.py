"""The sides whose steps are timed: torchvision's model and loop, and runs of ours."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from megdet_hvd.bench.detector import CLASSES
from megdet_hvd.bench.step import RATE, waited_for
from megdet_hvd.bench.step_counts import StepCounts
from megdet_hvd.bench.step_ours import build_ours, our_counts, our_step
from megdet_hvd.bench.step_torchvision import as_lists, build_peer, peer_counts, peer_step
from megdet_hvd.config.load import override
from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Batch
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.memory.recompute import recompute_segments
from megdet_hvd.model.device import autocast

WARM_STEPS = 3


@dataclass(frozen=True)
class Side:
    """One."""

    name: str
    precision: str
    norm: str = "bn"
    words: tuple[str, ...] = ()
    """Settings of ours."""
    blocks: bool = False
    """Whether blocks are recomputed."""
    ours: bool = True


@dataclass(frozen=True)
class Built:
    """A side, ready to be timed."""

    step: Callable[[], None]
    counts: StepCounts
    peak_mib: float
    """Of the allocator in one step, with weights and all; 0 on a CPU, where nobody counts."""


def config_of(side: Side, images: int) -> Config:
    """The settings of a run of ours."""
    words = [f"global_batch={images}", f"precision={side.precision}", f"model.norm={side.norm}"]
    words += [f"model.frozen_stages={2 if side.norm == 'frozen' else 0}", f"learning.rate={RATE}"]
    return override(Config(), [*words, *side.words])


def build(side: Side, batch: Batch, world: World, device: torch.device) -> Built:
    """With a few steps taken, so that kernels are chosen and memory is there."""
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    config = config_of(side, len(batch))
    detector = build_ours(config, device)
    moved = batch.to(device)
    if side.ours:
        if side.blocks:
            recompute_segments(detector, "blocks")
        counts = our_counts(detector, config, moved)
        step = our_step(detector, config, world, device, batch)
    else:
        mixed: Callable[[], Any] = partial(autocast, side.precision, device)
        size = batch.infos[0].size
        frozen = side.norm == "frozen"
        peer = build_peer(detector.state_dict(), CLASSES, size, frozen=frozen, device=device)
        del detector
        counts = peer_counts(peer, mixed, *as_lists(moved))
        sgd = torch.optim.SGD(
            [p for p in peer.parameters() if p.requires_grad],
            lr=RATE,
            momentum=config.learning.momentum,
            weight_decay=config.learning.weight_decay,
        )
        step = peer_step(peer, sgd, mixed, device, *as_lists(batch))
    whole = waited_for(step, device)
    for _ in range(WARM_STEPS if device.type == "cuda" else 1):
        whole()
    peak = 0
    if device.type == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)
        whole()
        peak = torch.cuda.max_memory_allocated(device) - before
    return Built(whole, counts, peak / 2**20)


def build_all(
    sides: Iterable[Side], batch: Batch, world: World, device: torch.device
) -> Mapping[str, Built]:
    """By name."""
    return {side.name: build(side, batch, world, device) for side in sides}


@contextmanager
def alone() -> Iterator[World]:
    """Horovod's session of one process."""
    world = start()
    try:
        yield world
    finally:
        stop()
