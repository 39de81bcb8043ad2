"""``--evaluators N``: the templates' pipeline, preempted, requeued, and an evaluator lost."""

import json
import re
import time
from typing import Any

import psutil

from megdet_hvd.checkpoint.file import load_checkpoint
from tests.slurm.lab import Job, Lab, scenario

STEPS = 16
"""Of 12 pictures, where an epoch has 30: an evaluation is due every two or three steps."""
THREE = ("--nodes=3", "--ntasks-per-node=1")


def evaluations(job: Job) -> list[dict[str, Any]]:
    """What the run's metrics say of each evaluation."""
    file = job.folder / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [one for one in map(json.loads, lines) if one["kind"] == "eval"]


def wait_for_evaluation_after(job: Job, step: int) -> None:
    end = time.monotonic() + 300  # a start is in it, on a machine that may be busy
    while not any(one["iteration"] > step for one in evaluations(job)):
        assert time.monotonic() < end, job.log
        time.sleep(0.1)


def evaluator(lab: Lab, job: Job, rank: int) -> psutil.Process:
    """The process that evaluates; another one, which the launcher started, keeps its place."""
    found = lab.cluster.ranks(job.number)[rank]
    children = [p for p in found.children() if "megdet_hvd.pipeline" in p.cmdline()]
    return children[0] if children else found


@scenario
def test_evaluators_are_preempted_requeued_and_lost_and_training_goes_on(lab: Lab) -> None:
    """Slurm's PMIx would end the step of a process that dies: not for an evaluator's."""
    words = lab.small(f"learning.max_iterations={STEPS}", "evaluation.every_epochs=1")
    job = lab.sbatch(
        "megdet_16gpu.sbatch",
        *words,
        *("--evaluators", "1"),
        options=(*THREE, "--nodelist=n[14-16]"),
        site={"SITE_LAUNCHER": "srun", "SITE_SRUN_OPTIONS": "--job-name=our-ranks"},
    )
    job.wait_for_step(4)
    lab.cluster.run("scancel", "--batch", "--signal=USR1", str(job.number))
    job.wait_for_record("start", 2)
    stopped_at = load_checkpoint(job.folder)["iteration"]
    assert 4 <= stopped_at < STEPS
    wait_for_evaluation_after(job, stopped_at)
    evaluator(lab, job, 2).kill()
    assert job.wait() == "COMPLETED", job.log
    ends = [(r["requeued"], r["outcome"]["code"]) for r in job.records() if r["event"] == "end"]
    assert ends == [(True, 5), (False, 0)], job.log
    assert [r["evaluators"] for r in job.records() if r["event"] == "start"] == [1, 1]
    assert job.log.count("job: ranks 0-1 train, rank 2 evaluates concurrently") == 2, job.log
    assert "carrying on after iteration" in job.log, job.log
    assert re.search(
        r"started by: srun .* --job-name=our-ranks \S+ -m megdet_hvd.pipeline", job.log
    )
    assert "the process of rank 2 has ended. Training goes on, and evaluates in line" in job.log
    logs = job.folder / "logs" / f"{job.number}-1"
    assert "its process has ended (signal 9)" in (logs / "rank_0002.log").read_text()
    assert load_checkpoint(job.folder)["iteration"] == STEPS
    found = [one["iteration"] for one in evaluations(job)]
    alongside = job.log.count("; training is at iteration")
    assert 0 < alongside < len(found) and found[-1] == STEPS, found
    assert found == sorted(set(found)), "each once, in order"
    assert not [*lab.runs.glob(".evaluator-*")], "nothing is left behind"
