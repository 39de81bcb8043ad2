"""Start and stop Horovod, with one static process set per group that shares BN statistics.

Process sets must be known when Horovod starts: sets added later cost an extra allgather in
every cycle. So the machines are found before, by mpi4py where MPI coordinates, through the
launcher's store where Gloo does.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.cluster.mpi_start import meet_once
from megdet_hvd.cluster.threads import cores_per_process
from megdet_hvd.comm import groups
from megdet_hvd.comm.mpi_sums import MpiSums
from megdet_hvd.comm.position import waiting
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job.agree import (
    ErrorRecord,
    error_record,
    first_error,
    mark_agreed,
    raise_agreed,
)
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.horovod_settings import HorovodSettings, horovod_variables, initialise
from megdet_hvd.job.launch_check import launch_mismatch
from megdet_hvd.job.meeting import meeting_at_start
from megdet_hvd.job.own_store import OwnStore, wants_gloo
from megdet_hvd.job.rendezvous import meet
from megdet_hvd.job.stale_addresses import forget_addresses
from megdet_hvd.job.world import Machines, World, machines_of
from megdet_hvd.serialize import serializable


def machine_key() -> tuple[str, str]:
    """What tells two machines apart: host name, and the kernel's boot id where there is one."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return socket.gethostname(), boot.read_text(encoding="utf-8").strip() if boot.exists() else ""


def start(
    *,
    communicator: Any = None,
    interrupted: Callable[[], bool] | None = None,
    machine_of_rank: Sequence[int] | None = None,
    settings: HorovodSettings | None = None,
    bn_groups: Callable[[Machines], Machines] | None = None,
    facts: Callable[[], Any] | None = None,
    check: Callable[[list[Any], Machines], str | None] | None = None,
    problem: UserError | StorageError | None = None,
) -> World:
    """Start Horovod and say who takes part. Every process of the job must call this together.

    ``communicator`` is mpi4py's: its processes are the job, numbered as in it; it is duplicated,
    and neither changed nor freed. None: the launcher's processes. ``interrupted`` is asked while
    this process waits for an MPI sum of BN; once true, the wait ends with Interrupted.
    ``machine_of_rank`` replaces what the machines say of themselves (``[0, 0, 1, 1]``: ranks 0
    and 1 on one, 2 and 3 on another), so that several can be tried out on one. ``settings`` say
    how Horovod's thread is set up; a variable the user set is never overridden, and what they set
    does not stay in the environment. ``bn_groups`` says who shares BN statistics, given the ranks
    of each machine; each rank is in one group. None: each machine is a group, as in the paper.
    ``facts()`` of every rank travel along, and ``check``, given all of them and the machines,
    says before Horovod starts why the job can't run (None: it can). It must be equal everywhere;
    it is not asked where a rank has no facts. ``problem``: why this process can't go on.

    Raises:
        UserError: the launcher's local size contradicts what the machines say, or what ``check``
            says, or a rank has a ``problem``; on all ranks alike. MPI or Horovod does not find the
            processes that the launcher started: on each that finds it out.
        StorageError: a rank's ``problem`` is one.
    """
    global _store
    launch = read_launch(os.environ)
    meet_once(launch, os.environ)
    if communicator is not None:
        # What the launcher says holds for all processes, of which these may be a few.
        launch = Launch("mpi", f"{launch.launcher}, mpi4py", None, None, None, None)
    variables, notes = horovod_variables(settings or HorovodSettings(), os.environ)
    if launch.controller == "single":
        # Horovod would start MPI, which needs a daemon that plain python may not find.
        alone = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
        variables |= {name: word for name, word in alone.items() if name not in os.environ}
    met = meet_all(
        launch,
        communicator=communicator,
        machine_of_rank=machine_of_rank,
        facts=facts,
        check=check,
        problem=problem,
    )
    machines = met.machines
    sharing = machines if bn_groups is None else bn_groups(machines)
    if launch.controller == "mpi" and wants_gloo(os.environ):
        _store = OwnStore(communicator or _world_communicator(), machines)
        variables = {**variables, **_store.variables}
        notes = (*notes, "Gloo carries its messages")
    if launch.controller == "gloo" and forget_addresses(os.environ):
        meet("ready", launch.rank or 0, launch.size or 1, os.environ)
    sets = _init(sharing, variables, None if _store is not None else communicator)
    import horovod.torch as hvd

    broken = launch_mismatch(launch, hvd.size(), hvd.rank(), "Horovod")
    if broken is not None:
        raise UserError(broken)
    local = next(ranks for ranks in machines if hvd.rank() in ranks)
    own = next(tuple(ranks) for ranks in sharing if hvd.rank() in ranks)
    process_set = hvd.global_process_set if len(own) == hvd.size() else sets.get(own)
    sums = _sums(sharing, communicator, interrupted) if launch.controller == "mpi" else None
    groups.remember(groups.BnGroup(own, process_set, sums, interrupted=interrupted))
    world = World(
        rank=hvd.rank(),
        size=hvd.size(),
        machines=machines,
        cores=met.cores[machines.index(local)],
        launcher=launch.launcher,
        horovod=notes,
        hosts=met.hosts,
    )
    if machine_of_rank is None:
        own_problem = _local_size_problem(launch, world)
        problems = [p for p in gather_objects(own_problem, world, "local") if p]
        if problems:
            raise mark_agreed(UserError(problems[0]))
    return world


