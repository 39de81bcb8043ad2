"""Whether a job's log and run can be written, before Slurm ends it without a word."""

import os
import subprocess
from pathlib import Path

import pytest

from megdet_hvd.errors import UserError
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.report import CheckReport
from megdet_hvd.submit.writing import check_folder, check_log, check_names


def job(name: str = "big", **options: str) -> JobRequest:
    return JobRequest(options, Path("/p/t.sbatch"), {"output": "%x-%j.log"}, (), (), name)


def problems(root: Path, found: JobRequest) -> list[str]:
    report = CheckReport()
    check_log(report, found, root, {"USER": "me"})
    return report.problems


def test_logs_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "logs" / "me").mkdir(parents=True)
    for pattern in ("%x-%j.log", "logs/%j.out", "logs/%u/%5j_%N", "/dev/null", f"{tmp_path}/%%j"):
        assert problems(tmp_path, job(output=pattern)) == [], pattern
    assert problems(tmp_path, job(output="me/%j", chdir="logs")) == []
    (plain,) = problems(tmp_path, job(output="a\\%j/x"))
    assert plain.startswith(f"--output=a\\%j/x: no such folder: {tmp_path}/a%j (mkdir -p makes it)")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"output": "/nope/dir/%x-%j.log"}, "no such folder: /nope/dir (mkdir -p makes it). Slurm"),
        ({"error": "nope/%j.err"}, "--error=nope/%j.err: no such folder"),
        ({"output": "logs/%j/x.log"}, "Slurm makes no folders"),
        ({"output": "a file/x.log"}, "a file is a file"),
        ({"chdir": "/nope"}, "--chdir=/nope: no such folder"),
        ({"output": "x" * 250 + "-%j.log"}, "has 265 bytes"),
    ],
)
def test_logs_that_can_not(options: dict[str, str], told: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "a file").touch()
    (problem,) = problems(tmp_path, job(**options))
    assert told in problem


def test_names(tmp_path: Path) -> None:
    slash = problems(tmp_path, job("a/b"))
    assert "--job-name=a/b" in slash[0] and "no such folder" in slash[1]
    (long,) = problems(tmp_path, job("é" * 150))
    assert "has 315 bytes" in long and "a shorter --job-name" in long
    report = CheckReport()
    assert check_names(report, Path("/runs/a-1"), "run folder")
    assert not check_names(report, Path("/" + "d/" * 2030), "run folder")
    assert "a path of 4060 bytes" in report.problems[0]


def test_a_folder_that_is_made_needs_a_place_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_folder(tmp_path / "a" / "b", "run folder", made=True)
    with pytest.raises(UserError, match=f"run folder: {tmp_path}/file is a file"):
        check_folder(tmp_path / "file" / "b", "run folder", made=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: tried as a user only")
def test_somebody_elses_folder() -> None:
    with pytest.raises(UserError, match="/proc can't be written by you"):
        check_folder(Path("/proc/runs/x"), "run folder", made=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: a read-only disk was not tried")
def test_a_read_only_disk(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=4k", "none", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no mount here: a read-only disk was not tried")
    try:
        with pytest.raises(UserError, match=f"{tmp_path} is read-only here"):
            check_folder(tmp_path / "runs" / "x", "output", made=True)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
