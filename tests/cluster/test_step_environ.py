"""What srun is kept from reading in the environment."""

import pytest

from megdet_hvd.cluster.step_environ import OPTIONS, step_environ

OWN = {"SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2"}
OWN |= {"SLURM_TASKS_PER_NODE": "8(x2)", "SLURM_NTASKS": "16", "SLURM_NETWORK": "sn_all"}
STRAYS = """
SLURM_GPUS_PER_NODE SLURM_GPUS SLURM_GPUS_PER_TASK SLURM_GRES SLURM_TRES_PER_TASK SLURM_EXACT
SLURM_MEM_PER_CPU SLURM_MEM_PER_NODE SLURM_MEM_PER_GPU SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK
SLURM_NTASKS_PER_NODE SLURM_NTASKS_PER_GPU SLURM_HINT SLURM_DISTRIBUTION SLURM_HOSTFILE
SLURM_EXPORT_ENV SRUN_EXPORT_ENV SLURM_WAIT SLURM_TIMELIMIT SLURM_STDOUTMODE SLURM_WORKING_DIR
SLURM_REMOTE_CWD SLURM_LABELIO SLURM_NO_KILL SLURM_EXCLUSIVE SLURM_CLUSTERS SLURM_CONSTRAINT
SLURM_KILL_BAD_EXIT SLURM_CPU_BIND SLURM_MPI_TYPE SLURM_DEBUG SLURM_OVERLAP SLURM_THREADS
"""
OWN |= {"PATH": "/bin", "SLURM_PMIX_TIMEOUT": "300"}


@pytest.mark.parametrize("stray", STRAYS.split())
def test_options_do_not_reach_a_step(stray: str) -> None:
    assert step_environ({**OWN, stray: "1"}) == OWN


def test_what_the_site_file_exports_does() -> None:
    site = {"MEGDET_SITE_EXPORTS": "X SLURM_CPU_BIND ", "SLURM_CPU_BIND": "none"}
    assert step_environ({**OWN, **site, "SLURM_HINT": "x"}) == {**OWN, **site}


def test_the_list_holds_no_fact_of_the_job() -> None:
    assert not OPTIONS & {*OWN, "SLURM_JOB_NUM_NODES", "SLURM_NPROCS", "SLURM_PROCID"}
