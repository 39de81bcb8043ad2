"""An array of settings: a run each, and a requeue of one of them leaves the others alone."""

import re
import subprocess
import sys

from megdet_hvd.config.load import load_config
from tests.slurm.lab import ROOT, Job, Lab, scenario

STEPS = 10


def submit(lab: Lab, *words: str) -> str:
    """What ``python -m megdet_hvd.submit WORDS`` says."""
    done = subprocess.run(
        [sys.executable, "-m", "megdet_hvd.submit", *words],
        env={**lab.environ({"SITE_REQUEUE_ON_FAILURE": "0"}), "PYTHONPATH": str(ROOT)},
        cwd=lab.folder,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@scenario
def test_a_member_of_an_array_is_requeued_alone(lab: Lab) -> None:
    """The last one, whose own number is the array's: a requeue of that would start both again."""
    options = ("--nodes=1", "--ntasks-per-node=1", "--nodelist=n4", "--licenses=turn")
    log = f"--output={lab.folder}/%x-%A_%a.log"
    template = str(ROOT / "slurm" / "megdet_8gpu.sbatch")
    words = lab.small(f"learning.max_iterations={STEPS}", "checkpoint.every_epochs=0")
    said = submit(lab, "--array", "seed=3,5%1", log, *options, template, *words)
    told = re.search(r"submitted: job (\d+), an array of 2", said)
    assert told is not None, said
    first, last = (Job(lab, int(told[1]), "megdet_8gpu", member=n) for n in (0, 1))
    last.wait_for_step(3)
    assert last.state["JobId"] == str(last.number), "or this shows nothing"
    assert first.wait() == "COMPLETED", first.log
    status = submit(lab, "--status", str(first.number)).splitlines()
    assert status[0] == f"array {first.number}: 2 members"
    assert status[1].startswith(f"{first.slurm_id} (seed=3): ended: COMPLETED"), status
    assert status[2].startswith(f"{last.slurm_id} (seed=5): running; iteration "), status
    lab.cluster.run("scancel", "--batch", "--signal=USR1", last.slurm_id)
    assert last.wait() == "COMPLETED", last.log
    assert (first.state["Restarts"], last.state["Restarts"]) == ("0", "1")
    assert [r["event"] for r in first.records()] == ["start", "launch", "end"]
    assert [r.get("requeued") for r in last.records() if r["event"] == "end"] == [True, False]
    assert f"job: Slurm job {last.slurm_id} (megdet_8gpu), requeued once" in last.log, last.log
    for job, seed in ((first, 3), (last, 5)):
        assert load_config(job.folder / "config.yaml").seed == seed
        assert job.steps() == STEPS and (job.folder / "logs" / f"{job.slurm_id}-0").is_dir()
    one = submit(lab, "--status", last.slurm_id)
    assert f"run {last.folder}" in one and f"job {last.slurm_id} is not in the queue" in one, one
