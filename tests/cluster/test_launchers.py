import pytest

from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.launchers import (
    choose_launcher,
    horovodrun_words,
    interpreter_of,
    mpirun_words,
    passed_on,
    pmix_of,
    srun_words,
)
from megdet_hvd.cluster.site import Site
from megdet_hvd.cluster.time_limits import start_limit_s, start_variables
from megdet_hvd.errors import UserError

TWO = Allocation(17, "megdet_16gpu", 0, ("n1", "n2"), 8, 16)


def test_srun() -> None:
    assert srun_words(TWO, mpi="pmix_v4") == [
        "srun",
        "--mpi=pmix_v4",
        "--nodes=2",
        "--ntasks=16",
        "--ntasks-per-node=8",
        "--distribution=block:block",
        "--kill-on-bad-exit=0",
        "--wait=150",
        "--cpu-bind=cores",
        "--cpus-per-task=16",
    ]
    unbound = srun_words(Allocation(1, "x", 0, ("n1",), 4, None), bind=False)
    assert unbound[-1] == "--cpu-bind=none"


def test_mpirun_passes_variables_on_by_name() -> None:
    assert mpirun_words(TWO, ["NCCL_IB_HCA", "COCO_ROOT"]) == [
        *("mpirun", "-np", "16", "--map-by", "ppr:8:node", "--bind-to", "none"),
        *("-x", "COCO_ROOT", "-x", "NCCL_IB_HCA"),
    ]


def test_horovodrun() -> None:
    words = ["horovodrun", "--gloo", "-np", "16", "-H", "n1:8,n2:8"]
    assert horovodrun_words(TWO) == words


def test_variables_that_ranks_on_other_nodes_need() -> None:
    names = """MEGDET_NODES NCCL_SOCKET_IFNAME FI_PROVIDER PYTHONPATH COCO_ROOT OMPI_MCA_btl MINE
    SLURM_JOB_ID HOME FINGER OMPI_COMM_WORLD_RANK"""
    environ = dict.fromkeys(names.split(), "x")
    assert passed_on(environ, site=["MINE", "GONE"]) == [
        *("COCO_ROOT", "FI_PROVIDER", "MEGDET_NODES", "MINE"),
        *("NCCL_SOCKET_IFNAME", "OMPI_MCA_btl", "PYTHONPATH"),
    ]


LIST_22 = """MPI plugin types are...
	pmix
	none
	pmi2
specific pmix plugin versions available: pmix_v4
"""


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        (LIST_22, "pmix", "pmix"),
        (LIST_22, "pmi2", "pmi2"),
        ("srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: pmix_v3\n", "pmix", "pmix_v3"),
        ("srun: MPI types are...\nsrun: none\nsrun: pmi2\n", "pmix", None),
        ("", "pmix", None),
    ],
)
def test_the_plugin_of_srun(text: str, wanted: str, found: str | None) -> None:
    assert pmix_of(text, wanted) == found


def test_the_first_launcher_that_serves_is_taken_and_the_others_are_explained() -> None:
    def choose(wanted: str, *problems: str | None) -> tuple[str, list[str]]:
        srun, mpirun, ssh = problems
        return choose_launcher(
            wanted, nodes=2, srun_problem=srun, mpirun_problem=mpirun, ssh_problem=ssh
        )

    assert choose("auto", None, None, None) == ("srun", [])
    notes = ["srun is passed over: no PMIx"]
    assert choose("auto", "no PMIx", None, "no ssh") == ("mpirun", notes)
    assert choose("horovodrun", None, None, None) == ("horovodrun", [])
    with pytest.raises(UserError, match="SITE_LAUNCHER=horovodrun: no ssh; set SITE_LAUNCHER=srun"):
        choose("horovodrun", None, None, "no ssh")
    with pytest.raises(UserError, match="srun: no PMIx; mpirun: not there; horovodrun: no ssh"):
        choose("auto", "no PMIx", "not there", "no ssh")


def test_the_ranks_interpreter() -> None:
    own = "/env/bin/python"
    assert interpreter_of(Site(), own) == [own]
    program = ("apptainer", "exec", "a b.sif")
    assert interpreter_of(Site(container=program), own) == [*program, "python"]
    assert interpreter_of(Site(srun_options=("--container-image=x",)), own) == ["python"]
    assert interpreter_of(Site(srun_options=("--network=x",)), own) == [own]


def test_a_sites_own_options_of_srun_come_last() -> None:
    words = srun_words(TWO, options=("--network=x y", "--mem-bind=local"))
    assert words == [*srun_words(TWO), "--network=x y", "--mem-bind=local"]


def test_starting_may_take_longer_with_more_processes() -> None:
    assert (start_limit_s(8), start_limit_s(128)) == (136, 376)
    assert start_variables(128)["HOROVOD_START_TIMEOUT"] == "376"
