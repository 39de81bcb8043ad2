"""Parts of a job's course that need neither Slurm nor ranks."""

from pathlib import Path

import pytest

from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.site import Site
from megdet_hvd.config.load import load_config
from megdet_hvd.errors import UserError
from megdet_hvd.slurm_job import record, slurm
from megdet_hvd.slurm_job.driver import refuse_company
from megdet_hvd.slurm_job.job import Job
from megdet_hvd.slurm_job.words import Wish


def job(folder: Path, number: int = 8) -> Job:
    allocation = Allocation(number, "job", 0, ("n1",), 1, None)
    return Job(
        allocation,
        Site(),
        Wish("megdet_hvd.train", (), folder, load_config(None, ["data.kind=scenes"])),
    )


def test_a_run_that_another_job_is_still_in_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: dict[int, str | None] = {7: "RUNNING"}
    monkeypatch.setattr(slurm, "standing", lambda number: states.get(number))
    refuse_company(job(tmp_path))  # nobody was here
    record.append(tmp_path, "start", job=7, restart=0)
    with pytest.raises(UserError, match=r"job 7 works in this run too, and is running; .*USR2 7"):
        refuse_company(job(tmp_path))
    refuse_company(job(tmp_path, 7))  # itself, requeued
    states[7] = None
    refuse_company(job(tmp_path))
