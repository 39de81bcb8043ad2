"""What the system allows a process (``ulimit``): raised where it may be, and told where it is low.

Slurm hands the limits of the shell that submits a job to its steps (``PropagateResourceLimits``),
and login nodes keep them low.
"""

import resource

from megdet_hvd.errors import UserError

OPEN_FILES = 1024
"""Fewer is told: a loader's workers hand each picture over as an open file."""
_TOO_FEW = 256
_RAISED_TO = 65536
_TOLD = (
    (resource.RLIMIT_CPU, "CPU time (ulimit -t)", "s: a process that has used it is killed"),
    (resource.RLIMIT_AS, "memory (ulimit -v)", "bytes: more is refused"),
    (resource.RLIMIT_FSIZE, "size of a file (ulimit -f)", "bytes: a larger checkpoint can't be"),
)


def raise_open_files() -> int:
    """Let this process, and those it starts, open as many files as it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _RAISED_TO if hard == resource.RLIM_INFINITY else min(hard, _RAISED_TO)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            return soft
        return most
    return _RAISED_TO if soft == resource.RLIM_INFINITY else soft


def low_limits(open_files: int) -> list[str]:
    """A line for each limit that a job may run into.

    Args:
        open_files: what :func:`raise_open_files` returned.

    Raises:
        UserError: too few open files for any training.
    """
    if open_files < _TOO_FEW:
        raise UserError(
            f"open files (ulimit -n): {open_files}, and no more may be asked for; a process that "
            f"loads pictures opens more than {_TOO_FEW}. Raise the limit (ulimit -n "
            f"{OPEN_FILES}) in the shell that you submit from, or ask the site to"
        )
    found = []
    if open_files < OPEN_FILES:
        found.append(f"open files (ulimit -n): {open_files}; {OPEN_FILES} are usual")
    for what, name, unit in _TOLD:
        soft, _ = resource.getrlimit(what)
        if soft != resource.RLIM_INFINITY:
            found.append(f"{name}: {soft} {unit}")
    return found
