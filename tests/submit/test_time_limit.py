"""sbatch's forms of time, and jobs told to stop before they have started."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from megdet_hvd.cluster.time_limits import start_limit_s
from megdet_hvd.submit.job import JobRequest
from megdet_hvd.submit.report import CheckReport
from megdet_hvd.submit.time_limit import check_time, seconds_of, signal_offset_s


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("10", 600),
        ("10:00", 600),
        ("10:01", 660),
        ("01:02:00", 3720),
        ("2-3", 2 * 86400 + 3 * 3600),
        ("2-03:04", 2 * 86400 + 3 * 3600 + 240),
        ("1-00:00:30", 86460),
        ("0", None),
        ("UNLIMITED", None),
        ("", None),
        ("1h", None),
    ],
)
def test_forms_of_time(time: str, seconds: int | None) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize(
    ("signal", "offset"),
    [("B:USR1@300", 300), ("USR1", 60), ("R:10@0", 0), ("", None)],
)
def test_forms_of_signal(signal: str, offset: int | None) -> None:
    assert signal_offset_s(signal) == offset


def problems(options: Mapping[str, str], environ: Mapping[str, str], tasks: int = 8) -> list[str]:
    template = {"time": "12:00:00", "signal": "B:USR1@300"}
    report = CheckReport()
    check_time(report, JobRequest(options, Path("t"), template, (), (), "job"), tasks, environ)
    return report.problems


def test_a_job_must_have_time_to_train() -> None:
    """8 processes: 300 + 60 + 136 = 496 s, so 8 minutes are too few and 9 enough."""
    assert start_limit_s(8) == 136
    (problem,) = problems({"time": "8"}, {})
    assert "300 s" in problem and "136 s" in problem and "--time=9 (minutes)" in problem
    assert problems({"time": "9"}, {}) == []
    assert problems({"time": "9"}, {}, tasks=128) != []
    assert problems({"time": "8", "signal": "B:USR1@120"}, {}) == []
    assert problems({}, {}) == []


def test_sbatch_s_environment_counts_before_the_template() -> None:
    assert problems({}, {"SBATCH_TIMELIMIT": "5"}) != []
    assert problems({"time": "1:00:00"}, {"SBATCH_TIMELIMIT": "5"}) == []
    assert problems({"time": "8"}, {"SBATCH_SIGNAL": "B:USR1@60"}) == []
