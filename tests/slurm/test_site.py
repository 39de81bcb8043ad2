"""The site file, ``submit`` and staging, on nodes that have disks of their own."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.slurm.coco import write_coco
from tests.slurm.lab import ROOT, Lab, scenario

NODES = ("n14", "n15")


def files(folder: Path) -> set[str]:
    """Paths below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@scenario
def test_data_is_copied_to_each_nodes_own_disk_once(lab: Lab) -> None:
    source = write_coco(lab.folder / "the data")
    site = {"SITE_DATA_ROOT": str(source), "SITE_STAGING": str(lab.cluster.disk)}
    options = ("--ntasks-per-node=1", f"--nodelist={','.join(NODES)}")
    words = ("--placement", f"output={lab.runs}")
    logs = []
    for _ in range(2):
        job = lab.sbatch("megdet_16gpu.sbatch", *words, options=options, site=site)
        assert job.wait() == "COMPLETED", job.log
        logs.append(job.log)
    for node in NODES:
        disk = lab.cluster.folder / "disks" / node / "megdet_hvd" / "data"
        copies = [place for place in disk.iterdir() if place.is_dir()]
        assert len(copies) == 1
        assert files(source) <= files(copies[0])
        assert f"{node}: data copied to" in logs[0], logs[0]
        assert f"{node}: data is in" in logs[1] and "already" in logs[1], logs[1]
    elsewhere = lab.cluster.folder / "disks" / "n16"
    assert not files(elsewhere), "nodes of other jobs have nothing"


def submit(lab: Lab, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """``python -m megdet_hvd.submit WORDS``."""
    environ = lab.environ({"SITE_REQUEUE_ON_FAILURE": "0", "SITE_PARTITION": "gpu"})
    return subprocess.run(
        [sys.executable, "-m", "megdet_hvd.submit", *words],
        env={**environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=120,
    )


@scenario
def test_submit_checks_submits_and_shows_where_a_run_stands(lab: Lab) -> None:
    write_coco(lab.folder / "coco")
    away = lab.folder / "some where else"
    away.mkdir()
    template = str(ROOT / "slurm" / "megdet_128gpu.sbatch")
    good = submit(lab, "--check", template, cwd=away)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "16 nodes × 8 processes × 2 images" in good.stdout
    assert "Slurm accepts it" in good.stdout
    bad = submit(lab, "--check", "--partition=gpus", "--nodes=99", template, cwd=away)
    assert bad.returncode == 2
    assert "partition" in bad.stdout + bad.stderr, bad.stdout
    assert "global_batch=256 does not divide" in bad.stdout + bad.stderr, bad.stdout
    words = ("--placement", f"output={lab.runs}", "name=placed")
    log = f"--output={lab.folder}/placed.log"
    sent = submit(lab, log, "--nodes=2", template, *words, cwd=away)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    told = re.search(r"submitted: job (\d+)", sent.stdout)
    assert told is not None, sent.stdout
    number = int(told[1])
    held = ("sbatch", "--parsable", "--hold", "--job-name=megdet_64gpu", "--wrap=true")
    before = int(lab.cluster.run(*held).strip())
    chain = ("--check", f"--dependency=afterany:{before}", template, "--resume")
    future = submit(lab, *chain, str(lab.runs / f"megdet_64gpu-{before}"), cwd=away)
    assert future.returncode == 0 and "will have made it" in future.stdout, future.stdout
    wrong = submit(lab, *chain, str(lab.runs / f"megdet_128gpu-{before}"), cwd=away)
    assert wrong.returncode == 2 and f"…/megdet_64gpu-{before} (unless" in wrong.stdout
    lab.cluster.run("scancel", str(before))
    run = lab.runs / "placed"
    lab.wait_for(number)
    assert "on n" in (lab.folder / "placed.log").read_text()
    status = submit(lab, "--status", str(run), cwd=away)
    assert status.returncode == 0 and f"job {number}" in status.stdout, status.stdout
    events = [json.loads(line)["event"] for line in (run / "jobs.jsonl").read_text().splitlines()]
    assert events == ["start", "launch", "end"]
