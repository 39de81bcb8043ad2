"""The few things that a job asks of Slurm, and of the nodes: the edge to other programs."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from megdet_hvd.cluster.launchers import once_a_node
from megdet_hvd.cluster.mpi_start import VARIABLES
from megdet_hvd.cluster.step_environ import step_environ
from megdet_hvd.run_lock import slurm as any_job
from megdet_hvd.scontrol import read_job, read_records
from megdet_hvd.slurm_job import node_check, srun_words
from megdet_hvd.slurm_job.node_facts import hosts_in, is_lost

ASK_S = 60
"""For Slurm's controller to answer."""
SSH_S = 10
SILENT = "still there for all that is known (Slurm does not answer)"
"""How a job stands that Slurm says nothing of."""

_PROBE = (
    "from mpi4py import MPI; import sys; world = MPI.COMM_WORLD; "
    "world.size == int(sys.argv[1]) or sys.exit(3); world.Barrier()"
)
"""Two processes that find each other, and a message each way."""


@dataclass(frozen=True)
class NodeProbe:
    """What came of a small program that was started on each node of the job."""

    silent: str | None = None
    """The error that speaks of a node that can't be reached; None: none does."""
    silent_nodes: tuple[str, ...] = ()
    """The nodes that it names."""
    unclear: str | None = None
    """Why nothing is known of the nodes; None: they are reached, or one is not."""
    said: Mapping[str, str] = field(default_factory=dict)
    """Output lines of the nodes, by :func:`megdet_hvd.slurm_job.node_check.answers`."""


def job_facts(job: int | str) -> dict[str, str]:
    """What Slurm says of a job, by its own names; empty where it does not answer."""
    return read_job(_ask(["scontrol", "show", "job", str(job)]) or "", job)


def job_state(job: int | str) -> str | None:
    """``RUNNING``, ``COMPLETING``, ``PENDING``, … of the job; None: Slurm does not answer."""
    return job_facts(job).get("JobState")


def standing(job: int) -> str | None:
    """``PENDING``, ``RUNNING`` or so, of a job of this user; None: it has ended, for sure.

    Where Slurm does not answer, the job counts as still there. What is left of one that Slurm is
    clearing away holds the run folder, if it does anything there.
    """
    state = any_job.job_state(job)
    if state is None:
        return SILENT
    over = state.ended or state.name == "COMPLETING" or state.uid not in (None, os.getuid())
    return None if over else state.name


