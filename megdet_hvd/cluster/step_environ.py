"""What srun must not take from the environment: options in variables. Pure.

srun reads nearly each of its options from a variable, too, and a batch script has many of them:
those of sbatch's own command line (``--gpus-per-node=8`` is there as ``SLURM_GPUS_PER_NODE=8``),
those of an interactive job that sbatch was called in, those of a shell's start-up files. Beside
the words that a step is started with they contradict (``--gres=none`` beside
``SLURM_GPUS_PER_NODE``: Slurm refuses the step), hide the output (``SLURM_STDOUTMODE``), start in
another folder (``SLURM_WORKING_DIR``) or on other nodes. *Tried* on Slurm 22.05, one after the
other.
"""

from collections.abc import Iterable, Mapping

from megdet_hvd.cluster.driver_variables import SITE_EXPORTS

_NAMES = """
ACCOUNT ARBITRARY_NODELIST BCAST BCAST_EXCLUDE BURST_BUFFER CLUSTERS CLUSTER_CONSTRAINT COMPRESS
CONSTRAINT CONTAINER CONTAINER_ID CORE_SPEC CPUS_PER_GPU CPUS_PER_TASK CPU_BIND CPU_BIND_LIST
CPU_BIND_TYPE CPU_BIND_VERBOSE DEBUG DELAY_BOOT DEPENDENCY DISABLE_STATUS DISTRIBUTION EPILOG ERROR
EXACT EXCLUSIVE EXIT_ERROR EXIT_IMMEDIATE EXPORT_ENV GPUS GPUS_PER_NODE GPUS_PER_SOCKET
GPUS_PER_TASK
GRES GRES_FLAGS HINT HOSTFILE IMMEDIATE INPUT INTERACTIVE KILL_BAD_EXIT LABELIO MEM_PER_CPU
MEM_PER_GPU MEM_PER_NODE MPI_TYPE MULTI_PROG NO_KILL NTASKS_PER_CORE NTASKS_PER_GPU NTASKS_PER_NODE
NTASKS_PER_SOCKET NTASKS_PER_TRES OPEN_MODE OUTPUT OVERCOMMIT OVERLAP PARTITION PROLOG PTY QOS
REMOTE_CWD REQ_SWITCH RESERVATION RESV_PORTS SEGMENT SEND_LIBS SIGNAL SPREAD_JOB SRUN_MULTI
SRUN_REDUCE_TASK_EXIT_MSG STDERRMODE STDINMODE STDOUTMODE STEP_GRES TEST_EXEC THREADS
THREADS_PER_CORE THREAD_SPEC TIMELIMIT TRES_PER_TASK UNBUFFEREDIO USE_MIN_NODES WAIT WAIT4SWITCH
WCKEY WHOLE WORKING_DIR
"""
OPTIONS = frozenset(
    [f"SLURM_{name}" for name in _NAMES.split()] + [f"SRUN_{name}" for name in _NAMES.split()]
)
"""Variables that srun takes as options. Left to it: the network, frequencies, memory's binding, how
GPUs are bound, a task's prologue and epilogue, and profiling, which a site may want for each
step."""


def step_environ(environ: Mapping[str, str], asked: Iterable[str] | None = None) -> dict[str, str]:
    """The environment for ``srun``, and for ``mpirun``, which calls it.

    All resources of the job are a step's own where it names none; how many processes run, and
    where, stands in our words.

    Args:
        environ: of the batch script.
        asked: names to keep; None: what the site file has exported.
    """
    kept = set(environ.get(SITE_EXPORTS, "").split() if asked is None else asked)
    return {name: v for name, v in environ.items() if name not in OPTIONS or name in kept}
