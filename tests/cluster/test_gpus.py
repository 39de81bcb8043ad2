"""Which GPU a process takes, from what launchers are known to set."""

import re

import pytest

from megdet_hvd.cluster.gpus import choose_gpu, given_gpus, list_to_set, listed_gpus
from megdet_hvd.errors import UserError

EIGHT = "0,1,2,3,4,5,6,7"


@pytest.mark.parametrize(
    ("environ", "local_rank", "local_size", "shown", "visible", "index", "name"),
    [
        # All GPUs are shown to every task.
        ({"CUDA_VISIBLE_DEVICES": EIGHT}, 5, 8, 8, None, 5, "5"),
        ({"CUDA_VISIBLE_DEVICES": EIGHT}, 5, 8, None, None, 5, "5"),
        ({}, 1, 2, 2, None, 1, "1"),
        ({"CUDA_VISIBLE_DEVICES": "6,7"}, 1, 2, 2, None, 1, "7"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f, MIG-77/1/0"}, 1, 2, 2, None, 1, "MIG-77/1/0"),
        # One is shown to each.
        ({"CUDA_VISIBLE_DEVICES": "5"}, 5, 8, 1, None, 0, "5"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f"}, 1, 2, 1, None, 0, "GPU-8f"),
        ({"SLURM_JOB_GPUS": EIGHT}, 5, 8, 1, None, 0, "0"),  # by a cgroup of its own
        # The list is empty, or missing though the job was given GPUs.
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_JOB_GPUS": EIGHT}, 5, 8, 8, EIGHT, 5, "5"),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_STEP_GPUS": "4-7"}, 1, 4, 8, "4,5,6,7", 1, "5"),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_STEP_GPUS": "4-7"}, 1, 4, 4, "0,1,2,3", 1, "1"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles", "SLURM_GPUS_ON_NODE": "2"}, 1, 2, 2, "0,1", 1, "1"),
        ({"SLURM_JOB_GPUS": "2,3"}, 1, 2, 8, "2,3", 1, "3"),
        ({"SLURM_JOB_GPUS": "2,3"}, 1, 2, None, "2,3", 1, "3"),
        ({"SLURM_JOB_GPUS": "2,3"}, 1, 2, 2, None, 1, "1"),  # a cgroup hides the others
    ],
)
def test_the_gpu_of_a_task(
    environ: dict[str, str],
    local_rank: int,
    local_size: int,
    shown: int | None,
    visible: str | None,
    index: int,
    name: str,
) -> None:
    choice = choose_gpu(environ, local_rank, local_size, shown)
    assert (choice.visible, choice.index, choice.name) == (visible, index, name)
    assert list_to_set(environ, shown) == visible


@pytest.mark.parametrize(
    ("environ", "shown", "words"),
    [
        ({}, 0, "torch shows none"),
        ({}, None, "the environment names none"),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, "torch shows none"),  # no job that was given any
        (
            {"CUDA_VISIBLE_DEVICES": "-1", "SLURM_JOB_GPUS": EIGHT},
            0,
            r"given 8 .* shows none \(CUDA_VISIBLE_DEVICES=-1\)",  # the user's own choice stands
        ),
        ({"CUDA_VISIBLE_DEVICES": EIGHT, "SLURM_JOB_GPUS": EIGHT}, 0, "given 8 .* shows none"),
    ],
)
def test_no_gpu(environ: dict[str, str], shown: int | None, words: str) -> None:
    choice = choose_gpu(environ, 0, 2, shown)
    assert choice.index is None
    assert re.search(words, choice.reason)


@pytest.mark.parametrize(
    ("environ", "shown", "words"),
    [
        ({}, 1, r"4 processes .* shows 1 GPU \(no list is set\)"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2, r"shows 2 GPUs \(CUDA_VISIBLE_DEVICES=0,1\)"),
        (
            {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_JOB_GPUS": "0-3"},
            2,
            "given 4, so a cgroup or container hides the rest",
        ),
    ],
)
def test_fewer_gpus_than_processes(environ: dict[str, str], shown: int, words: str) -> None:
    for local_rank in range(4):  # all of them, so that none trains while another has gone
        with pytest.raises(UserError, match=words) as raised:
            choose_gpu(environ, local_rank, 4, shown)
    assert "--gpus-per-node=4" in str(raised.value)


def test_lists_as_cuda_and_slurm_write_them() -> None:
    assert listed_gpus({}) is None
    assert listed_gpus({"CUDA_VISIBLE_DEVICES": "0,1,-1,2"}) == ("0", "1")
    assert given_gpus({"SLURM_JOB_GPUS": "0-1,6"}) == ("0", "1", "6")
    assert given_gpus({"SLURM_STEP_GPUS": "7", "SLURM_JOB_GPUS": "0-7"}) == ("7",)
    assert given_gpus({"SLURM_GPUS_ON_NODE": "3"}) == ("0", "1", "2")
    assert given_gpus({"SLURM_JOB_ID": "7"}) == ()
