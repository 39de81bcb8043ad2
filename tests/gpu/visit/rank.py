"""``python -m tests.gpu.visit.rank CASE OUT``: what each of several processes on one GPU does.

It is the engine's own way of stepping, with made-up pictures, other ones on each rank. Every rank
writes what it found to ``OUT/rankN.json``.

NCCL refuses two ranks of one host on one GPU. It knows hosts by a name that can be given, so each
rank claims one of its own, and NCCL goes over sockets of the loopback device: slow, and every line
of Horovod's way over a GPU runs. CUDA_VISIBLE_DEVICES=0 lets each rank take that GPU.
"""

import argparse
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from megdet_hvd.command import leave

if TYPE_CHECKING:
    import torch
    from torch import nn

    from megdet_hvd.config.schema import Config
    from megdet_hvd.engine.step.loop import Step
    from megdet_hvd.job.life import Life
    from megdet_hvd.job.world import World

IMAGES = 2
"""Of a process in a step."""
SUM_VALUES = 2 * 512 + 1
"""Doubles of a BN message of 512 channels."""
LOST_AT = 3
"""The step in which rank 1 is lost."""
WATCHDOG_S = {"killed": 12.0, "stopped": 12.0}
"""When a hang ends the job: in these cases early, and yet NCCL's start is none."""
ON_ONE_GPU = {
    "CUDA_VISIBLE_DEVICES": "0",
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_IB_DISABLE": "1",
    "NCCL_DEBUG": "VERSION",
}
"""For the launcher."""


@dataclass
class Job:
    """A rank's run, ready to step."""

    options: argparse.Namespace
    config: "Config"
    world: "World"
    device: "torch.device"
    detector: "nn.Module"
    optimizer: Any
    scaler: Any

    def steps(self, number: int) -> "Iterator[Step]":
        """So many of the engine's steps."""
        from megdet_hvd.bench.step import pictures_of
        from megdet_hvd.engine.step.loop import train_steps

        size = (64, 96) if self.options.small else (320, 480)
        made = pictures_of(size, IMAGES)
        batch = replace(made, images=made.images.roll(17 * self.world.rank, -1))
        derived: Any = SimpleNamespace(schedule=SimpleNamespace(rate_at=lambda images: 0.001))
        for taken, step in enumerate(
            train_steps(
                self.detector, self.optimizer, self.scaler, repeat([batch]), self.config,
                derived, self.world, self.device, 0,
            ),
            1,
        ):  # fmt: skip
            yield step
            if taken == number:
                return

    def digest(self, *, buffers: bool = True) -> str:
        """Of all weights, and of the running statistics, to the bit."""
        found = hashlib.sha256()
        weights = dict(self.detector.named_parameters())
        for name, value in self.detector.state_dict().items():
            if buffers or name in weights:
                found.update(value.cpu().numpy().tobytes())
        return found.hexdigest()


