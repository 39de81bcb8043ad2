"""Questions that could end the process that asks them: each runs in one of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.doctor.facts import ProbeAnswer

_LIBMPI = """
def libmpi():
    for line in open("/proc/self/maps"):
        if "/libmpi" in line:
            return line.split(None, 5)[5].strip()
    return ""
"""

TORCH = """
import torch
flags = getattr(torch._C, "_cuda_getArchFlags", lambda: "")() or ""
nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.version.cuda else ""
there = torch.cuda.is_available()
devices = [
    ".".join(map(str, torch.cuda.get_device_capability(i)))
    for i in range(torch.cuda.device_count() if there else 0)
]
answer = dict(version=torch.__version__, cuda=torch.version.cuda or "", architectures=flags,
              nccl=nccl, available=there, devices=devices)
"""

TORCHVISION = """
import torch, torchvision
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
answer = dict(version=torchvision.__version__, kept=len(kept))
"""

HOROVOD = (
    _LIBMPI
    + """
import horovod, horovod.torch as hvd
answer = dict(version=horovod.__version__, mpi=bool(hvd.mpi_built()), gloo=bool(hvd.gloo_built()),
              nccl=bool(hvd.nccl_built()), libmpi=libmpi())
"""
)

MPI4PY = (
    _LIBMPI
    + """
import mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
answer = dict(version=mpi4py.__version__, library=MPI.Get_library_version().split(",")[0].strip(),
              libmpi=libmpi())
"""
)

SUM = """
import sys, torch, horovod.torch as hvd
hvd.init()
total = hvd.allreduce(torch.ones(1), op=hvd.Sum, name="doctor").item()
if hvd.rank() == 0:
    print("MEGDET_SUM", int(total), hvd.size(), flush=True)
hvd.shutdown()
"""


def last_words(text: str) -> str:
    """The line of an error output that says most, at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if "Error" in line.split(":")[0]:
            return line[:200]
    return lines[-1][:200] if lines else "no message"


def run(command: Sequence[str], time_limit_s: float) -> tuple[int, str, str]:
    """Exit code, output and errors; the whole process group is ended at the time limit."""
    beside = str(Path(sys.executable).parent)
    path = beside + os.pathsep + os.environ.get("PATH", os.defpath)
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}
    if os.geteuid() == 0:
        environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=environ,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return -1, "", f"no answer within {time_limit_s:.0f} s"
    return process.returncode, output, errors


def ask(code: str, time_limit_s: float = 120) -> ProbeAnswer:
    """Run a piece of Python that leaves a dict in ``answer``."""
    mark = "MEGDET_ANSWER "
    program = f"{code}\nimport json\nprint('{mark}' + json.dumps(answer), flush=True)\n"
    status, output, errors = run([sys.executable, "-c", program], time_limit_s)
    for line in output.splitlines():
        if line.startswith(mark):
            return ProbeAnswer(json.loads(line.removeprefix(mark)))
    if status < -1:
        return ProbeAnswer(error=f"ended by {signal.Signals(-status).name} while loading")
    return ProbeAnswer(error=last_words(errors or output))


def ask_launch(horovodrun: str, processes: int = 2, time_limit_s: float = 120) -> ProbeAnswer:
    """Let horovodrun start processes that add 1 + 1 through Horovod."""
    start = time.monotonic()
    command = [horovodrun, "-np", str(processes), sys.executable, "-c", SUM]
    status, output, errors = run(command, time_limit_s)
    seconds = time.monotonic() - start
    told = sum_told(output)
    if told is None:
        return ProbeAnswer(error=last_words(errors + "\n" + output))
    if told == (processes, processes) and status == 0:
        return ProbeAnswer({"processes": processes, "seconds": round(seconds, 1)})
    return ProbeAnswer(error=f"{processes} processes gave the sum {told[0]} over {told[1]}")


def sum_told(output: str) -> tuple[int, int] | None:
    """The sum and the number of processes that :data:`SUM` printed; None: it did not.

    mpirun puts ``[1,0]<stdout>:`` before what it reads, which on a busy machine may be half a line.
    """
    plain = re.sub(r"\[\d+,\d+\]<std(?:out|err)>:", "", output)
    found = re.search(r"MEGDET_SUM\s+(-?\d+)\s+(\d+)\s", plain)
    return (int(found[1]), int(found[2])) if found else None


def find_program(name: str) -> str:
    """Path of a program beside this Python, or on PATH; empty: none."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return str(beside)
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and os.access(Path(folder) / name, os.X_OK):
            return str(Path(folder) / name)
    return ""
