"""The process set of this process's own machine, for the life of a Horovod session."""

from dataclasses import dataclass
from typing import Any

from megdet_hvd.comm.world import Machines


@dataclass
class _Session:
    """What :func:`megdet_hvd.comm.session.start` found."""

    machine_set: Any
    machines: Machines


_session: _Session | None = None


def remember(machine_set: Any, machines: Machines) -> None:
    """Keep the set of this machine's ranks (None: this process is alone on its machine)."""
    global _session
    _session = _Session(machine_set, machines)


def forget() -> None:
    """Drop it: Horovod stops."""
    global _session
    _session = None


def machine_set() -> Any:
    """The process set of this machine's ranks; None where this process is alone on it.

    Without :func:`megdet_hvd.comm.session.start`, in a program that called ``hvd.init()``
    itself, the global set serves where one machine is the whole job.

    Raises:
        RuntimeError: Horovod spans several machines and was not started with their sets.
    """
    if _session is not None:
        return _session.machine_set
    import horovod.torch as hvd

    if not hvd.is_initialized() or hvd.size() == 1:
        return None
    if hvd.size() == hvd.local_size():
        return hvd.global_process_set
    raise RuntimeError(
        f"Horovod runs {hvd.size()} processes, {hvd.local_size()} of them on this machine, and "
        "was started without a process set per machine; call megdet_hvd.comm.session.start() "
        "instead of hvd.init(), or give the layer process_set=…"
    )
