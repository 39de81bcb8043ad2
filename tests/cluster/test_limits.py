"""What the system allows a process, in processes of their own."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
for name, value in json.loads(sys.argv[1]).items():
    resource.setrlimit(getattr(resource, name), tuple(value))
from megdet_hvd.cluster.limits import low_limits, raise_open_files
from megdet_hvd.errors import UserError
files = raise_open_files()
try:
    print(json.dumps([files, low_limits(files), resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
except UserError as error:
    print(json.dumps([files, str(error), None]))
"""


def limited(**limits: tuple[int, int]) -> tuple[int, list[str] | str, int | None]:
    """What such a process may open, what it is told, and its limit in the end."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(limits)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files, told, soft = json.loads(done.stdout)
    return files, told, soft


def test_a_low_limit_is_raised_as_far_as_it_may_be() -> None:
    """As a shell hands it on: ``ulimit -n 64`` there sets the soft limit alone."""
    assert limited(RLIMIT_NOFILE=(64, 2048)) == (2048, [], 2048)


@pytest.mark.parametrize(("most", "told"), [(512, "open files (ulimit -n): 512; 1024 are usual")])
def test_one_that_stays_low_is_told(most: int, told: str) -> None:
    assert limited(RLIMIT_NOFILE=(64, most)) == (most, [told], most)


def test_one_that_no_training_gets_by_with_is_refused() -> None:
    files, told, _ = limited(RLIMIT_NOFILE=(64, 64))
    assert files == 64 and isinstance(told, str)
    assert "open files (ulimit -n): 64, and no more may be asked for" in told
    assert "ulimit -n 1024" in told


def test_others_that_kill_or_refuse_are_told() -> None:
    _, told, _ = limited(RLIMIT_CPU=(1800, 3600), RLIMIT_FSIZE=(10**9, 10**9))
    assert told == [
        "CPU time (ulimit -t): 1800 s: a process that has used it is killed",
        "size of a file (ulimit -f): 1000000000 bytes: a larger checkpoint can't be",
    ]
