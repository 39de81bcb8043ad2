"""Variables that modules, conda and other launchers have left in a job's environment. Pure.

What the site file exports is asked for and stays. What says who a process is (its rank, its
daemon's address) is another job's, and would be believed: it is taken out. The rest is named in the
log, since it changes how MPI, NCCL and Horovod work.
"""

import re
from collections.abc import Collection, Mapping

from megdet_hvd.cluster.mpi_start import VARIABLES

_IDENTITY = re.compile(
    r"HOROVOD_(RANK|SIZE|(LOCAL|CROSS)_(RANK|SIZE)|CONTROLLER|CPU_OPERATIONS|HOSTNAME"
    r"|GLOO_RENDEZVOUS_\w+|SECRET_KEY|ELASTIC|TASK_INDEX)"
    r"|OMPI_(COMM_WORLD|UNIVERSE|APP_CTX|FIRST_RANKS|NUM_APP|FILE_LOCATION|ARGV|COMMAND)\w*"
    r"|OMPI_MCA_(ess(_\w+)?|initial_wdir|orte_(local_daemon_uri|hnp_uri|num_nodes|ess_\w+|app_num"
    r"|jobid|bound_at_launch|precondition_transports|\w+_session_dir))"
    r"|PMIX_(RANK|NAMESPACE|SERVER_\w+|SECURITY_MODE|GDS_MODULE|BFROP_\w+|PTL_MODULE|HOSTNAME"
    r"|VERSION|ID|SYSTEM_TMPDIR|DSTORE_\w+)"
    r"|PMI_(RANK|SIZE|FD|ID|PORT|JOBID|APPNUM|SPAWNED|UNIVERSE_SIZE|LOCAL_\w+)|MPI_LOCALN?RANK\w*"
)
_NAMED = re.compile(
    r"(OMPI_MCA|PMIX_MCA|UCX|HOROVOD|NCCL|FI)_\w+|LD_PRELOAD"
    r"|PYTHON(WARNINGS|MALLOC|DEVMODE|TRACEMALLOC|STARTUP|USERBASE)|CUDA_LAUNCH_BLOCKING"
)
_OURS = (
    "OMPI_MCA_mpi_yield_when_idle",
    *VARIABLES,
    "HOROVOD_START_TIMEOUT",
    "HOROVOD_GLOO_TIMEOUT_SECONDS",
)
_MPI = re.compile(r"(OMPI_MCA|PMIX_MCA|UCX)_\w+")
_CHOICE = re.compile(r"OMPI_MCA_(pml|btl|mtl|osc|coll|bml|rcache|mpool|sharedfp|fcoll)")


def identity(environ: Mapping[str, str], asked: Collection[str]) -> list[str]:
    """Names of variables that make a process another job's rank."""
    return sorted(n for n in environ if _IDENTITY.fullmatch(n) and n not in asked)


def named(environ: Mapping[str, str], asked: Collection[str]) -> dict[str, str]:
    """What else was set before the job, and changes how it runs."""
    gone = set(identity(environ, asked))
    return {
        name: value
        for name, value in sorted(environ.items())
        if _NAMED.fullmatch(name) and name not in asked and name not in gone and name not in _OURS
    }


def suspects(environ: Mapping[str, str]) -> list[tuple[str, ...]]:
    """What to go without, one after the other, where MPI does not start: names of variables.

    First those that choose Open MPI's parts, which another Open MPI may lack; then all of MPI's.
    """
    names = sorted(n for n in environ if _MPI.fullmatch(n) and n not in _OURS)
    choices = [name for name in names if _CHOICE.fullmatch(name)]
    return [tuple(x) for x in ([names] if choices == names else [choices, names]) if x]


def shown(environ: Mapping[str, str], names: Collection[str]) -> str:
    """``NAME=value, …``, long values cut."""
    found = [f"{name}={environ[name]}" for name in sorted(names)]
    return ", ".join(text if len(text) <= 100 else f"{text[:97]}..." for text in found)
