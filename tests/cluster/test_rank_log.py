import os
import subprocess
import sys
from pathlib import Path

import pytest

from megdet_hvd.cluster.rank_log import rank_log
from tests.ranks import ROOT

PROGRAM = """
import os, sys
from megdet_hvd.cluster.rank_log import redirect_output
print("before")
redirect_output()
print("said")
os.write(2, b"by a library\\n")
"""


def run(folder: Path, rank: int) -> str:
    environment = {
        **os.environ,
        "MEGDET_RANK_LOGS": str(folder),
        "OMPI_COMM_WORLD_SIZE": "16",
        "OMPI_COMM_WORLD_RANK": str(rank),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    return done.stdout


def test_ranks_other_than_0_write_to_their_own_file(tmp_path: Path) -> None:
    folder = tmp_path / "a folder" / "logs"
    assert set(run(folder, 0).splitlines()) == {"before", "said", "by a library"}
    assert not folder.exists()
    for _ in range(2):
        assert run(folder, 13) == "before\n"
    assert [path.name for path in folder.iterdir()] == ["rank_0013.log"]
    assert (folder / "rank_0013.log").read_text() == "said\nby a library\n" * 2, "it appends"
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "warning: " in run(blocked, 13) and "can't be written" in run(blocked, 13)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, None),
        ({"SLURM_PROCID": "3", "SLURM_STEP_ID": "0", "PMIX_RANK": "127"}, "rank_0127.log"),
        ({"SLURM_PROCID": "3", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}, None),
    ],
)
def test_which_file(more: dict[str, str], name: str | None) -> None:
    assert rank_log({**more, "MEGDET_RANK_LOGS": "/x"}) == (name and Path("/x") / name)
    assert rank_log(more) is None
