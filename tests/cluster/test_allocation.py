import pytest

from megdet_hvd.cluster.allocation import Allocation, read_allocation
from megdet_hvd.cluster.hostlist import expand_hosts
from megdet_hvd.errors import UserError

JOB = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "megdet_16gpu",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_NTASKS_PER_NODE": "8",
    "SLURM_TASKS_PER_NODE": "8(x2)",
    "SLURM_CPUS_PER_TASK": "16",
}


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-3,7],login-2", ["n1", "n2", "n3", "n7", "login-2"]),
        ("gpu[098-101]", ["gpu098", "gpu099", "gpu100", "gpu101"]),
        ("r[1-2]n[01-02].site", ["r1n01.site", "r1n02.site", "r2n01.site", "r2n02.site"]),
    ],
)
def test_short_forms_of_host_names(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize("text", ["", "n[1-", "n[a-b]", "n1,,n2"])
def test_what_is_no_host_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a|neither"):
        expand_hosts(text)


def test_a_job_as_slurm_describes_it() -> None:
    found = read_allocation({**JOB, "SLURM_RESTART_COUNT": "2"})
    assert found == Allocation(17, "megdet_16gpu", 2, ("gpu07", "gpu08"), 8, 16)
    assert found.tasks == 16


def test_tasks_come_from_the_nodes_where_no_number_a_node_was_asked_for() -> None:
    job = {k: v for k, v in JOB.items() if "NTASKS" not in k and "CPUS" not in k}
    found = read_allocation({**job, "SLURM_TASKS_PER_NODE": "4(x2)"})
    assert (found.tasks_per_node, found.cpus_per_task, found.restarts) == (4, None, 0)


def test_unequal_nodes_and_no_job_are_refused_with_the_fix() -> None:
    job = {k: v for k, v in JOB.items() if "NTASKS" not in k}
    with pytest.raises(UserError, match=r"--ntasks-per-node=M"):
        read_allocation({**job, "SLURM_TASKS_PER_NODE": "4,3"})
    with pytest.raises(UserError, match=r"SLURM_JOB_ID and SLURM_JOB_NODELIST not set.*sbatch"):
        read_allocation({})


def test_a_heterogeneous_job_is_refused() -> None:
    with pytest.raises(UserError, match="heterogeneous"):
        read_allocation({**JOB, "SLURM_HET_SIZE": "2"})


def test_a_member_of_an_array_is_named_as_one() -> None:
    """Its own number may be that of the whole array, which a requeue would start again."""
    member = {**JOB, "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}
    found = read_allocation(member)
    assert (found.job, found.array, found.member, found.slurm_id) == (17, 17, 2, "17_2")
    assert read_allocation(JOB).slurm_id == "17"
