"""How long starting a job may take: the more processes, the longer.

All of them read the same files from a shared file system at once, and report to one process.
"""

BASE_S = 120
PER_PROCESS_S = 2
_PMIX_S = 300
"""Slurm's own limit, which is never lowered."""


def start_limit_s(processes: int) -> int:
    """Seconds until the last of ``processes`` must have started: 136 for 8, 376 for 128."""
    return BASE_S + PER_PROCESS_S * processes


def start_variables(processes: int) -> dict[str, str]:
    """The limit, in the variables of Horovod and of Slurm's PMIx that have one of their own."""
    limit = str(start_limit_s(processes))
    return {
        "HOROVOD_START_TIMEOUT": limit,
        "HOROVOD_GLOO_TIMEOUT_SECONDS": limit,
        "SLURM_PMIX_TIMEOUT": str(max(_PMIX_S, start_limit_s(processes))),
    }
