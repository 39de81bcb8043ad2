"""A real Slurm of 16 nodes with 8 GPU devices each, on one machine, that leaves nothing behind.

slurmctld and one slurmd a node run in a PID namespace of their own: when its first process is
killed, everything in it is. Each node has its own host name (UTS namespace), and the nodes' names
resolve in a mount namespace only, so that the machine's own files stay as they are. The GPUs are
device files without a driver. Needs root, and the packages in ``PACKAGES``.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from megdet_hvd.scontrol import read_job

PACKAGES = "slurm-wlm munge libpmix2 libpmix-dev"
NODES = 16
GPUS = 8
CORES = 64
"""Of each node, as Slurm is told."""

_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_PROGRAMS = (
    "slurmctld",
    "slurmd",
    "munged",
    "sbatch",
    "srun",
    "scontrol",
    "unshare",
    "setpriv",
    "mount",
)


def why_not() -> str | None:
    """Why no cluster can be brought up here, and how to get it; None: it can."""
    missing = [name for name in _PROGRAMS if _find(name) is None]
    if missing:
        return (
            f"{', '.join(missing)} not found: nothing about Slurm was checked. "
            f"Debian: apt-get install {PACKAGES}"
        )
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons with a host name each: nothing was checked"
    tried = subprocess.run(["unshare", "--mount", "--uts", "--pid", "--fork", "true"])
    if tried.returncode:
        return "this machine allows no namespaces (unshare): nothing about Slurm was checked"
    return None


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_SBIN]))


def slurm_conf(folder: Path, host: str, port: int) -> str:
    """The configuration. Partition ``gpu`` is preempted by jobs of ``urgent``.

    There is one license, ``turn``: jobs that want it run one at a time, as this machine is small.
    """
    return f"""\
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmdSpoolDir={folder}/spool/%n
TmpFS={folder}/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
JobRequeue=1
MpiDefault=none
Licenses=turn:1
PropagateResourceLimits=NONE
SlurmdTimeout=40
InactiveLimit=0
KillWait=15
MinJobAge=7200
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5,defer_batch
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=n[1-{NODES}] NodeHostname={host} NodeAddr=127.0.0.1 \
Port=[{port + 1}-{port + NODES}] CPUs={CORES} Boards=1 SocketsPerBoard=2 \
CoresPerSocket={CORES // 2} ThreadsPerCore=1 RealMemory=500000 Gres=gpu:{GPUS}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 \
PreemptMode=REQUEUE GraceTime=60 OverSubscribe=NO
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class MiniCluster:
    """The cluster; :meth:`start` brings it up, :meth:`stop` takes it away."""

    def __init__(self, folder: Path) -> None:
        """``folder`` takes all its files; short, since sockets lie in it."""
        self.folder = folder
        self.disk = folder / "disk"
        """A node's own disk: the same path on each node, and not the same folder."""
        self.environ: dict[str, str] = {}
        """For client commands: finds this cluster, and carries nothing of another job."""
        self._first: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 60) -> None:
        """Bring it up; returns once every node is idle."""
        for name in ("munge", "state", "run", "log", "dev", "spool", "tmp", "restart", "scratch"):
            (self.folder / name).mkdir(parents=True)
        self.disk.mkdir()
        for node in range(1, NODES + 1):
            (self.folder / "tmp" / f"n{node}").mkdir()
            (self.folder / "disks" / f"n{node}").mkdir(parents=True)
        for gpu in range(GPUS):
            os.mknod(self.folder / "dev" / f"nvidia{gpu}", 0o20666, os.makedev(195, gpu))
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        hosts = [f"127.0.0.1 n{node}\n" for node in range(1, NODES + 1)]
        (self.folder / "hosts").write_text(Path("/etc/hosts").read_text() + "\n" + "".join(hosts))
        conf = self.folder / "slurm.conf"
        conf.write_text(slurm_conf(self.folder, socket.gethostname(), _free_ports(NODES + 1)))
        (self.folder / "gres.conf").write_text(
            f"Name=gpu File={self.folder}/dev/nvidia[0-{GPUS - 1}]\n"
        )
        kept = ("SLURM_", "SBATCH_", "SRUN_", "SITE_", "MEGDET_", "OMPI_", "PMIX_", "HOROVOD_")
        outer = {k: v for k, v in os.environ.items() if not k.startswith(kept)}
        path = os.pathsep.join([outer.get("PATH", ""), *_SBIN])
        self.environ = {**outer, "PATH": path, "SLURM_CONF": str(conf)}
        self.environ["TMPDIR"] = str(self.folder / "scratch")  # jobs leave nothing elsewhere
        # Should this process be killed, the cluster goes with it.
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]
        words += ["--kill-child", "--mount-proc"]
        words += [sys.executable, "-c", _FIRST_PROCESS, str(self.folder), str(NODES)]
        with (self.folder / "log" / "first.log").open("wb") as log:
            self._first = subprocess.Popen(
                words,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + timeout_s
        while self._idle_nodes() < NODES:
            if time.monotonic() > end or self._first.poll() is not None:
                logs = "\n".join(p.read_text()[-3000:] for p in (self.folder / "log").iterdir())
                self.stop()
                raise RuntimeError(f"the cluster did not come up:\n{logs}")
            time.sleep(0.3)

    def stop(self) -> None:
        """End every process of the cluster and its jobs; the folder stays for its owner."""
        first, self._first = self._first, None
        if first is None:
            return
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it may never have come up
            family = psutil.Process(first.pid).children(recursive=True)
            # The first process of the namespace: with it, the kernel ends all others.
            for process in psutil.Process(first.pid).children():
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        first.kill()
        first.wait(20)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, alive

    def run(
        self,
        *words: str,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = 60,
    ) -> str:
        """A client command's standard output. ``environ`` takes the place of the cluster's own."""
        done = subprocess.run(
            words,
            env=self.environ if environ is None else dict(environ),
            cwd=cwd,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def job(self, number: int | str) -> dict[str, str]:
        """What Slurm says of a job: ``JobState``, ``ExitCode``, ``Restarts``, …"""
        return read_job(self.run("scontrol", "show", "job", str(number), check=False), number)

    def processes_of(self, node: str) -> list[psutil.Process]:
        """Everything that runs on a node: its slurmd, and the jobs' processes."""
        first = self._first
        assert first is not None
        names, own = {}, None
        for process in psutil.Process(first.pid).children(recursive=True):
            with suppress(OSError, psutil.Error):
                names[process] = os.readlink(f"/proc/{process.pid}/ns/uts")
                if process.cmdline()[:4] == ["slurmd", "-D", "-N", node]:
                    own = names[process]
        return [process for process, name in names.items() if name == own]

    def ranks(self, job: int) -> dict[int, psutil.Process]:
        """The training processes of a job by rank, as their launchers' variables say it."""
        first = self._first
        assert first is not None
        found = {}
        for process in psutil.Process(first.pid).children(recursive=True):
            with suppress(psutil.Error):
                words, environ = process.cmdline(), process.environ()
                if "-m" not in words or not words[words.index("-m") + 1].startswith("megdet_hvd."):
                    continue
                if environ.get("SLURM_JOB_ID") != str(job):
                    continue
                for name in ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "PMIX_RANK"):
                    if name in environ:
                        found[int(environ[name])] = process
                        break
        return found

    def down(self, node: str) -> None:
        """The node's power goes: all its processes at once."""
        for process in self.processes_of(node):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def up(self, node: str) -> None:
        """The node's power comes back."""
        (self.folder / "restart" / node.removeprefix("n")).touch()

    def _idle_nodes(self) -> int:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            text = self.run("sinfo", "--noheader", "--Node", "--partition=gpu", "--format=%T")
            return text.split().count("idle")
        return 0


def _free_ports(count: int) -> int:
    """The first of ``count`` consecutive free ports."""
    for first in range(17000, 30000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise RuntimeError("no free ports")


_FIRST_PROCESS = """\
import os, signal, subprocess, sys, time
folder, nodes = sys.argv[1], int(sys.argv[2])
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "--bind", folder + "/hosts", "/etc/hosts"], check=True)
def start(*words):
    return subprocess.Popen(words, stdin=subprocess.DEVNULL)
start("munged", "--foreground", "--force", "--key-file=" + folder + "/munge/key",
      "--socket=" + folder + "/munge/socket", "--pid-file=" + folder + "/munge/pid",
      "--log-file=" + folder + "/log/munged.log", "--seed-file=" + folder + "/munge/seed")
while not os.path.exists(folder + "/munge/socket"):
    time.sleep(0.05)
start("slurmctld", "-D", "-f", folder + "/slurm.conf")
def node(n):
    start("unshare", "--uts", "--mount", "sh", "-c",
          'hostname n%d; mount --bind "$0/disks/n%d" "$0/disk"; '
          'exec slurmd -D -N n%d -f "$0/slurm.conf"' % (n, n, n), folder)
for n in range(1, nodes + 1):
    node(n)
while True:  # the first process of a PID namespace adopts, and buries, orphans
    while os.waitpid(-1, os.WNOHANG)[0]:
        pass
    for name in os.listdir(folder + "/restart"):
        os.unlink(folder + "/restart/" + name)
        node(int(name))
    time.sleep(0.2)
"""
