"""Run a script in several real processes, so that a hang is a failure with stacks."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import psutil

Launcher = Literal["horovodrun", "gloo", "mpirun", "python"]

ROOT = Path(__file__).resolve().parent.parent

_SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONUNBUFFERED": "1",
}


class RanksHung(AssertionError):
    """The processes did not end in time; the text holds their output and stacks."""


def launch_command(launcher: Launcher, np: int) -> list[str]:
    """The words before ``python``."""
    folder = Path(sys.executable).parent
    if launcher == "python":
        if np != 1:
            raise ValueError(f"plain python is one process, not {np}")
        return []
    if launcher == "mpirun":
        return [str(folder / "mpirun"), "-np", str(np)]
    kind = "--gloo" if launcher == "gloo" else "--mpi"
    return [str(folder / "horovodrun"), kind, "-np", str(np)]


def stacks_of(process: psutil.Process) -> str:
    """The Python stacks of a process and its descendants."""
    spy = Path(sys.executable).parent / "py-spy"
    texts = []
    for child in [process, *process.children(recursive=True)]:
        try:
            line = " ".join(child.cmdline())[:200]
            if "python" not in child.name():
                continue
            dump = subprocess.run(
                [spy, "dump", "--pid", str(child.pid)], capture_output=True, text=True, timeout=30
            )
            texts.append(f"--- {child.pid} {line}\n{dump.stdout}{dump.stderr}")
        except (psutil.NoSuchProcess, OSError, subprocess.TimeoutExpired) as error:
            texts.append(f"--- {child.pid}: no stack ({error})")
    return "\n".join(texts)


def end_family(process: psutil.Process) -> None:
    """Kill a process and its descendants."""
    family = [*process.children(recursive=True), process]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)


def surroundings_of(env: Mapping[str, str]) -> dict[str, str]:
    """The environment that a launcher is given."""
    folder = str(Path(sys.executable).parent)
    surroundings = {**os.environ, **_SURROUNDINGS}
    surroundings["PATH"] = folder + os.pathsep + surroundings["PATH"]
    surroundings["PYTHONPATH"] = str(ROOT) + os.pathsep + surroundings.get("PYTHONPATH", "")
    return {**surroundings, **env}


def busy() -> float:
    """How much longer things take here than on an idle machine: from 1 to 4."""
    return min(max(os.getloadavg()[0] / (os.cpu_count() or 1) / 2, 1.0), 4.0)


def run_ranks(
    script: str | Path | Sequence[str],
    np: int,
    *args: object,
    launcher: Launcher = "horovodrun",
    timeout_s: float = 180,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT ARGS`` (or ``python -m MODULE …`` as a list) in ``np`` processes.

    Output (stdout and stderr together) is in ``.stdout``. Raises :class:`RanksHung` with every
    process's Python stack when they do not end within ``timeout_s`` of an idle machine; nothing is
    left running.
    """
    timeout_s *= busy()
    words = [*script] if isinstance(script, (list, tuple)) else [str(script)]
    command = [*launch_command(launcher, np), sys.executable, *words, *map(str, args)]
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=surroundings_of(env or {}),
            cwd=cwd,
            start_new_session=True,
        ) as running:
            family = psutil.Process(running.pid)
            try:
                running.wait(timeout_s)
            except subprocess.TimeoutExpired:
                stacks = stacks_of(family)
                end_family(family)
                output.seek(0)
                raise RanksHung(
                    f"{command} did not end in {timeout_s} s\n{output.read()[-20000:]}\n{stacks}"
                ) from None
        output.seek(0)
        return subprocess.CompletedProcess(command, running.returncode, output.read())
