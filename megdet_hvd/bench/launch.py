"""Start a measurement in several processes, and bring back what rank 0 found."""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from megdet_hvd.errors import RunError

SCRIPTS = Path(sys.executable).parent
"""Where this environment's horovodrun and mpirun are."""


def launched(module_words: Sequence[str], processes: int, *options: str) -> list[str]:
    """The command that runs ``python -m MODULE WORDS`` in so many processes of this machine."""
    python = [sys.executable, "-m", *module_words]
    if processes == 1:
        return python
    return [str(SCRIPTS / "horovodrun"), *options, "-np", str(processes), *python]


def launch_environ(processes: int) -> dict[str, str]:
    """Its environment: more processes than cores are let in, and give way while they wait."""
    environ = {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        **os.environ,
    }
    if processes >= len(os.sched_getaffinity(0)):
        environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    environ["PATH"] = f"{SCRIPTS}{os.pathsep}{environ.get('PATH', '')}"
    return environ


def run_into_file(
    module_words: Sequence[str],
    processes: int,
    output: Path,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run it with all that it prints in ``output``; returns its exit code.

    ``variables`` are set besides the environment.
    """
    with output.open("ab") as sink:
        return subprocess.run(
            launched(module_words, processes),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=launch_environ(processes) | dict(variables),
        ).returncode


def last_words(output: Path) -> str:
    """The end of what was printed there, for an error."""
    return output.read_text(encoding="utf-8", errors="replace")[-2000:]


def run_in_ranks(module: str, processes: int, words: Sequence[str]) -> Any:
    """Run ``python -m MODULE WORDS --out FILE`` in ``processes`` ranks; the JSON that rank 0 wrote.

    Under MPI where there is mpirun, so that the MPI carrier can be measured; else under Gloo.

    Raises:
        RunError: the ranks failed; their output stands above.
    """
    kind = "--mpi" if (SCRIPTS / "mpirun").exists() else "--gloo"
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "found.json"
        command = launched([module, *words, "--out", str(file)], processes, kind)
        code = subprocess.run(
            command, env=launch_environ(processes), stdin=subprocess.DEVNULL
        ).returncode
        if code or not file.exists():
            raise RunError(f"the measurement in {processes} processes failed (exit code {code})")
        return json.loads(file.read_text(encoding="utf-8"))


def measure_or_end_all(measure: Callable[[Any], int], options: Any) -> int:
    """What one rank of a measurement does; where it fails, the others don't wait for it."""
    from megdet_hvd.job.abort import end_job

    try:
        return measure(options)
    except BaseException:
        traceback.print_exc()
        end_job(1)
    raise AssertionError("end_job does not return")
