"""Which node is proven bad: by comparison alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megdet_hvd.slurm_job.node_check import answers, bad_nodes, words

HOSTS = ("n1", "n2", "n3")


@pytest.mark.parametrize(
    ("said", "bad"),
    [
        ({"n1": "gpus 8", "n2": "gpus 8", "n3": "gpus 8"}, {}),
        ({"n1": "gpus 0", "n2": "gpus 0", "n3": "gpus 0"}, {}),
        ({"n1": "gpus 8", "n2": "gpus 7", "n3": "gpus 8"}, {"n2": "it shows 7 of 8 GPUs"}),
        ({"n1": "gpus 8", "n2": "bad no run", "n3": "gpus 8"}, {"n2": "no run"}),
        # what fails everywhere is not a node's fault
        ({"n1": "bad no run", "n2": "bad no run", "n3": "bad no run"}, {}),
        ({"n1": "bad no run"}, {}),
        ({}, {}),
        # silence is another matter, and so is a node of another job
        ({"n1": "gpus 8", "n3": "gpus 8", "n9": "bad no run"}, {}),
        ({"n1": "gpus 8", "n2": "garbled", "n3": "gpus x"}, {}),
    ],
)
def test_a_node_is_bad_where_another_is_well(said: dict[str, str], bad: dict[str, str]) -> None:
    assert bad_nodes(said, HOSTS) == bad


def told(folder: Path, python: str, node: str, path: str) -> dict[str, str]:
    done = subprocess.run(
        words(folder, python),
        env={**os.environ, "SLURMD_NODENAME": node, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return answers(done.stdout)


def test_what_a_node_runs(tmp_path: Path) -> None:
    """The very shell script, on a node with two cards, with a broken driver, without a mount."""
    run, tools = tmp_path / "a run, with space", tmp_path / "tools"
    run.mkdir()
    tools.mkdir()
    smi = tools / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho GPU 0: x; echo GPU 1: y\n")
    smi.chmod(0o755)
    path = f"{tools}:/usr/bin:/bin"
    found = told(run, sys.executable, "n1", path)
    smi.write_text("#!/bin/sh\necho Unable to determine the device handle >&2; exit 255\n")
    found |= told(run, sys.executable, "n2", path)
    found |= told(tmp_path / "gone", sys.executable, "n3", path)
    found |= told(run, str(tmp_path / "python"), "n4", path)
    found |= {"n5": "gpus 2"}
    assert found["n1"] == "gpus 2"
    assert bad_nodes(found, ("n1", "n2", "n3", "n4", "n5")) == {
        "n2": "it shows 0 of 2 GPUs",
        "n3": f"the run folder is not there: {tmp_path}/gone",
        "n4": f"{tmp_path}/python does not run",
    }
