"""Ranks that die, hang or lose their node, and users who mistype."""

import re
import sys
import time

from megdet_hvd.cluster.hostlist import expand_hosts
from tests.slurm.lab import ENDED, ROOT, Job, Lab, is_alive, scenario

ONE_EACH = ("--nodes=2", "--ntasks-per-node=1")
"""Two processes, as many as this machine has cores."""
LONG = "learning.max_iterations=2000"


def assert_nobody_survives(job: Job, pids: list[int]) -> None:
    """Slurm's own clean-up may take a moment after the job's end."""
    end = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(map(is_alive, pids)), job.log


def answer(lab: Lab, question: str) -> str:
    """What the product reads out of Slurm's answers."""
    program = f"from megdet_hvd.slurm_job.slurm import *; print(({question}))"
    environ = {**lab.cluster.environ, "PYTHONPATH": str(ROOT)}
    return lab.cluster.run(sys.executable, "-c", program, environ=environ).strip()


def killed(lab: Lab, launcher: str) -> None:
    """Rank 1, on the second node."""
    site = {"SITE_LAUNCHER": launcher}
    options = (*ONE_EACH, "--nodelist=n[8-9]")
    job = lab.sbatch("megdet_16gpu.sbatch", *lab.small(LONG), options=options, site=site)
    job.wait_for_step(3)
    ranks = lab.cluster.ranks(job.number)
    assert sorted(ranks) == [0, 1], ranks
    ranks[1].kill()
    began = time.monotonic()
    assert job.wait(120) == "FAILED", job.log
    assert time.monotonic() - began < 100
    assert job.state["ExitCode"] != "0:0"
    said = job.log[job.log.index("iteration 3/") :]
    words = r"error: rank 1 \(n9\) has ended without a word, [\d.]+ s before: step \d+, "
    assert re.search(words, said), job.log
    assert "not requeued: 0 of 0" in job.log, job.log
    assert_nobody_survives(job, [process.pid for process in ranks.values()])


@scenario
def test_a_rank_is_killed_under_srun(lab: Lab) -> None:
    killed(lab, "srun")


@scenario
def test_a_rank_is_killed_under_mpirun(lab: Lab) -> None:
    killed(lab, "mpirun")


@scenario
def test_a_rank_is_stopped(lab: Lab) -> None:
    """SIGSTOP: nobody says a word; the watchdog ends the job, and names the rank."""
    words = lab.small(LONG, "watchdog.seconds=8")
    options = (*ONE_EACH, "--nodelist=n[10-11]")
    job = lab.sbatch("megdet_16gpu.sbatch", *words, options=options)
    job.wait_for_step(3)
    ranks = lab.cluster.ranks(job.number)
    question = f"standing({job.number}), is_down(['n10', 'n11']), node_timeout_s()"
    assert answer(lab, question) == "('RUNNING', False, 40.0)"
    ranks[1].suspend()
    assert job.wait(150) == "FAILED", job.log
    assert answer(lab, question) == "(None, False, 40.0)"
    assert job.state["ExitCode"] == "4:0", job.log
    assert "rank 1 (n11): no sign of life" in job.log, job.log
    assert re.search(r"rank 1 \(n11\): .*step \d+, ", job.log), job.log
    assert_nobody_survives(job, [process.pid for process in ranks.values()])


@scenario
def test_a_failed_job_starts_again_as_often_as_the_site_allows(lab: Lab) -> None:
    words = lab.small("learning.max_iterations=16", "checkpoint.every_iterations=4")
    options = (*ONE_EACH, "--nodelist=n[12-13]")
    site = {"SITE_REQUEUE_ON_FAILURE": "1"}
    job = lab.sbatch("megdet_16gpu.sbatch", *words, options=options, site=site)
    job.wait_for_step(6)
    lab.cluster.ranks(job.number)[1].kill()
    assert job.wait() == "COMPLETED", job.log
    assert "requeued after a failure, 1 of 1" in job.log, job.log
    for untrue in ("does not answer", "could not be tried", "is left out", "is bad"):
        assert untrue not in job.log, job.log
    assert "carrying on after iteration" in job.log, job.log
    assert job.steps() == 16


