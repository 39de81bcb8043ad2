"""Start and stop Horovod, with one static process set per machine.

Process sets must be known when Horovod starts: sets added later cost an extra allgather in
every cycle. So the machines are found first, by mpi4py where MPI coordinates, by a first
short Horovod session where Gloo does and the job spans several machines.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.cluster.threads import cores_per_process
from megdet_hvd.comm import groups
from megdet_hvd.comm.agree import mark_agreed
from megdet_hvd.comm.position import waiting
from megdet_hvd.comm.world import Machines, World, machines_of
from megdet_hvd.errors import UserError


def machine_key() -> tuple[str, str]:
    """What tells two machines apart: host name, and the kernel's boot id where there is one."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return socket.gethostname(), boot.read_text().strip() if boot.exists() else ""


def start(*, machine_of_rank: Sequence[int] | None = None, deterministic: bool = False) -> World:
    """Start Horovod and say who takes part. Every process of the job must call this together.

    ``machine_of_rank`` replaces what the machines say of themselves (``[0, 0, 1, 1]``: ranks 0
    and 1 on one, 2 and 3 on another), so that several can be tried out on one. With
    ``deterministic``, Horovod's tensor fusion is off: its grouping depends on timing and with
    it the order of sums. A variable the user set is never overridden.

    Raises:
        UserError: the launcher's local size contradicts what the machines say.
    """
    launch = read_launch(os.environ)
    if deterministic:
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    if launch.controller == "single":
        # Horovod would start MPI, which needs a daemon that plain python may not find.
        os.environ.setdefault("HOROVOD_CONTROLLER", "gloo")
        os.environ.setdefault("HOROVOD_CPU_OPERATIONS", "gloo")
    if launch.controller == "mpi":
        # MPI started by mpi4py outlives hvd.shutdown(); started by Horovod it would not.
        from mpi4py import MPI

        found = MPI.COMM_WORLD.allgather((machine_key(), frozenset(os.sched_getaffinity(0))))
        machines = _machines([key for key, _ in found], machine_of_rank)
        _init(machines)
    else:
        import horovod.torch as hvd

        hvd.init()
        found = hvd.allgather_object(
            (machine_key(), frozenset(os.sched_getaffinity(0))), name="megdet.machines"
        )
        machines = _machines([key for key, _ in found], machine_of_rank)
        if len(machines) > 1:
            hvd.shutdown()
            _init(machines)
        else:
            groups.remember(hvd.global_process_set, machines)
    import horovod.torch as hvd

    local = next(ranks for ranks in machines if hvd.rank() in ranks)
    world = World(
        rank=hvd.rank(),
        size=hvd.size(),
        machines=machines,
        cores=cores_per_process([found[rank][1] for rank in local]),
        launcher=launch.launcher,
    )
    if machine_of_rank is None:
        problems = [
            p
            for p in hvd.allgather_object(_local_size_problem(launch, world), name="megdet.local")
            if p
        ]
        if problems:
            raise mark_agreed(UserError(problems[0]))
    return world


def stop() -> None:
    """Stop Horovod. Every process must call this; MPI, if mpi4py started it, goes on."""
    import horovod.torch as hvd

    groups.forget()
    with waiting("hvd.shutdown", range(hvd.size())):
        hvd.shutdown()


def _machines(keys: Sequence[tuple[str, str]], machine_of_rank: Sequence[int] | None) -> Machines:
    if machine_of_rank is None:
        return machines_of(keys)
    if len(machine_of_rank) != len(keys):
        raise UserError(
            f"machine_of_rank names {len(machine_of_rank)} ranks, but the job has {len(keys)}"
        )
    return machines_of(machine_of_rank)


def _init(machines: Machines) -> None:
    """Start Horovod with a set for each machine, all ranks naming the same list."""
    import horovod.torch as hvd

    if len(machines) == 1:
        hvd.init()
        groups.remember(hvd.global_process_set, machines)
        return
    # A set of one rank needs no messages; Horovod is not asked for it.
    sets = {ranks: hvd.ProcessSet(list(ranks)) for ranks in machines if len(ranks) > 1}
    hvd.init(process_sets=list(sets.values()))
    own = next(ranks for ranks in machines if hvd.rank() in ranks)
    groups.remember(sets.get(own), machines)


def _local_size_problem(launch: Launch, world: World) -> str | None:
    import horovod.torch as hvd

    seen = {"the host names say": world.local_size, "hvd.local_size() says": hvd.local_size()}
    if launch.local_size is not None:
        seen[f"{launch.launcher} says"] = launch.local_size
    if len(set(seen.values())) == 1:
        return None
    told = ", ".join(f"{who} {count}" for who, count in seen.items())
    return (
        f"rank {world.rank} on {socket.gethostname()}: the number of processes on this machine "
        f"is contradictory ({told}); BN statistics and GPUs would be shared out wrongly. "
        "Start one task per GPU (srun --ntasks-per-node=…, horovodrun -H host:slots) and unset "
        "left-over launcher variables"
    )
