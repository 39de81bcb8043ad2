"""What Open MPI is told before it starts."""

import pytest

from megdet_hvd.cluster.launch import read_launch
from megdet_hvd.cluster.mpi_start import VARIABLES, meet_once

SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "PMIX_RANK": "1", "SLURM_STEP_NUM_TASKS": "2"}


def test_under_srun_one_fence_unless_the_user_says_otherwise() -> None:
    environ = dict(SRUN)
    meet_once(read_launch(environ), environ)
    assert environ == {**SRUN, **VARIABLES}
    (name,) = VARIABLES
    environ = {**SRUN, name: "0"}
    meet_once(read_launch(environ), environ)
    assert environ[name] == "0"


@pytest.mark.parametrize(
    ("offers", "taken"), [("munge,native", "native"), ("native", None), ("munge", None), ("", None)]
)
def test_of_several_ways_to_prove_who_one_is_the_one_that_all_have(
    offers: str, taken: str | None
) -> None:
    environ = {**SRUN, "PMIX_SECURITY_MODE": offers}
    meet_once(read_launch(environ), environ)
    assert environ.get("PMIX_MCA_psec") == taken
    environ = {**SRUN, "PMIX_SECURITY_MODE": offers, "PMIX_MCA_psec": "munge"}
    meet_once(read_launch(environ), environ)
    assert environ["PMIX_MCA_psec"] == "munge"


def test_other_launchers_have_no_slurm_to_meet_through() -> None:
    for environ in ({}, {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}):
        before = dict(environ)
        meet_once(read_launch(environ), environ)
        assert environ == before
