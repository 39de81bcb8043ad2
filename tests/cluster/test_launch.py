import pytest

from megdet_hvd.cluster.launch import Launch, read_launch, tasks_per_node
from megdet_hvd.cluster.threads import cores_per_process, threads_per_process
from megdet_hvd.errors import UserError


def test_plain_python_is_one_process_even_inside_a_slurm_allocation() -> None:
    alone = Launch("single", "python", 1, 0, 0, 1)
    assert read_launch({}) == alone
    assert read_launch({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}) == alone


def test_mpirun() -> None:
    environ = {
        "OMPI_COMM_WORLD_SIZE": "16",
        "OMPI_COMM_WORLD_RANK": "9",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "8",
        "SLURM_NODEID": "0",  # of the daemon, in the step that mpirun started
    }
    assert read_launch(environ) == Launch("mpi", "mpirun", 16, 9, 1, 8)
    environ |= {
        "OMPI_MCA_orte_local_daemon_uri": "1899036672.1;tcp://192.0.2.2:32795",
        "OMPI_MCA_orte_num_nodes": "2",
    }
    assert read_launch(environ) == Launch("mpi", "mpirun", 16, 9, 1, 8, 1, 2, 1, 2)


def test_horovodrun_with_gloo() -> None:
    environ = {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_RANK": "3",
        "HOROVOD_SIZE": "4",
        "HOROVOD_LOCAL_RANK": "1",
        "HOROVOD_LOCAL_SIZE": "2",
        "HOROVOD_CROSS_RANK": "1",
        "HOROVOD_CROSS_SIZE": "2",
    }
    assert read_launch(environ) == Launch("gloo", "horovodrun --gloo", 4, 3, 1, 2, 1, 2, 1, 2)


def test_srun_with_pmix_takes_the_local_size_of_its_own_node() -> None:
    environ = {
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "5",
        "SLURM_STEP_NUM_TASKS": "6",
        "PMIX_RANK": "5",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "4,2",
    }
    assert read_launch(environ) == Launch("mpi", "srun", 6, 5, 1, 2, 1, 2, 1, 2)
    third = environ | {"SLURM_PROCID": "3", "PMIX_RANK": "3", "SLURM_LOCALID": "3"}
    third["SLURM_NODEID"] = "0"  # the only node with so many tasks
    assert read_launch(third) == Launch("mpi", "srun", 6, 3, 3, 4, 0, 2, 0, 1)


def test_srun_without_an_mpi_plugin_is_refused_with_the_fix() -> None:
    environ = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "16"}
    with pytest.raises(UserError, match=r"srun started 16 tasks.*--mpi=pmix"):
        read_launch(environ)


def test_slurm_task_lists() -> None:
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_node("8") == [8]
    with pytest.raises(ValueError, match="not a Slurm task list"):
        tasks_per_node("8x2")


@pytest.mark.parametrize(
    ("affinities", "cores"),
    [
        ([{0, 1}, {0, 1}], 1),  # both see all cores
        ([{0, 1, 2, 3}], 4),
        ([{0, 1}, {2, 3}], 2),  # bound to cores of their own
        ([{0, 1}] * 8, 1),  # more processes than cores
        ([set(range(12))] * 5, 2),
    ],
)
def test_cores_are_shared_and_never_zero(affinities: list[set[int]], cores: int) -> None:
    assert cores_per_process([frozenset(a) for a in affinities]) == cores


def test_a_thread_count_the_user_set_is_kept() -> None:
    assert threads_per_process(4, {"OMP_NUM_THREADS": "3"}) == 3
    assert threads_per_process(4, {"OMP_NUM_THREADS": ""}) == 4
    assert threads_per_process(4, {}) == 4


def test_torchrun_is_refused_with_the_fix() -> None:
    environ = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": "3"}
    with pytest.raises(UserError, match=r"torchrun.*8 processes.*horovodrun -np 8"):
        read_launch(environ)
    assert read_launch({**environ, "WORLD_SIZE": "1"}).controller == "single"
    assert read_launch({"WORLD_SIZE": "8"}).controller == "single", "somebody's own variable"
