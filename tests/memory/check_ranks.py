"""Called by several ranks: training with recomputation against training without, bit for bit.

Weights, momentum and each rank's own running
statistics are compared, and the collectives of CGBN are counted.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import horovod.torch as hvd
import torch
import torch.utils.checkpoint
from torch import nn

from megdet_hvd.bn import convert_cross_gpu_bn
from megdet_hvd.config.load import override
from megdet_hvd.config.schema import Config
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.engine.prepare import announce, prepare_run
from megdet_hvd.engine.step.loop import share_of_mean, train_steps
from megdet_hvd.job.exchange import barrier
from megdet_hvd.job.horovod_settings import HorovodSettings
from megdet_hvd.job.log import start_log
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.memory import Mode, checkpoint, recompute_segments
from megdet_hvd.model.build import build_detector, local_norm
from tests.engine.check_gradients import CLASSES, IMAGES, part, pictures
from tests.engine.small import small_config, thin_backbones

STEPS = 2
CONVOLUTIONAL = ("model.fpn_norm=same", "model.roi.head=conv", "model.roi.norm=same")


class Collectives:
    """Counts the operations of CGBN by name, as they are handed to Horovod."""

    def __init__(self, patches: ExitStack) -> None:
        self.names = Counter[str]()
        for function in ("allreduce", "allreduce_", "allreduce_async", "allreduce_async_"):
            counted = self._counted(getattr(hvd, function))
            patches.enter_context(mock.patch.object(hvd, function, counted))

    def _counted(self, send: Any) -> Any:
        def counted(*args: Any, **settings: Any) -> Any:
            name = str(settings.get("name"))
            if name.startswith("cgbn."):
                self.names[name] += 1
            return send(*args, **settings)

        return counted

    def take(self) -> Counter[str]:
        taken, self.names = self.names, Counter()
        return taken


def assert_same(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    assert found.keys() == expected.keys(), what
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different, f"{what}: {len(different)} tensors differ, {different[:3]}"


def trained(config: Config, world: World, name: str) -> dict[str, Any]:
    run = prepare_run(config, world, Path(config.output) / name, resume=False)
    announce(run)
    before = {n: v.clone() for n, v in run.detector.state_dict().items()}
    loader = TrainLoader(
        run.data.train,
        config.data,
        seed=config.seed,
        global_batch=config.global_batch,
        accumulation=config.learning.accumulation,
        rank=world.rank,
        world_size=world.size,
        start_iteration=0,
        end_iteration=STEPS,
        local_size=world.local_size,
        cores=world.cores,
    )
    steps = train_steps(
        run.detector,
        run.optimizer,
        None,
        iter(loader),
        config,
        run.derived,
        world,
        run.device,
        0,
    )
    assert [step.iteration for step in steps] == list(range(1, STEPS + 1))
    state = run.detector.state_dict()
    assert any(not torch.equal(state[n], before[n]) for n in state if "running_mean" in n)
    momentum = run.optimizer.state_dict()["state"]
    return {**state, **{f"momentum.{k}": v["momentum_buffer"] for k, v in momentum.items()}}


def check_training(
    world: World, folder: Path, sends: Collectives, case: str, modes: list[Mode], *more: str
) -> None:
    """The loader's batches, the loop, the optimizer."""
    config = small_config(folder, ["deterministic=true", f"learning.max_iterations={STEPS}", *more])
    expected = trained(config, world, f"{case}-none")
    operations = sends.take()
    shares = world.local_size > 1 and config.model.norm == "cgbn"
    assert bool(operations) == shares, operations
    assert not shares or set(operations.values()) == {STEPS}, operations
    for mode in modes:
        recomputed = override(config, [f"memory.checkpoint={mode}"])
        assert_same(trained(recomputed, world, f"{case}-{mode}"), expected, f"{case}, {mode}")
        assert sends.take() == operations, f"{case}, {mode}"


def check_uneven(world: World, folder: Path, sends: Collectives) -> None:
    """Uneven shares (some ranks hold no pictures), and another mode on each rank."""
    config = small_config(folder, CONVOLUTIONAL)
    counts = [0] * world.size
    counts[-1], counts[world.size // 2] = 3, counts[world.size // 2] + IMAGES - 3
    if world.size == 1:
        counts = [IMAGES]
    own = part(pictures(), sum(counts[: world.rank]), counts[world.rank])
    modes: list[Mode] = ["blocks", "none", "stages", "blocks"]
    results = []
    for mode in ("none", modes[world.rank]):
        model = build_detector(config.model, CLASSES, local_norm(config.model), seed=1).train()
        convert_cross_gpu_bn(model)
        recompute_segments(model, mode)
        share_of_mean(model(own), IMAGES, world.size).backward()
        gradients = {f"grad.{n}": p.grad for n, p in model.named_parameters()}
        results.append(({**gradients, **model.state_dict()}, sends.take()))
    assert_same(results[1][0], results[0][0], "uneven")
    assert results[1][1] == results[0][1]
    barrier(world, "uneven")  # machines did not wait for each other


def check_models_of_others(world: World, sends: Collectives) -> None:
    """Each rank in another way; then torch's own, which all refuse, and nobody waits."""
    ways: list[dict[str, Any]] = [{"use_reentrant": True}, {}, {"early_stop": False}, {}]
    found = []
    for words in (None, ways[world.rank]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
        convert_cross_gpu_bn(model)
        torch.manual_seed(world.rank)
        values: dict[str, Any] = {}
        for step in range(10):
            x = torch.randn(2, 3, 8, 8, requires_grad=True)
            y = model(x) if words is None else checkpoint(model, x, **words)
            y.square().sum().backward()
            values |= {f"{step}.y": y.detach(), f"{step}.x": x.grad}
        values |= {n: p.grad for n, p in model.named_parameters()} | model.state_dict()
        assert int(values["1.num_batches_tracked"]) == 10
        found.append((values, sends.take()))
    assert_same({n: v for n, v in found[1][0].items()}, found[0][0], "a model of others")
    assert found[1][1] == found[0][1] and found[0][1].total() == 20 * (world.local_size > 1)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    try:
        y.sum().backward()
    except RuntimeError as error:
        assert "use megdet_hvd.memory.checkpoint in its place" in str(error), error
    else:
        raise AssertionError("it was computed again")
    assert sends.take().total() == (world.local_size > 1), "forward alone"
    barrier(world, "refused")


def same_bits(path: str, machines: Sequence[int] | None) -> None:
    """Everything above; runs are below ``path``, ``machines``: of each rank."""
    with ExitStack() as patches:
        patches.enter_context(thin_backbones())
        _same_bits(Path(path), machines, Collectives(patches))


def _same_bits(folder: Path, machines: Sequence[int] | None, sends: Collectives) -> None:
    world = start(machine_of_rank=machines, settings=HorovodSettings(deterministic=True))
    start_log(world)
    torch.set_num_threads(1)
    check_training(world, folder, sends, "cgbn", ["blocks", "stages"], *CONVOLUTIONAL)
    if world.size <= 2:  # plain BN is each rank's own
        twice = ("model.norm=bn", "learning.accumulation=2", "global_batch=24")
        check_training(world, folder, sends, "bn", ["blocks"], *twice)
    check_uneven(world, folder, sends)
    check_models_of_others(world, sends)
    stop()
