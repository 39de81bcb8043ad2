"""Called by several ranks: the averaged gradient against that of one process with all 8 images.

In float64, on one canvas, CGBN over all ranks; images lie unevenly on ranks, on some none at
all, or are spread over accumulated passes. Each image's loss depends on that image alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import nn

from megdet_hvd.bn import convert_cross_gpu_bn
from megdet_hvd.comm import groups
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Batch, ImageInfo, Target
from megdet_hvd.engine.step.loop import share_of_mean
from megdet_hvd.engine.step.optimizer import build_optimizer
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.model.build import build_detector, local_norm
from tests.bn.sent import watched_messages
from tests.engine.small import SETTINGS, thin_backbones

IMAGES, CANVAS, CLASSES = 8, (64, 96), 3
SMALL = [*SETTINGS, "global_batch=8", "learning.accumulation=1"]


def pictures() -> Batch:
    """8 pictures of several sizes on one canvas; one without boxes."""
    g = torch.Generator().manual_seed(5)
    images = torch.zeros(IMAGES, 3, *CANVAS, dtype=torch.uint8)
    infos, targets = [], []
    for i in range(IMAGES):
        height, width = 40 + 3 * i, 96 - 4 * i
        images[i, :, :height, :width] = torch.randint(0, 256, (3, height, width), generator=g)
        count = i % 4
        corner = torch.rand(count, 2, generator=g) * 20
        size = 8 + torch.rand(count, 2, generator=g) * 16
        boxes = torch.cat([corner, corner + size], 1)
        targets.append(Target(boxes, torch.randint(1, CLASSES + 1, (count,), generator=g)))
        infos.append(ImageInfo(i, 0, 100 + i, 2, (height, width), (height, width)))
    return Batch(images, tuple(infos), tuple(targets))


def part(batch: Batch, start: int, count: int) -> Batch:
    rows = slice(start, start + count)
    return Batch(batch.images[rows], batch.infos[rows], batch.targets[rows])


def detector(config: Config) -> nn.Module:
    with thin_backbones():
        model = build_detector(config.model, CLASSES, local_norm(config.model), seed=1)
    for layer in model.modules():  # the last BN of a block starts away from 1, 0
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(2))
    return model.double().train()


@cache
def expected(norm: str) -> dict[str, torch.Tensor]:
    """Plain BN, one process, the mean over the images written out."""
    batch = pictures()
    model = detector(load_config(None, [*SMALL, f"model.norm={norm}"]))
    losses = model(batch)
    (sum(part.sum() for part in losses.values()) / IMAGES).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@contextmanager
def order_of_messages() -> Iterator[list[str]]:
    """Within it, the names of BN sums and the word ``gradients``, in the order of submission."""
    from horovod.torch import optimizer

    with watched_messages() as sent:
        order = sent.names

        def noting(call: Any) -> Any:
            def noted(*arguments: Any, **words: Any) -> Any:
                order.append("gradients")
                return call(*arguments, **words)

            return noted

        with (
            mock.patch.object(
                optimizer, "grouped_allreduce_async_", noting(optimizer.grouped_allreduce_async_)
            ),
            mock.patch.object(optimizer, "allreduce_async_", noting(optimizer.allreduce_async_)),
        ):
            yield order


def check(
    world: World,
    config: Config,
    counts: list[list[int]],
    carrier: str = "horovod",
    hold: bool = True,
) -> dict[str, torch.Tensor]:
    """``counts[pass][rank]`` images each. Returns the averaged gradients."""
    batch = pictures()
    model = convert_cross_gpu_bn(detector(config), carrier=carrier)
    optimizer = build_optimizer(model, config, hold=hold)
    optimizer.zero_grad()
    at = 0
    with order_of_messages() as order:
        for per_rank in counts:
            own = part(batch, at + sum(per_rank[: world.rank]), per_rank[world.rank])
            at += sum(per_rank)
            share_of_mean(model(own), IMAGES, world.size).backward()
        assert at == IMAGES, counts
        optimizer.synchronize()
    if world.size > 1 and not hold:
        # Those of the heads are on their way while BN layers are still to come.
        assert order.count("gradients") == sum(p.requires_grad for p in model.parameters())
        last_sum = max(i for i, name in enumerate(order) if name.endswith("backward.0"))
        assert order.index("gradients") < last_sum, order
    elif world.size > 1:
        # No gradient message stands ahead of a BN message: all gradients go last, as one group.
        assert order.count("gradients") == 1 and order[-1] == "gradients", order
        assert any(name.endswith("backward.0") for name in order) or config.model.norm == "frozen"
    averaged = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    reference = expected(config.model.norm)
    worst = ("", 0.0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        scale = reference[name].abs().max()
        assert scale > 0, f"{name} has no gradient to compare"
        error = float((parameter.grad - reference[name]).abs().max() / scale)
        worst = max(worst, (name, error), key=lambda pair: pair[1])
    assert worst[1] < 1e-8, f"counts {counts}: gradient of {worst[0]} is off by {worst[1]:.2e}"
    with optimizer.skip_synchronize():
        optimizer.step()
    sums = gather_objects(
        {n: v.double().sum().item() for n, v in model.state_dict().items()}, world, "weights"
    )
    assert all(one == sums[0] for one in sums), "ranks have different weights after the step"
    return averaged


def same_gradients() -> None:
    """On 1 to 4 ranks, however the images are split."""
    world = start()
    splits = {
        1: [[[8]]],
        2: [[[4, 4]], [[7, 1]], [[0, 8]]],
        3: [[[3, 3, 2]], [[0, 8, 0]]],
        4: [[[2, 2, 2, 2]], [[5, 0, 3, 0]]],
    }[world.size]
    for counts in splits:
        for deterministic in ("false", "true"):
            check(world, load_config(None, [*SMALL, f"deterministic={deterministic}"]), counts)
        group = groups.bn_group()
        if group is not None and group.sums is not None:
            check(world, load_config(None, SMALL), counts, "mpi")
    if world.size > 1:
        held, early = (
            check(world, load_config(None, SMALL), splits[-1], hold=hold) for hold in (True, False)
        )
        if world.size == 2:  # a + b = b + a: neither order nor fusion reaches a bit
            differing = [name for name in held if not torch.equal(held[name], early[name])]
            assert not differing, f"held back or not, other gradients: {differing}"
    # Accumulated passes never share BN statistics, so they are compared with frozen ones.
    frozen = [*SETTINGS, "global_batch=8", "learning.accumulation=2", "model.norm=frozen"]
    two = {1: [[3], [5]], 2: [[1, 3], [4, 0]], 3: [[0, 1, 2], [2, 2, 1]], 4: [[1] * 4, [1] * 4]}
    check(world, load_config(None, frozen), two[world.size])
    stop()
