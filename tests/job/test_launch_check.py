"""What a launcher promised and MPI did not find is refused, before anything is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megdet_hvd.cluster.launch import Launch, read_launch
from megdet_hvd.job.launch_check import launch_mismatch
from tests.ranks import ROOT

PMI2 = {
    "PMI_RANK": "1",
    "PMI_SIZE": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
"""The second of two tasks of ``srun --ntasks-per-node=1 --mpi=pmi2``."""
ELSEWHERE = {
    "mpiexec": {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"},
    "mpirun_rsh": {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"},
    "jsrun": {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
    "flux": {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2"},
    "aprun": {"ALPS_APP_PE": "1"},
}


@pytest.mark.parametrize("environ", [PMI2, *ELSEWHERE.values()])
def test_a_task_that_mpi_finds_alone(environ: dict[str, str]) -> None:
    launch = read_launch(environ)
    text = launch_mismatch(launch, 1, 0, "Open MPI v4.1.8")
    assert text is not None and "each would train alone" in text
    assert ("--mpi=pmix" in text) == (launch.launcher == "srun") and launch.launcher in text
    assert launch_mismatch(launch, 2, 1, "Open MPI v4.1.8") is None
    first = read_launch({name: "0" if word == "1" else word for name, word in environ.items()})
    assert launch_mismatch(first, 1, 0, "Open MPI") is not None, "the first task refuses as well"


def test_every_number_is_held_against_what_was_found() -> None:
    launch = Launch("gloo", "horovodrun --gloo", 4, 3, 1, 2)
    assert launch_mismatch(launch, 4, 3, "Horovod") is None
    assert "finds 4 processes, this one rank 2" in str(launch_mismatch(launch, 4, 2, "Horovod"))
    assert "started 4 processes" in str(launch_mismatch(launch, 3, 3, "Horovod"))
    unsaid = Launch("mpi", "mpirun, mpi4py", None, None, None, None)
    assert launch_mismatch(unsaid, 3, 2, "Horovod") is None
    alone = read_launch({})
    assert launch_mismatch(alone, 1, 0, "Horovod") is None
    assert launch_mismatch(alone, 2, 1, "Horovod") is not None, "left-over variables"


@pytest.mark.parametrize("more", [[], ["--run"]])
def test_train_refuses_and_writes_nothing(tmp_path: Path, more: list[str]) -> None:
    run = tmp_path / "run"
    words = [*more, str(run)] if more else [f"output={tmp_path}", "name=run"]
    done = subprocess.run(
        [sys.executable, "-m", "megdet_hvd.train", *words],
        cwd=ROOT,
        env={**os.environ, **PMI2, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "srun started 2 processes" in errors[0], done.stderr
    assert list(tmp_path.iterdir()) == []
