"""Parts of a job's course that need neither Slurm nor ranks."""

from pathlib import Path

import pytest

from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.site import Site
from megdet_hvd.config.load import load_config
from megdet_hvd.errors import UserError
from megdet_hvd.slurm_job import driver, record, slurm
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


@pytest.mark.parametrize(
    ("preset", "left"),
    [
        ({"OMPI_MCA_pml": "ucx"}, {}),
        ({"OMPI_MCA_pml": "ucx", "UCX_TLS": "tcp"}, {"UCX_TLS": "tcp"}),
        ({"OMPI_MCA_btl_tcp_if_include": "ib9", "OMPI_MCA_coll": "han"}, {}),
        ({"OMPI_MCA_btl_tcp_if_include": "eth0"}, {"OMPI_MCA_btl_tcp_if_include": "eth0"}),
    ],
)
def test_what_keeps_mpi_from_starting_is_left_out(
    preset: dict[str, str],
    left: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only what does: with the rest, MPI starts."""

    def srun(
        mpi: str, nodes: int, python: object, limit_s: float, environ: dict[str, str]
    ) -> object:
        bad = {"OMPI_MCA_pml": "ucx", "OMPI_MCA_btl_tcp_if_include": "ib9"}
        return "PML ucx cannot be selected" if bad.items() & environ.items() else None

    monkeypatch.setattr(slurm, "mpi_list", lambda: "MPI plugin types are...\n\tpmix\n")
    monkeypatch.setattr(slurm, "srun_problem", srun)
    environ = {"PATH": "/nowhere", **preset}
    launcher, words = driver._launcher(job(tmp_path), ["python"], environ)
    assert (launcher, words[0]) == ("srun", "srun")
    assert environ == {"PATH": "/nowhere", **left}
    said = capsys.readouterr().out
    assert ("MPI does not start with it here" in said) == (preset != left)


def test_a_preset_that_is_not_to_blame_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "mpi_list", lambda: "MPI plugin types are...\n\tpmix\n")
    monkeypatch.setattr(slurm, "srun_problem", lambda *given: "no PMIx")
    monkeypatch.setattr(slurm, "mpirun_problem", lambda path: None)
    monkeypatch.setattr(slurm, "mpirun_fails", lambda *given: None)
    environ = {"OMPI_MCA_pml": "ob1"}
    assert driver._launcher(job(tmp_path), ["python"], environ)[0] == "mpirun"
    assert environ == {"OMPI_MCA_pml": "ob1"}