def steps(job: Job) -> Iterator[tuple[str, Any]]:
    """Eight steps of CGBN, and what a sum takes by itself."""
    times, waits = [], []
    for step in job.steps(3 if job.options.small else 8):
        times.append(step.times.step_s)
        waits.append([wait for wait in step.times.waits if wait.name.startswith("cgbn.")])
        losses = step.status.losses
    yield "losses", losses
    yield "weights", job.digest(buffers=False)
    yield "all", job.digest()
    yield "step_ms", 1e3 * sorted(times[1:])[len(times[1:]) // 2]
    yield "sums", len(waits[-1])
    yield "sums_ms", 1e3 * sum(wait.seconds for wait in waits[-1])
    yield "sum_ms", sum_ms(job, 5 if job.options.small else 200)


def sum_ms(job: Job, number: int) -> float:
    """Of one BN sum, of many after one another; the host waits for the device after the last."""
    import torch

    from megdet_hvd.bn import carrier_of
    from megdet_hvd.comm import groups
    from megdet_hvd.job.exchange import barrier

    carrier = carrier_of(groups.bn_group(), "horovod")
    vector = torch.ones(SUM_VALUES, dtype=torch.float64, device=job.device)
    for turn in range(2):
        began = time.perf_counter()
        for one in range(number):
            carrier.sum(vector, f"visit.{turn}.{one}")
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
    took_s = time.perf_counter() - began
    barrier(job.world, "sums")  # ranks of another machine would end Horovod under these
    return 1e3 * took_s / number


def overflow(job: Job) -> Iterator[tuple[str, Any]]:
    """In the second step a gradient of rank 1 is infinite: all leave the step out, and go on."""
    lost = {"now": False}

    def infinite(gradient: "torch.Tensor") -> "torch.Tensor":
        return gradient * float("inf") if lost["now"] else gradient

    first = next(p for p in job.detector.parameters() if p.requires_grad)
    first.register_hook(infinite)
    before = (job.digest(buffers=False), job.scaler.get_scale())
    for step in job.steps(4):
        after = (job.digest(buffers=False), job.scaler.get_scale())
        yield f"moved_{step.iteration}", after[0] != before[0]
        yield f"scaled_{step.iteration}", after[1] / before[1]
        lost["now"] = step.iteration == 1 and job.world.rank == 1
        before = after
    yield "weights", job.digest(buffers=False)


def lost(job: Job) -> Iterator[tuple[str, Any]]:
    """Rank 1 is lost in mid-run: killed, or stopped."""
    for step in job.steps(LOST_AT + 50):
        yield "step", step.iteration
        if step.iteration == LOST_AT - 1 and job.world.rank == 1:
            number = signal.SIGKILL if job.options.case == "killed" else signal.SIGSTOP
            os.kill(os.getpid(), number)


CASES: Mapping[str, Callable[[Job], Iterator[tuple[str, Any]]]] = {
    "steps": steps,
    "overflow": overflow,
    "killed": lost,
    "stopped": lost,
}


def prepared(options: argparse.Namespace, config: "Config", world: "World") -> Job:
    """As the engine does it, with pictures that need no files."""
    import horovod.torch as hvd
    import torch

    from megdet_hvd.bench.detector import CLASSES
    from megdet_hvd.bn import name_layers
    from megdet_hvd.config.gradient_order import gradient_order
    from megdet_hvd.engine.bn_kernels import find_bn_kernels
    from megdet_hvd.engine.device import prepare_device
    from megdet_hvd.engine.norms import detector_norm, shares_statistics
    from megdet_hvd.engine.step.optimizer import build_optimizer
    from megdet_hvd.job.peer import open_peer_sums
    from megdet_hvd.model.build import build_detector

    device = prepare_device(config, world)
    if config.bn.carrier == "peer":
        open_peer_sums(world, device)
    norm = detector_norm(config, world, device)
    detector = build_detector(config.model, CLASSES, norm, seed=0)
    name_layers(detector)
    detector.to(device)
    order = gradient_order(config, shares_statistics(config, world))
    optimizer = build_optimizer(detector, config, hold=order.held)
    kernels = find_bn_kernels(detector, config, world, device)
    print(order, kernels and kernels.put_to_use(detector), flush=True)
    hvd.broadcast_parameters(detector.state_dict(), root_rank=0)
    scaler = torch.amp.GradScaler(device.type) if options.case == "overflow" else None
    return Job(options, config, world, device, detector, optimizer, scaler)


def work(options: argparse.Namespace, life: "Life[argparse.Namespace]") -> int:
    """The case, of which each rank writes what it finds as it goes."""
    from tests.engine.small import thin_backbones

    world = life.world
    file = options.out / f"rank{world.rank}.json"
    found: dict[str, Any] = {"Horovod": list(world.horovod), "machine": world.machine}
    with thin_backbones() if options.small else nullcontext():
        job = prepared(options, config_of(options), world)
        for name, value in CASES[options.case](job):
            found[name] = value
            file.write_text(json.dumps(found), encoding="utf-8")
    return 0


def config_of(options: argparse.Namespace) -> "Config":
    """Of CGBN on that device."""
    from megdet_hvd.config.load import load_config

    precision = "float32"
    if options.case == "overflow" and options.device == "cuda":
        precision = "float16"
    words = [f"device={options.device}", f"precision={precision}", "deterministic=false"]
    words += [f"global_batch={IMAGES * options.processes}"]
    words += ["model.backbone=resnet18"] if options.small else []
    words += [f"bn.carrier={options.carrier}"]
    return load_config(None, words)


def main() -> int:
    """One rank's life."""
    from megdet_hvd.engine.needs import environment_for
    from megdet_hvd.engine.norms import sharing_of
    from megdet_hvd.job.horovod_settings import settings_for
    from megdet_hvd.job.life import Program, run_program
    from megdet_hvd.job.needs import DEFAULT_WATCHDOG_S, SessionNeeds

    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("case", choices=list(CASES))
    add("out", type=Path)
    add("--device", default="cuda")
    add("--processes", type=int, required=True)
    add("--carrier", default="horovod")
    add("--blocking", action="store_true", help="the host waits for each sum")
    add("--machines", type=int, nargs="+", help="that of each rank")
    add("--small", action="store_true")
    options = parser.parse_args()
    rank = os.environ["HOROVOD_RANK"]
    if options.case == "killed" and rank == "1" and (child := os.fork()):
        # The launcher, which would end rank 0 before it has told, learns of it later.
        os.waitpid(child, 0)
        time.sleep(WATCHDOG_S[options.case])
        return 1
    if options.device == "cuda":
        os.environ["NCCL_HOSTID"] = f"rank{rank}"
    config = config_of(options)
    settings = settings_for(config)
    if options.blocking:
        settings = replace(settings, async_completion=False)
    limit_s = WATCHDOG_S.get(options.case, DEFAULT_WATCHDOG_S)
    needs = SessionNeeds(settings, sharing_of(config), limit_s, environment_for(config))
    program = Program(
        lambda: options, work, needs=lambda _: needs, machine_of_rank=options.machines
    )
    return run_program(program)


if __name__ == "__main__":
    leave(main)
