"""The few things that a job asks of Slurm, and of the nodes: the edge to other programs."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from megdet_hvd.cluster.mpi_start import VARIABLES
from megdet_hvd.run_lock.slurm import job_state

ASK_S = 60
"""For Slurm's controller to answer."""
SSH_S = 10
SILENT = "still there for all that is known (Slurm does not answer)"
"""How a job stands that Slurm says nothing of."""

_PROBE = (
    "from mpi4py import MPI; import sys; "
    "sys.exit(0 if MPI.COMM_WORLD.size == int(sys.argv[1]) else 3)"
)


def job_runs(job: int) -> bool:
    """Whether Slurm counts the job as running; False once it is cancelled or out of time."""
    text = _ask(["scontrol", "show", "job", "-o", str(job)])
    return text is None or " JobState=RUNNING " in text


def standing(job: int) -> str | None:
    """``PENDING``, ``RUNNING`` or so, of a job of this user; None: it has ended, for sure.

    Where Slurm does not answer, the job counts as still there. What is left of one that Slurm is
    clearing away holds the run folder, if it does anything there.
    """
    state = job_state(job)
    if state is None:
        return SILENT
    over = state.ended or state.name == "COMPLETING" or state.uid not in (None, os.getuid())
    return None if over else state.name


def requeue(job: int) -> str | None:
    """Put the job back into the queue; why that failed, or None: it is, or may be, done."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", str(job)], capture_output=True, text=True, timeout=ASK_S
        )
    except subprocess.TimeoutExpired:
        return None  # the controller may have heard it; then it ends this script
    except OSError as error:
        return str(error)
    return (done.stderr or done.stdout).strip() or "refused" if done.returncode else None


def silence(nodes: int) -> str | None:
    """Why not every node of the job can be reached; None: each started a task, and it ended."""
    words = ["srun", "--mpi=none", "--cpu-bind=none", f"--nodes={nodes}", f"--ntasks={nodes}"]
    words += ["--ntasks-per-node=1", "--overlap", "--gres=none", "true"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ASK_S)
    except subprocess.TimeoutExpired:
        return f"no answer within {ASK_S} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    told = [line for line in done.stderr.splitlines() if "error:" in line]
    return told[0].split("error:", 1)[1].strip() if told else f"srun: exit code {done.returncode}"


def is_down(hosts: Sequence[str]) -> bool:
    """Whether Slurm counts one of the nodes as down."""
    text = _ask(["scontrol", "show", "node", "-o", ",".join(hosts)]) or ""
    states = [word for word in text.split() if word.startswith("State=")]
    return any("DOWN" in state for state in states)


def node_timeout_s() -> float:
    """After how long Slurm counts a node that does not answer as down; 0: never, or unknown."""
    for line in (_ask(["scontrol", "show", "config"]) or "").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "SlurmdTimeout" and value.split():
            return float(value.split()[0]) if value.split()[0].isdigit() else 0.0
    return 0.0


def mpi_list() -> str:
    """What ``srun --mpi=list`` says; empty where there is nothing to be had."""
    try:
        done = subprocess.run(["srun", "--mpi=list"], capture_output=True, text=True, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def srun_problem(mpi: str, nodes: int, python: Sequence[str], limit_s: float) -> str | None:
    """Why MPI programs can't be started by ``srun --mpi=…``; None: two tasks found each other."""
    across = min(nodes, 2)
    words = ["srun", f"--mpi={mpi}", f"--nodes={across}", "--ntasks=2", "--overcommit"]
    words += ["--cpu-bind=none", *python, "-c", _PROBE, "2"]
    try:
        environ = {**VARIABLES, **os.environ}
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, env=environ)
    except OSError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"two tasks did not find each other within {limit_s:.0f} s"
    if done.returncode == 0:
        return None
    if done.returncode == 3:
        return f"tasks of srun --mpi={mpi} don't find each other: MPI and Slurm share no PMIx"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"srun --mpi={mpi} failed ({lines[-1].strip() if lines else done.returncode})"


def mpirun_problem(path: str) -> str | None:
    """Why ``mpirun`` can't be used; None: it is there."""
    return None if shutil.which("mpirun", path=path) else "mpirun is not on PATH"


def ssh_problem(hosts: Sequence[str]) -> str | None:
    """Why horovodrun can't start the ranks; None: it can, and ssh works or isn't needed."""
    if shutil.which("horovodrun") is None:
        return "horovodrun is not on PATH"
    for host in hosts[1:]:
        words = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_S}", host, "true"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=3 * SSH_S)
        except FileNotFoundError:
            return f"it reaches {host} through ssh, which is not installed"
        except subprocess.TimeoutExpired:
            return f"it reaches {host} through ssh, which does not answer"
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            told = f" ({lines[-1].strip()})" if lines else ""
            return f"it reaches {host} through ssh, which is not allowed there{told}"
    return None


def start_program(words: Sequence[str], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the launcher with TERM and USR1 held back.

    Slurm may send TERM to every process of the batch step, and mpirun would kill its ranks a
    second later. The ranks let the signals in for themselves. srun can't be kept from it: when a
    job is cancelled, its ranks are killed.
    """
    return subprocess.Popen(
        list(words), env=dict(environ), stdin=subprocess.DEVNULL, preexec_fn=_hold_back
    )


def _hold_back() -> None:
    held = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    for number in held:
        signal.signal(number, signal.SIG_DFL)


def own_log() -> str | None:
    """The file that this job's output goes to."""
    try:
        target = os.readlink("/proc/self/fd/1")
    except OSError:
        return None
    return target if target.startswith("/") else None


def _ask(words: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(list(words), capture_output=True, text=True, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
