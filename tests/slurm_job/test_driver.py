"""Parts of a job's course that need neither Slurm nor ranks."""

import errno
import math
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from megdet_hvd import storage
from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.site import Site
from megdet_hvd.config.load import load_config
from megdet_hvd.errors import STORAGE_ERROR, UserError
from megdet_hvd.run_lock.lock import take
from megdet_hvd.run_lock.slurm import FORGOTTEN, JobState
from megdet_hvd.slurm_job import after, driver, record, slurm
from megdet_hvd.slurm_job.driver import refuse_company, run_job
from megdet_hvd.slurm_job.job import BatchJob
from megdet_hvd.slurm_job.job_arguments import JobArguments
from tests.failing_storage import failing


def job(folder: Path, number: int = 8) -> BatchJob:
    allocation = Allocation(number, "job", 0, ("n1",), 1, None)
    return BatchJob(
        allocation,
        Site(),
        JobArguments("megdet_hvd.train", (), folder, load_config(None, ["data.kind=scenes"])),
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


def test_a_job_that_slurm_says_nothing_of_counts_as_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = JobState("RUNNING", 0, os.getuid())
    found: JobState | None = mine
    monkeypatch.setattr("megdet_hvd.run_lock.slurm.job_state", lambda number: found)
    record.append(tmp_path, "start", job=7, restart=0)
    assert slurm.standing(7) == "RUNNING"
    for found in (
        FORGOTTEN,
        replace(mine, name="FAILED"),
        replace(mine, name="COMPLETING"),
        replace(mine, uid=os.getuid() + 1),
    ):
        assert slurm.standing(7) is None, found
    found = None
    with pytest.raises(UserError, match=r"is still there for all that is known \(Slurm does not"):
        refuse_company(job(tmp_path))


def test_the_driver_touches_no_checkpoint_of_a_run_that_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "checkpoints" / "iteration_00000001.pt"
    damaged.parent.mkdir()
    damaged.write_bytes(b"being written")
    monkeypatch.setattr(slurm, "own_log", lambda: None)
    environ = {"MEGDET_NOTE": str(tmp_path / "note")}
    held = take(tmp_path, say=print, environ={})
    with pytest.raises(UserError, match=f"process {os.getpid()} on .* works in this run"):
        run_job(job(tmp_path), environ)
    held.release()
    assert [path.name for path in damaged.parent.iterdir()] == [damaged.name]
    monkeypatch.setattr(driver, "_command", mock.Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        run_job(job(tmp_path), environ)
    assert [path.name for path in damaged.parent.iterdir()] == [damaged.name + ".damaged"]
    assert not (tmp_path / ".lock.owner").exists(), "it is the ranks' turn"


def test_storage_that_fails_before_the_launch_requeues_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoints can't be read just now: neither damage nor a mistake in the input."""
    requeued: list[str] = []

    def refuse(number: str, *args: object, **more: object) -> str:
        requeued.append(number)
        return "not today"

    monkeypatch.setattr(storage, "PAUSES_S", ())
    monkeypatch.setattr(slurm, "job_facts", lambda number: {"JobState": "RUNNING"})
    monkeypatch.setattr(after, "requeue", refuse)
    monkeypatch.setattr(after, "_bad_nodes", lambda *_: {})
    monkeypatch.setattr("signal.signal", lambda *_: None)
    checkpoint = tmp_path / "checkpoints" / "iteration_00000001.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"PK")
    environ = {"MEGDET_NOTE": str(tmp_path / "note")}
    with failing(checkpoint.name, errno.ESTALE, math.inf):
        assert run_job(job(tmp_path), environ) == STORAGE_ERROR
    assert requeued == ["8"] and checkpoint.exists(), "not set aside"
    end = record.read(tmp_path)[0]
    assert end["event"] == "end" and end["failure"] and end["outcome"]["code"] == STORAGE_ERROR
    assert "Stale file handle" in capsys.readouterr().err
    with failing("checkpoints", errno.EIO, math.inf, "list"):
        assert run_job(job(tmp_path), environ) == STORAGE_ERROR
    assert requeued == ["8", "8"]


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
        mpi: str, nodes: int, python: object, limit_s: float, environ: dict[str, str], *_: object
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


def test_network_cards_reach_the_ranks_and_are_counted_before(tmp_path: Path) -> None:
    own = replace(job(tmp_path), site=Site(network_cards=("mlx5_0",)))
    assert driver._variables(own, {}, None)["MEGDET_NETWORK_CARDS"] == "mlx5_0"
    assert "MEGDET_NETWORK_CARDS" not in driver._variables(job(tmp_path), {}, None)
    two = replace(own, site=Site(network_cards=("mlx5_0", "mlx5_1")))
    with pytest.raises(UserError, match="names 2 cards for 1 processes"):
        driver._command(two, {})


def test_a_pipeline_is_not_left_to_horovodrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the site says so, nor where nothing else serves; before nodes are prepared."""
    along = job(tmp_path)
    along = replace(along, arguments=replace(along.arguments, evaluators=1))
    monkeypatch.setattr(driver, "prepare_nodes", mock.Mock(side_effect=ZeroDivisionError))
    wanted = replace(along, site=replace(along.site, launcher="horovodrun"))
    with pytest.raises(UserError, match="--evaluators 1: the pipeline is an MPI program"):
        driver._command(wanted, {})
    monkeypatch.setattr(slurm, "mpi_list", lambda: "")
    monkeypatch.setattr(slurm, "mpirun_problem", lambda path: "mpirun is not on PATH")
    monkeypatch.setattr(slurm, "ssh_problem", lambda hosts: None)
    with pytest.raises(UserError, match=r"no launcher serves .*; horovodrun: it starts no MPI"):
        driver._launcher(along, ["python"], {})
    assert driver._launcher(job(tmp_path), ["python"], {})[0] == "horovodrun"


def test_what_is_tried_is_what_runs_with_the_sites_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[object, ...]] = []

    def srun(*given: object) -> None:
        tried.append(given)

    monkeypatch.setattr(slurm, "mpi_list", lambda: "MPI plugin types are...\n\tpmix\n")
    monkeypatch.setattr(slurm, "srun_problem", srun)
    monkeypatch.setattr(slurm, "mpirun_problem", lambda path: None)
    options = ("--container-image=/x.sqsh", "--network=y")
    own = replace(job(tmp_path), site=Site(srun_options=options))
    expected = [*options, "--container-workdir=/my project"]
    environ = {"MEGDET_ROOT": "/my project"}
    launcher, words = driver._launcher(own, ["python"], environ)
    assert launcher == "srun" and words[-3:] == expected
    assert tried[0][-1] == expected
    monkeypatch.undo()
    start = mock.Mock(return_value=(0, ""))
    monkeypatch.setattr(slurm, "_try_mpi", start)
    assert slurm.srun_problem("pmix", 2, ["python"], 9.0, {}, expected) is None
    words = start.call_args.args[0]
    assert words[: words.index("python")][-3:] == expected


def test_a_refused_option_names_no_other_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = "srun: unrecognized option"
    monkeypatch.setattr(slurm, "mpi_list", lambda: "MPI plugin types are...\n\tpmix\n")
    monkeypatch.setattr(slurm, "srun_problem", lambda *_: problem)
    monkeypatch.setattr(slurm, "mpirun_problem", lambda path: None)
    own = replace(job(tmp_path), site=Site(srun_options=("--network=y",)))
    with pytest.raises(UserError, match=r"srun: unrecognized option; no other launcher serves"):
        driver._launcher(own, ["python"], {})
