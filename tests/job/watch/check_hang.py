"""Run by several ranks: one of them does something that hangs a job. Argument 1: what.

With ``--four``, ranks 0 and 1, 2 and 3 pretend to stand on two machines. With ``--mpi``, BN sums go
through mpi4py; with ``--peer``, they are those of emulated GPUs, for which the host does not wait.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import horovod.torch as hvd
import torch

from megdet_hvd.bn import carrier_of
from megdet_hvd.comm import groups
from megdet_hvd.comm.position import compute, go_outside, place, waiting
from megdet_hvd.engine.step.optimizer import set_rate
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.life import Program, run_program
from megdet_hvd.job.needs import SessionNeeds
from megdet_hvd.job.peer import EAGER, MODULE_LOADING, open_peer_sums
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.watch import start_watchdog
from megdet_hvd.job.world import World
from megdet_hvd.train import main as train_main
from tests.comm.peer.emulated import OnTheSpot, emulated_access, wait_for_gpu
from tests.engine.small import small_settings, thin_backbones

LIMIT_S = 4.0
LAYERS, STEPS = 3, 4
kept: list[torch.Tensor] = []
"""An emulated GPU writes into them later."""


def layer(world: World, number: int, values: int = 8) -> None:
    """As a CGBN layer sums over its machine."""
    kinds = [kind for kind in ("mpi", "peer") if f"--{kind}" in sys.argv]
    carrier = carrier_of(groups.bn_group(), *kinds)
    assert carrier.ranks == world.local_ranks
    total = carrier.sum(torch.ones(values).double(), f"cgbn.layer{number}.forward.0")
    kept.append(total)


def gradients(world: World) -> None:
    with waiting("gradients", range(world.size)):
        hvd.allreduce(torch.ones(1000), name="gradients", op=hvd.Sum)


def work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        torch.ones(100, 100) @ torch.ones(100, 100)


def train(case: str, world: World) -> int:
    """Four steps of three layers; in the third, ``case`` happens."""
    last = world.size - 1
    if "--peer" in sys.argv:
        open_peer_sums(world, torch.device("cuda", 0), emulated_access)
        OnTheSpot.waits = False  # the host goes on
    for step in range(1, STEPS + 1):
        compute(step, "forward")
        for number in range(LAYERS):
            here = step == 3 and number == 1
            if here and case == "skip" and world.machine == 0:
                work(3 * LIMIT_S)  # machine 0 neither hides the hang nor is blamed for it
            if here and case == "skip" and world.rank == last:
                continue
            if here and case == "shape" and world.rank == last:
                layer(world, number, values=9)
            if here and case == "stop" and world.rank == last:
                if "--peer" in sys.argv:  # an emulated GPU stops with its process
                    wait_for_gpu()
                os.kill(os.getpid(), signal.SIGSTOP)
            if here and case == "stop0" and world.rank == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            if here and case == "raise" and world.rank == last:
                raise ZeroDivisionError("a fault of one rank")
            layer(world, number)
        gradients(world)
    return 0


def slow_but_well() -> None:
    """Long waits with good reasons, and the watchdog started and stopped several times."""
    world = start(machine_of_rank=[0, 0])
    for _ in range(2):
        assert not start_watchdog(world, 0.0).watches
        watchdog = start_watchdog(world, LIMIT_S)
        assert watchdog.watches
        gradients(world)
        watchdog.stop()
        watchdog.stop()
    with start_watchdog(world, LIMIT_S):
        compute(1, "forward")
        if world.rank == 1:
            work(1.5 * LIMIT_S)
        gradients(world)
        go_outside("evaluation")
        # A rank that has left in order is not missed by a job that goes on without it.
        left = start_watchdog(world, LIMIT_S)
        if world.rank == 1:
            left.stop()
        time.sleep(1.5 * LIMIT_S)
        gather_objects(None, world, "end")
        left.stop()
    assert place()[0].kind == "outside"
    stop()


def stop_in_training(folder: Path) -> int:
    """Real training; rank 1 is stopped when its third step begins."""
    steps = 0

    def set_rate_or_stop(optimizer: Any, rate: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 3 and hvd.rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        set_rate(optimizer, rate)

    settings = small_settings(folder, "watchdog.seconds=8", "data.workers=1", "name=hangs")
    stops = mock.patch("megdet_hvd.engine.step.loop.set_rate", set_rate_or_stop)
    with thin_backbones(), stops:
        return train_main(settings)


def main() -> int:
    case = sys.argv[1]
    if case == "train":
        return stop_in_training(Path(sys.argv[2]))
    machines = [0, 0, 1, 1] if "--four" in sys.argv else None
    job = SessionNeeds(watchdog_s=LIMIT_S, environment={MODULE_LOADING: EAGER})
    program = Program(
        lambda: case,
        lambda case, life: train(case, life.world),
        needs=lambda _: job,
        machine_of_rank=machines,
    )
    return run_program(program)


if __name__ == "__main__":
    sys.exit(main())
