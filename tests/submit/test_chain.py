"""Jobs that carry on a run which does not exist yet."""

from pathlib import Path

import pytest

from megdet_hvd.submit import chain, training
from megdet_hvd.submit.chain import jobs_waited_for
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.queue import Queued
from megdet_hvd.submit.report import CheckReport


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names of jobs in the queue, by number."""
    names = {"47": "megdet_16gpu", "48": "big"}

    def ask(number: str) -> tuple[Queued | None, str | None]:
        if number not in names:
            return None, None
        return Queued("PENDING", "", "", "", "2", "", names[number], "/p"), None

    monkeypatch.setattr(chain, "ask_queue", ask)
    return names


def checked(folder: Path, dependency: str, name: str = "big") -> CheckReport:
    report = CheckReport()
    words = ("data.kind=scenes", "global_batch=16", "--resume", str(folder))
    options = {"dependency": dependency} if dependency else {}
    training.check_training(
        report, JobRequest(options, folder / "t", {}, (), words, name), 1, 8, data_is_packed=True
    )
    return report


@pytest.mark.parametrize(
    "dependency",
    ["afterany:47", "afterok:12:47", "after:47+10?afterany:9", "afterany:9,afternotok:47"],
)
def test_a_run_that_the_job_before_will_make(dependency: str, tmp_path: Path) -> None:
    report = checked(tmp_path / "megdet_16gpu-47", dependency)
    assert report.problems == []
    assert "job 47 will have made it" in "".join(report.notes)
    assert "global batch 16 = 8 processes × 2 images × 1 pass" in report.facts, "the sums, too"


def test_one_of_the_same_name_by_singleton(tmp_path: Path) -> None:
    assert checked(tmp_path / "big-48", "singleton").problems == []
    (problem,) = checked(tmp_path / "megdet_16gpu-47", "singleton").problems
    assert "--dependency=afterany:47 before the template" in problem


@pytest.mark.parametrize(
    ("folder", "dependency", "told"),
    [
        ("megdet_16gpu-48", "afterany:47", "makes …/megdet_16gpu-47 (unless"),
        ("mine", "afterany:47", "--run FOLDER with each of them"),
        ("gone-12", "afterany:12", "holds no run to carry on"),
        ("megdet_16gpu-47", "", "--dependency=afterany:47 before the template"),
        ("typo", "", "holds no run to carry on"),
    ],
)
def test_a_run_that_will_not_be_there(
    folder: str, dependency: str, told: str, tmp_path: Path
) -> None:
    (problem,) = checked(tmp_path / folder, dependency).problems
    assert told in problem


def test_a_queue_that_can_not_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "ask_queue", lambda number: (None, "squeue is not on PATH"))
    report = checked(tmp_path / "x-47", "afterany:47")
    assert report.problems == [] and "squeue is not on PATH" in report.notes[0]


def test_a_run_that_is_there_is_checked_as_ever(tmp_path: Path) -> None:
    run = tmp_path / "megdet_16gpu-47"
    run.mkdir()
    (run / "config.yaml").write_text("global_batch: 12\ndata: {kind: scenes}\n")
    report = CheckReport()
    words = ("--config", "x.yaml", "--resume", str(run))
    options = {"dependency": "afterany:47"}
    job = JobRequest(options, run / "t", {}, (), words, "big")
    training.check_training(report, job, 1, 2, data_is_packed=True)
    assert (report.problems, report.notes) == ([], [])
    assert "global batch 12 = 2 processes × 6 images × 1 pass" in report.facts


def test_numbers_of_a_dependency() -> None:
    assert jobs_waited_for("afterok:20:21,afterany:23+10?singleton") == ["20", "21", "23"]
    assert jobs_waited_for("singleton") == jobs_waited_for("") == []