@serializable
@dataclass(frozen=True)
class Met:
    """What all processes know of one another before Horovod runs: little, however many they are."""

    machines: Machines
    """Ranks of each machine."""
    cores: tuple[int, ...]
    """Of each process of each machine."""
    hosts: tuple[str, ...]
    """Host name of each machine."""


def meet_all(
    launch: Launch,
    *,
    communicator: Any = None,
    machine_of_rank: Sequence[int] | None = None,
    facts: Callable[[], Any] | None = None,
    check: Callable[[list[Any], Machines], str | None] | None = None,
    problem: UserError | StorageError | None = None,
) -> Met:
    """All processes tell rank 0 of themselves, Horovod aside, which tells all; see :func:`start`.

    Raises:
        UserError, StorageError: as :func:`start` does.
    """

    def decide(found: list[_Told]) -> tuple[ErrorRecord | None, Met | None]:
        if (first := first_error([one.problem for one in found])) is not None:
            return first, None
        try:
            machines = _machines([one.machine for one in found], machine_of_rank)
        except UserError as error:
            return error_record(error), None
        told = [one.facts for one in found]
        if check is not None and None not in told and (misfit := check(told, machines)):
            return error_record(UserError(misfit)), None
        cores = [cores_per_process([found[rank].cores for rank in ranks]) for ranks in machines]
        hosts = [found[ranks[0]].machine[0] for ranks in machines]
        return None, Met(machines, tuple(cores), tuple(hosts))

    with meeting_at_start(launch, communicator) as meeting:
        own_facts = None if facts is None else facts()
        cores = frozenset(os.sched_getaffinity(0))
        own = _Told(machine_key(), cores, own_facts, error_record(problem))
        error, met = meeting.decide(own, "start", decide)
    raise_agreed(error)
    assert met is not None, "without an error there is a job"
    return met


@serializable
@dataclass(frozen=True)
class _Told:
    """What a rank tells rank 0 before Horovod runs."""

    machine: tuple[str, str]
    cores: frozenset[int]
    facts: Any
    problem: ErrorRecord | None


_store: OwnStore | None = None
"""Of this session, where Gloo carries messages in a job of MPI's."""


def _world_communicator() -> Any:
    from mpi4py import MPI

    return MPI.COMM_WORLD


def stop() -> None:
    """Stop Horovod. Every process must call this; MPI, if mpi4py started it, goes on."""
    stop_horovod()
    groups.forget()


def stop_horovod() -> None:
    """Stop Horovod alone: whoever waits in one of its collectives, anywhere, is freed by an error.

    Horovod ends on all processes once one asks for it. It must be stopped on each of them before
    it can start again. Does nothing where it does not run.
    """
    global _store
    import horovod.torch as hvd

    if hvd.is_initialized():
        with waiting("hvd.shutdown", range(hvd.size())):
            hvd.shutdown()
    if _store is not None:
        _store.close()
        _store = None


def _machines(keys: Sequence[tuple[str, str]], machine_of_rank: Sequence[int] | None) -> Machines:
    if machine_of_rank is None:
        return machines_of(keys)
    if len(machine_of_rank) != len(keys):
        raise UserError(
            f"machine_of_rank names {len(machine_of_rank)} ranks, but the job has {len(keys)}"
        )
    return machines_of(machine_of_rank)


def _wants_sets(sharing: Machines) -> bool:
    """Whether a group is neither everybody, whose set Horovod has, nor one rank, who needs none."""
    return any(1 < len(ranks) < sum(map(len, sharing)) for ranks in sharing)


def _init(
    sharing: Machines, variables: Mapping[str, str], communicator: Any
) -> dict[tuple[int, ...], Any]:
    """Start Horovod with a set for each group, all ranks naming the same list."""
    import horovod.torch as hvd

    if not _wants_sets(sharing):
        initialise(lambda: hvd.init(comm=communicator), variables)
        return {}
    sets = {tuple(ranks): hvd.ProcessSet(list(ranks)) for ranks in sharing if len(ranks) > 1}
    initialise(lambda: hvd.init(comm=communicator, process_sets=list(sets.values())), variables)
    return sets


def _sums(
    sharing: Machines, communicator: Any, interrupted: Callable[[], bool] | None
) -> MpiSums | None:
    """mpi4py's sums over the group of this process. Every process calls it together.

    None where MPI does not let several threads call it, as Horovod's and the training thread would.
    """
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        return None
    communicator = communicator or MPI.COMM_WORLD
    rank = communicator.Get_rank()
    own = next(i for i, ranks in enumerate(sharing) if rank in ranks)
    return MpiSums(communicator.Split(own, rank), interrupted)


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
