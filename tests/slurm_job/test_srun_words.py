"""What srun says when a node is lost, and when it is not; literal messages of Slurm 22.05."""

import pytest

from megdet_hvd.slurm_job.srun_words import reason, silent, silent_nodes

LOST = """\
srun: error: Task launch for StepId=17.2 failed on node n2: Communication connection failure
srun: error: Application launch failed: Communication connection failure
srun: Job step aborted: Waiting up to 17 seconds for job step to finish.
srun: error: Timed out waiting for job step to complete
"""
REFUSED = """\
srun: cluster configuration lacks support for cpu binding
srun: error: Unable to create step for job 166: Invalid Trackable RESource (TRES) specification
"""


def test_a_node_that_can_not_be_reached_is_named() -> None:
    told = "Task launch for StepId=17.2 failed on node n2: Communication connection failure"
    assert silent(LOST) == told
    assert silent_nodes(LOST) == ["n2"]


@pytest.mark.parametrize(
    "text",
    [
        REFUSED,
        "srun: error: Unable to create step for job 1: Invalid generic resource (gres) spec\n",
        "srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and SLURM_MEM_PER_NODE are mutually "
        "exclusive.\n",
        "srun: error: Unable to create step for job 1: Requested node configuration is not "
        "available\n",
        "srun: error: n2: task 1: Exited with exit code 1\n",
        "connection refused, says a program that is not srun\n",
        "",
    ],
)
def test_what_says_nothing_of_a_node(text: str) -> None:
    assert silent(text) is None
    assert silent_nodes(text) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "Traceback (most recent call last):\n  File x\n"
            "RuntimeError: cannot load MPI library libmpi.so\n"
            "srun: error: n8: task 1: Exited with exit code 1\n",
            "RuntimeError: cannot load MPI library libmpi.so",
        ),
        (
            "No components were able to be opened in the pml framework.\n"
            "--------------------------------------------------------------------------\n"
            "srun: error: n2: task 1: Killed\n",
            "No components were able to be opened in the pml framework.",
        ),
        (REFUSED, "Unable to create step for job 166: Invalid Trackable RESource (TRES) "
         "specification"),
        (
            "-------------------------------------------------------------------------\n"
            "At least one pair of MPI processes are unable to reach each other for\n"
            "MPI communications.\n\nYour MPI job is now going to abort; sorry.\n"
            "-------------------------------------------------------------------------\n"
            "Traceback (most recent call last):\n"
            "mpi4py.MPI.Exception: MPI_ERR_INTERN: internal error\n"
            '[n5:16179] Set MCA parameter "orte_base_help_aggregate" to 0 to see all help / error '
            "messages\n",
            "At least one pair of MPI processes are unable to reach each other for",
        ),
        (
            "slurmstepd-n1: error: execve(): sh: No such file or directory\n"
            "srun: error: n1: task 0: Exited with exit code 2\n",
            "error: execve(): sh: No such file or directory",
        ),
        ("srun: error: n1: task 0: Killed\n", "n1: task 0: Killed"),
        ("", None),
    ],
)  # fmt: skip
def test_the_reason_is_the_programs_own(text: str, why: str | None) -> None:
    assert reason(text) == why
