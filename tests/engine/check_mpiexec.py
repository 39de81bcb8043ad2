"""Called by four ranks on two pretended machines.

Trained as a program, then as a library on a communicator that numbers the ranks backwards, with a
fault between: rank 3's machine waits in a sum of its own while rank 0's waits in another.
"""

import json
import os
from pathlib import Path
from unittest import mock

import torch
from mpi4py import MPI

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.errors import MemberError
from megdet_hvd.train import main as train_main
from megdet_hvd.train import train
from tests.engine.small import small_and_quiet, small_config, small_settings

MACHINES = [0, 0, 1, 1]
STEPS = 2


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def trained(path: str) -> list[float]:
    """The program's losses, which the library repeats."""
    with small_and_quiet():
        return _trained(Path(path))


def _trained(folder: Path) -> list[float]:
    more = [f"learning.max_iterations={STEPS}", "evaluation.every_epochs=0", "deterministic=true"]
    code = train_main([*small_settings(folder, *more), "name=program"], machine_of_rank=MACHINES)
    assert code == 0
    world = MPI.COMM_WORLD
    comm = world.Split(0, -world.rank)
    config = small_config(folder, more)
    calls = 0
    forward = CrossGPUBatchNorm2d.forward

    def counted(self: CrossGPUBatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 25 and comm.rank == 3:
            raise ZeroDivisionError("in a layer")
        return forward(self, x)

    try:
        with mock.patch.object(CrossGPUBatchNorm2d, "forward", counted):
            train(config, comm, run_folder=folder / "runs" / "fails", machine_of_rank=MACHINES)
        raise AssertionError("all members raise")
    except ZeroDivisionError:
        assert comm.rank == 3
    except MemberError as error:
        assert error.rank == 3 and comm.rank != 3
    result = train(config, comm, run_folder=folder / "runs" / "library", machine_of_rank=MACHINES)
    assert result.iteration == STEPS
    if comm.rank == 0:
        first, second = (losses(folder / "runs" / name) for name in ("program", "library"))
        assert len(first) == STEPS and first == second, (first, second)
        log = (folder / "runs" / "program" / "log.txt").read_text()
        assert "4 processes on 2 machines (" in log and "started by mpirun" in log
        assert "over ranks 0-1 (one machine)" in log
        gloo = os.environ.get("HOROVOD_CPU_OPERATIONS") == "gloo"
        assert ("Gloo carries its messages" in log) == gloo
    assert world.allreduce(1) == 4
    return losses(folder / "runs" / "program")