def requeue(job: int | str) -> str | None:
    """Put the job back into the queue; why that failed, or None: it is, or may be, done."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", str(job)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ASK_S,
        )
    except subprocess.TimeoutExpired:
        return None  # the controller may have heard it; then it ends this script
    except OSError as error:
        return str(error)
    return (done.stderr or done.stdout).strip() or "refused" if done.returncode else None


def exclude(job: int | str, nodes: Sequence[str]) -> str | None:
    """Keep a waiting job off nodes, besides those it is kept off already; None: done."""
    own = hosts_in(job_facts(job).get("ExcNodeList", ""))
    value = ",".join(dict.fromkeys([*own, *nodes]))
    try:
        done = subprocess.run(
            ["scontrol", "update", f"JobId={job}", f"ExcNodeList={value}"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ASK_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr or done.stdout).strip() or "refused" if done.returncode else None


def probe_nodes(nodes: int, words: Sequence[str], environ: Mapping[str, str]) -> NodeProbe:
    """Start a program once on each node of the job, beside whatever still runs there."""
    command = [*once_a_node(nodes), "--overlap", *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ASK_S,
            env=step_environ(environ),
        )
    except subprocess.TimeoutExpired as late:
        told = _text(late.stderr)
        if "step creation temporarily disabled" in told:  # srun waits for its turn
            return NodeProbe(unclear="Slurm starts no further step of the job so far")
        return NodeProbe(
            srun_words.silent(told) or f"no answer within {ASK_S} s",
            tuple(srun_words.silent_nodes(told)),
            said=node_check.answers(_text(late.stdout)),
        )
    except OSError as error:
        return NodeProbe(unclear=str(error))
    said, silent = node_check.answers(done.stdout), srun_words.silent(done.stderr)
    if done.returncode == 0:
        return NodeProbe(said=said)
    if silent is not None:
        return NodeProbe(silent, tuple(srun_words.silent_nodes(done.stderr)), said=said)
    errors = srun_words.errors_of(done.stderr) or [f"srun: exit code {done.returncode}"]
    return NodeProbe(unclear=errors[0], said=said)


def _text(found: str | bytes | None) -> str:
    return found.decode(errors="replace") if isinstance(found, bytes) else found or ""


def is_down(hosts: Sequence[str]) -> bool:
    """Whether Slurm counts one of the nodes as down."""
    return any("DOWN" in node.get("State", "") for node in node_facts(hosts))


def not_heard(hosts: Sequence[str]) -> list[str]:
    """The nodes that don't answer Slurm's controller, or that it takes for lost."""
    return [
        node.get("NodeName", "") for node in node_facts(hosts) if is_lost(node.get("State", ""))
    ]


def node_facts(hosts: Sequence[str] = ()) -> list[dict[str, str]]:
    """What Slurm says of nodes; of all, without ``hosts``. Empty where it does not answer."""
    words = ["scontrol", "show", "node", *([",".join(hosts)] if hosts else [])]
    return read_records(_ask(words) or "")


def steps(job: int | str) -> list[str] | None:
    """The job's steps that run, besides the batch script's own; None: Slurm does not answer."""
    text = _ask(["scontrol", "show", "step", str(job)])
    if text is None:
        return None
    found = [one.get("StepId", "") for one in read_records(text)]
    return [step for step in found if step.rpartition(".")[2].isdigit()]


def own_queue(form: str) -> str:
    """This user's jobs in the queue, as squeue writes them in a format; empty: no answer."""
    words = [
        "squeue",
        "--noheader",
        f"--user={os.getuid()}",
        "--states=PENDING",
        f"--format={form}",
    ]
    return _ask(words) or ""


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
        done = subprocess.run(
            ["srun", "--mpi=list"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ASK_S,
            env=step_environ(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def srun_problem(
    mpi: str,
    nodes: int,
    python: Sequence[str],
    limit_s: float,
    environ: Mapping[str, str],
    options: Sequence[str] = (),
) -> str | None:
    """Why MPI programs can't be started by ``srun --mpi=…``; None: two tasks found each other.

    ``options``: the site's own, as the ranks are started with them.
    """
    across = min(nodes, 2)
    words = ["srun", f"--mpi={mpi}", f"--nodes={across}", "--ntasks=2", "--overcommit"]
    words += ["--cpu-bind=none", *options]
    own = step_environ({**VARIABLES, **environ})
    code, said = _try_mpi([*words, *python, "-c", _PROBE, "2"], own, limit_s)
    if code == 3:
        return f"tasks of srun --mpi={mpi} don't find each other: MPI and Slurm share no PMIx"
    return None if code == 0 else f"srun --mpi={mpi} failed ({said})"


def mpirun_fails(
    nodes: int, python: Sequence[str], limit_s: float, environ: Mapping[str, str]
) -> str | None:
    """Why two processes that mpirun starts, on two nodes where there are two, don't meet."""
    each = "ppr:1:node" if nodes > 1 else "ppr:2:node"
    words = ["mpirun", "-np", "2", "--map-by", each, "--bind-to", "none"]
    own = step_environ(environ)
    code, said = _try_mpi([*words, *python, "-c", _PROBE, "2"], own, limit_s)
    return None if code == 0 else f"mpirun failed ({said})"


def _try_mpi(
    words: Sequence[str], environ: Mapping[str, str], limit_s: float
) -> tuple[int | None, str]:
    """Exit code (None: there is none), and why it is not 0."""
    try:
        done = subprocess.run(
            list(words),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        return None, str(error)
    except subprocess.TimeoutExpired:
        return None, f"two tasks did not find each other within {limit_s:.0f} s"
    told = srun_words.reason(done.stderr) or f"exit code {done.returncode}"
    return done.returncode, told


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
            done = subprocess.run(
                words, capture_output=True, encoding="utf-8", errors="replace", timeout=3 * SSH_S
            )
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
        done = subprocess.run(
            list(words), capture_output=True, encoding="utf-8", errors="replace", timeout=ASK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
