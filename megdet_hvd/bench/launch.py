"""Start a measurement in several processes, and bring back what rank 0 found."""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.errors import RunError


def run_in_ranks(module: str, processes: int, words: Sequence[str]) -> Any:
    """Run ``python -m MODULE WORDS --out FILE`` in ``processes`` ranks; the JSON that rank 0 wrote.

    Under MPI where there is mpirun, so that the MPI carrier can be measured; else under Gloo.

    Raises:
        RunError: the ranks failed; their output stands above.
    """
    folder = Path(sys.executable).parent
    kind = "--mpi" if (folder / "mpirun").exists() else "--gloo"
    launcher = [str(folder / "horovodrun"), kind, "-np", str(processes)]
    if processes == 1:
        launcher = []
    surroundings = {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        **os.environ,
    }
    if processes >= len(os.sched_getaffinity(0)):
        surroundings.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    surroundings["PATH"] = f"{folder}{os.pathsep}{surroundings.get('PATH', '')}"
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "found.json"
        command = [*launcher, sys.executable, "-m", module, *words, "--out", str(file)]
        code = subprocess.run(command, env=surroundings, stdin=subprocess.DEVNULL).returncode
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
