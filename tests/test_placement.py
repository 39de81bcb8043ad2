"""``python -m megdet_hvd.placement``, as the tasks of a job run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megdet_hvd.cluster.outcome import read_outcome
from megdet_hvd.errors import USER_ERROR
from tests.ranks import ROOT, run_ranks

TASK = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "13",
    "PMIX_RANK": "13",
    "SLURM_STEP_NUM_TASKS": "128",
    "SLURM_LOCALID": "5",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "8(x16)",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
}


def placement(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "megdet_hvd.placement", *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_line_a_task() -> None:
    done = placement(TASK)
    assert done.returncode == 0, done.stderr
    line = done.stdout.strip()
    assert line.startswith(f"rank 13 of 128 on {os.uname().nodename}: local rank 5 of 8, ")
    assert "node 2 of 16 (cross rank 1 of 16), GPU 5, cores " in line
    assert line.endswith(", started by srun")


@pytest.mark.parametrize("launcher", ["mpirun", "gloo"])
def test_what_launchers_say(launcher: str) -> None:
    done = run_ranks(["-m", "megdet_hvd.placement"], 2, "--json", launcher=launcher, timeout_s=60)  # type: ignore[arg-type]
    lines = [line[line.index("{") :] for line in done.stdout.splitlines() if "{" in line]
    found = sorted((json.loads(line) for line in lines), key=lambda each: each["rank"])
    assert [(each["rank"], each["size"], each["local_rank"]) for each in found] == [
        (0, 2, 0),
        (1, 2, 1),
    ], done.stdout
    assert {(each["node"], each["nodes"], each["cross_rank"]) for each in found} == {(0, 1, 0)}


def test_too_few_gpus_end_with_the_fix(tmp_path: Path) -> None:
    """The job's driver hears of it too: a mistake of the user, which no requeue would mend."""
    file = tmp_path / "outcome.json"
    done = placement({**TASK, "CUDA_VISIBLE_DEVICES": "0,1", "MEGDET_OUTCOME": str(file)})
    assert done.returncode == 2
    assert "--ntasks-per-node=2" in done.stderr
    outcome = read_outcome(file)
    assert outcome is not None and outcome.code == USER_ERROR
    assert "--ntasks-per-node=2" in outcome.message
