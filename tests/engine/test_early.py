"""What a training starts beside its imports, and what it may not import before that."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from megdet_hvd.cluster.launch import Launch
from megdet_hvd.config.load import load_config
from megdet_hvd.engine import early
from megdet_hvd.engine.early import likely_cores, start_early
from tests.ranks import ROOT

ALONE = Launch("single", "python", None, None, None, None)
EIGHT = Launch("mpi", "mpirun", 8, 3, 3, 8)

TOLD = """
import sys
from megdet_hvd import train
from megdet_hvd.engine import early

def told():
    print("EARLY", *(name for name in %r if name in sys.modules), flush=True)
    raise SystemExit

early.start_server = told
train.main(["data.workers=1", "--run", sys.argv[1]])
"""
HEAVY = ("torch", "torchvision", "horovod", "mpi4py", "matplotlib", "PIL")


def test_cores_before_the_others_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert likely_cores(ALONE, set(range(64))) == 64
    assert likely_cores(EIGHT, set(range(64))) == 8  # all see all
    assert likely_cores(EIGHT, set(range(24, 32))) == 8  # bound to their own
    assert likely_cores(Launch("mpi", "aprun", None, 1, None, None), {1, 2}) == 2


@pytest.mark.parametrize(
    ("words", "driver", "cores", "started"),
    [
        (["data.workers=2"], "", 1, True),
        (["data.workers=0"], "", 8, False),
        ([], "", 1, False),
        ([], "", 2, True),
        ([], "580.1", 3, False),  # a GPU keeps three cores busy
        ([], "580.1", 4, True),
        (["device=cpu"], "580.1", 2, True),
    ],
)
def test_the_server_is_started_where_there_will_be_loaders(
    words: list[str], driver: str, cores: int, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "driver_version", lambda: driver)
    monkeypatch.setattr(early, "read_launch", lambda environ: ALONE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    with mock.patch.object(early, "start_server") as server:
        start_early(load_config(None, words))
    assert server.called is started


def test_a_server_that_cannot_be_started_stops_nobody() -> None:
    with mock.patch.object(early, "start_server", side_effect=OSError(24, "too many files")):
        start_early(load_config(None, ["data.workers=1"]))


def test_the_server_imports_beside_the_training_process(tmp_path: Path) -> None:
    """When it is started, nothing of weight has been imported here yet."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD % (HEAVY,), str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["EARLY"], done.stderr