@scenario
def test_a_bad_node_is_left_out_of_the_requeue(lab: Lab) -> None:
    """One of its cards has fallen off the bus, as ``nvidia-smi`` tells there and nowhere else."""
    tools = lab.folder / "tools"
    tools.mkdir()
    smi = tools / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\n[ "$1" = -L ] || exit 9\n'
        f"for n in 0 1 2 3 4 5 6 7; do [ $n.$(uname -n) = 7.$(cat {lab.folder}/bad) ] || "
        "echo GPU $n: NVIDIA H100; done\n"
    )
    smi.chmod(0o755)
    (lab.folder / "bad").write_text("none")
    words = lab.small("learning.max_iterations=8", "checkpoint.every_iterations=2")
    options = (*ONE_EACH, "--exclude=n[1-11,16]")
    path = {"PATH": f"{tools}:{lab.cluster.environ['PATH']}"}
    site = {"SITE_REQUEUE_ON_FAILURE": "1"}
    job = lab.sbatch("megdet_16gpu.sbatch", *words, options=options, site=site, more=path)
    job.wait_for_step(3)
    bad = job.records()[0]["nodes"][1]
    (lab.folder / "bad").write_text(bad)
    lab.cluster.ranks(job.number)[0].kill()
    assert job.wait() == "COMPLETED", job.log
    told = f"{bad} is left out from now on (ExcNodeList of the job): it shows 7 of 8 GPUs"
    assert told in job.log and "does not answer" not in job.log, job.log
    nodes = [record["nodes"] for record in job.records() if record["event"] == "start"]
    assert len(nodes) == 2 and bad in nodes[0] and bad not in nodes[1]
    assert bad in expand_hosts(job.state["ExcNodeList"])
    assert job.steps() == 8


@scenario
def test_a_node_goes_down(lab: Lab) -> None:
    """Its processes vanish at once; the job goes on elsewhere.

    The watchdog ends the ranks before Slurm knows of the node (``SlurmdTimeout``, which is longer):
    a requeue by the job itself would lose it its GPUs, so it must wait for Slurm's.
    """
    words = lab.small("learning.max_iterations=16", "checkpoint.every_iterations=4")
    options = (*ONE_EACH, "--exclude=n[1-13]")
    site = {"SITE_REQUEUE_ON_FAILURE": "1"}
    job = lab.sbatch("megdet_16gpu.sbatch", *words, options=options, site=site)
    job.wait_for_step(6)
    first = job.records()[0]["nodes"]
    assert len(first) == 2
    lab.cluster.down(first[1])
    job.wait_for_record("start", 2)
    lab.cluster.up(first[1])
    assert job.wait() == "COMPLETED", job.log
    gone = rf"rank 1 \({first[1]}\) has ended without a word.*: step \d+, "
    assert re.search(gone, job.log), job.log
    assert "requeued after a failure, 1 of 1" in job.log, job.log
    assert "a node does not answer" in job.log and "DUE TO NODE FAILURE" in job.log, job.log
    last = [record["nodes"] for record in job.records() if record["event"] == "start"][-1]
    assert first[1] not in last and int(job.state["Restarts"]) == 1
    assert job.steps() == 16


@scenario
def test_a_mistake_of_the_user_is_told_at_once_and_not_repeated(lab: Lab) -> None:
    site = {"SITE_REQUEUE_ON_FAILURE": "5"}
    typo = lab.sbatch("megdet_8gpu.sbatch", "learning.rat=0.1", site=site)
    words = lab.small("global_batch=13")
    options = ("--nodes=1", "--ntasks-per-node=2")
    batch = lab.sbatch("megdet_8gpu.sbatch", *words, options=options, site=site)
    two = lab.sbatch("megdet_16gpu.sbatch", *lab.small(), site={"SITE_LAUNCHER": "horovodrun"})
    unread = lab.sbatch("megdet_8gpu.sbatch", site={"SITE_ACCOUNT": 'an open "quote'})
    for job in (typo, batch, two, unread):
        assert job.wait() == "FAILED", job.log
        assert (job.state["ExitCode"], job.state["Restarts"]) == ("2:0", "0"), job.log
    assert "learning.rat" in typo.log and "learning.rate" in typo.log
    assert "global_batch=13 does not divide over 2 processes" in batch.log, batch.log
    assert "not requeued: a mistake in the input" in batch.log
    assert "site-" in unread.log and "can't be read; see above" in unread.log, unread.log
    assert "SITE_LAUNCHER=horovodrun" in two.log and "set SITE_LAUNCHER=srun" in two.log, two.log
    assert all(state in ENDED for state in (typo.state["JobState"], two.state["JobState"]))
