"""Checks that ``tests/test_pool.py`` gives to a pool: good ones, and such as damage their ranks."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any
from unittest import mock

import torch

from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.session import start, stop


def add(machines: list[int] | None, settings: dict[str, str]) -> list[Any]:
    """The ranks' numbers added up, the machine of this one, and what its process is like."""
    os.environ.update(settings)
    world = start(machine_of_rank=machines)
    total = sum(gather_objects(world.rank, world, "add"))
    print("said by", world.rank, flush=True)
    subprocess.run(["echo", "and by a child"], check=True)
    stop()
    return [total, world.machine, os.environ.get("MEGDET_SAMPLE")]


def untidy() -> list[float]:
    """Changes all that is put back; what it draws is the same each time."""
    drawn = [float(torch.rand(())), random.random()]
    os.chdir("/")
    os.environ["MEGDET_SAMPLE"] = "untidy"
    sys.argv[:] = ["untidy"]
    sys.path.insert(0, "/nowhere")
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(3)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return drawn


def state() -> list[Any]:
    return [
        os.getcwd(),
        os.environ.get("MEGDET_SAMPLE"),
        sys.argv[0] == "untidy",
        "/nowhere" in sys.path,
        signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN,
        str(torch.get_default_dtype()),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        len(os.sched_getaffinity(0)),
        os.getpid(),
    ]


def one_raises() -> None:
    world = start()
    if world.rank == 1:
        raise ZeroDivisionError("on one rank")
    gather_objects(None, world, "never")


def one_is_killed() -> None:
    if start().rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def one_hangs() -> None:
    world = start()
    if world.rank == 1:
        time.sleep(60)
    gather_objects(None, world, "never")


def leave_everything() -> None:
    start()
    threading.Thread(target=time.sleep, args=(60,), name="lasting", daemon=True).start()
    subprocess.Popen(["sleep", "60"])
    mock.patch("megdet_hvd.job.exchange.barrier").start()
