"""Called by several ranks: ``train()`` as a part of a program, with a folder and what to check.

``part``: ranks 0 and 1 train on a communicator of theirs while the last rank does other work over
MPI; ``all``: all processes of the launcher train; ``stop``: as ``part``, and rank 1 stops.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.engine.step.loop import apply_gradients
from megdet_hvd.errors import MemberError, UserError
from megdet_hvd.job.world import World
from megdet_hvd.train import train
from tests.comm.peer.emulated import open_emulated
from tests.engine.small import small_and_quiet, small_config

STEPS = 3
FREED_WITHIN_S = 60.0  # nearly all of it for the start and the first step, on busy cores


class Fault(Exception):
    """Injected."""


@contextmanager
def failing_layer(rank: int, on: int) -> Iterator[None]:
    """On rank ``on``, the 30th forward pass of a CGBN layer raises: in mid-step, others wait."""
    calls = 0
    forward = CrossGPUBatchNorm2d.forward

    def counted(self: CrossGPUBatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 30 and rank == on:
            raise Fault("a layer failed")
        return forward(self, x)

    with mock.patch.object(CrossGPUBatchNorm2d, "forward", counted):
        yield


@contextmanager
def failing_gradients(rank: int, on: int) -> Iterator[None]:
    """On rank ``on``, step 2 ends before its gradients are asked for: others wait for its step."""

    def once(*args: Any) -> Any:
        if args[-1] == 2 and rank == on:
            raise Fault("a step failed")
        return apply_gradients(*args)

    with mock.patch("megdet_hvd.engine.step.loop.apply_gradients", once):
        yield


def emulated_gpus(world: World, device: torch.device) -> None:
    """The kernel of ``bn.carrier=peer`` runs on the CPU, where this trains."""
    assert device.type == "cpu" and os.environ["CUDA_MODULE_LOADING"] == "EAGER"
    open_emulated(world)


def surroundings() -> list[Any]:
    """What a library leaves as it is."""
    package = logging.getLogger("megdet_hvd")
    return [
        [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)],
        sys.excepthook,
        list(logging.getLogger().handlers),
        logging.getLogger().level,
        (list(package.handlers), package.level, package.propagate),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_rng_state().tolist(),
        dict(os.environ),
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content = load_checkpoint(folder)
    assert content["iteration"] == STEPS
    found: dict[str, torch.Tensor] = content["model"]
    return found


def check_members(folder: Path, rank: int, comm: Any, *more: str) -> None:
    """Trainings that end well, before and after such that don't."""
    settings = [f"learning.max_iterations={STEPS}", "deterministic=true", *more]
    config = small_config(folder, settings)

    def whole(name: str) -> dict[str, torch.Tensor]:
        before = surroundings()
        result = train(config, comm, run_folder=folder / "runs" / name)
        assert surroundings() == before
        assert result.run_folder == folder / "runs" / name and result.iteration == STEPS
        assert result.checkpoint is not None and result.checkpoint.exists()
        assert len(result.evaluations) == 1 and result.evaluations[0]["AP"] == result.ap
        assert "iteration 3/3" in (result.run_folder / "log.txt").read_text()
        return weights(result.run_folder)

    def fails(name: str, fault: Callable[..., Any], on: int, *more: str) -> None:
        before, began = surroundings(), time.monotonic()
        caught: Exception | None = None
        with fault(rank, on):
            try:
                config = small_config(folder, [*settings, *more])
                train(config, comm, run_folder=folder / "runs" / name)
            except (Fault, MemberError) as error:
                caught = error
        if rank == on:
            assert type(caught) is Fault, caught
        else:
            assert isinstance(caught, MemberError), caught
            assert (caught.rank, caught.kind) == (on, "Fault"), caught
            assert f"rank {on} failed: Fault: a" in str(caught), caught
        assert time.monotonic() - began < FREED_WITHIN_S
        assert surroundings() == before

    first = whole("first")
    fails("layer", failing_layer, 1)
    fails("gradients", failing_gradients, 0)
    if comm is not None:
        fails("carrier", failing_layer, 1, "bn.carrier=mpi")
    try:  # an error that all agree on
        train(config, comm, run_folder=folder / "runs" / "first")
        raise AssertionError("the folder holds a run")
    except UserError as error:
        assert "already holds a run" in str(error)
    second = whole("second")
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    if comm is not None:
        last = train(small_config(folder, [*settings, "bn.carrier=mpi"]), comm)
        assert last.iteration == STEPS
        with mock.patch("megdet_hvd.engine.prepare.open_peer_sums", emulated_gpus):
            fails("peer", failing_layer, 1, "bn.carrier=peer")
            folder_of_peer = folder / "runs" / "peer-whole"
            peer = small_config(folder, [*settings, "bn.carrier=peer"])
            train(peer, comm, run_folder=folder_of_peer)
        # Of two ranks' vectors there is one order of adding up, up to which comes first.
        third = weights(folder_of_peer)
        assert all(torch.equal(value, third[name]) for name, value in first.items())
        log = (folder_of_peer / "log.txt").read_text()
        assert "bn.carrier=peer, as asked for: its test sums were right" in log
    longer = small_config(folder, [*settings, f"learning.max_iterations={STEPS + 1}"])
    carried_on = train(longer, comm, run_folder=folder / "runs" / "first", resume=True)
    assert carried_on.iteration == STEPS + 1


def check_part(folder: Path, case: str) -> None:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    last = world.size - 1
    comm = world.Split(int(world.rank == last), world.rank)
    done = 0
    if world.rank == last:
        other, request = 0, world.irecv(source=0, tag=5)
        while case == "stop" or not request.test()[0]:
            comm.allreduce(1)
            other += 1
            time.sleep(0.01)
        assert other > 10
    elif case == "stop":
        stop_in_training(folder, world.rank, comm)
    else:
        check_members(folder, world.rank, comm)
        if world.rank == 0:
            world.send(True, dest=last, tag=5)
        done = 1
    assert world.allreduce(done) == last and comm.allreduce(1) == comm.size
    comm.Free()
    assert not MPI.Is_finalized()


def stop_in_training(folder: Path, rank: int, comm: Any) -> None:
    def stop(*args: Any) -> Any:
        if args[-1] == 2 and rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return apply_gradients(*args)

    with mock.patch("megdet_hvd.engine.step.loop.apply_gradients", stop):
        train(small_config(folder, ["watchdog.seconds=6", "name=stops"]), comm)


def members(path: str, case: str) -> None:
    """One of the three cases."""
    folder = Path(path)
    with small_and_quiet():
        if case != "all":
            check_part(folder, case)
            return
        rank = int(os.environ["HOROVOD_RANK"])
        check_members(folder, rank, None)


if __name__ == "__main__":
    try:
        members(*sys.argv[1:])
    except BaseException:
        import traceback

        from megdet_hvd.job.abort import end_job

        print(traceback.format_exc(), flush=True)
        end_job(1)
