"""What modules, conda and other launchers leave in an environment."""

import pytest

from megdet_hvd.slurm_job.presets import identity, named, shown, suspects

STRAYS = """HOROVOD_RANK HOROVOD_SIZE HOROVOD_LOCAL_RANK HOROVOD_CROSS_SIZE HOROVOD_CONTROLLER
HOROVOD_GLOO_RENDEZVOUS_ADDR HOROVOD_HOSTNAME OMPI_COMM_WORLD_SIZE OMPI_UNIVERSE_SIZE
OMPI_MCA_orte_hnp_uri OMPI_MCA_ess_base_vpid PMIX_RANK PMIX_SERVER_URI2 PMIX_NAMESPACE PMI_RANK
PMI_SIZE MPI_LOCALRANKID MPI_LOCALNRANKS"""
CHOSEN = """OMPI_MCA_pml OMPI_MCA_btl_tcp_if_include PMIX_MCA_psec HOROVOD_FUSION_THRESHOLD
HOROVOD_GLOO_IFACE NCCL_SOCKET_IFNAME UCX_TLS FI_PROVIDER LD_PRELOAD PYTHONWARNINGS"""


@pytest.mark.parametrize("name", STRAYS.split())
def test_another_jobs_rank(name: str) -> None:
    assert identity({name: "1"}, ()) == [name]
    assert identity({name: "1"}, {name}) == [], "the site file asks for it"
    assert named({name: "1"}, ()) == {}


@pytest.mark.parametrize("name", CHOSEN.split())
def test_what_is_named_and_stays(name: str) -> None:
    assert identity({name: "1"}, ()) == []
    assert named({name: "1"}, ()) == {name: "1"}
    assert named({name: "1"}, {name}) == {}


def test_the_rest_is_nobodys_matter() -> None:
    plain = dict.fromkeys(
        [
            "PATH",
            "HOME",
            "PMI_NO_FORK",
            "OMPI_MCA_mpi_yield_when_idle",
            "PYTHONPATH",
            "SLURM_JOB_ID",
        ],
        "1",
    )
    assert identity(plain, ()) == [] and named(plain, ()) == {} and suspects(plain) == []


def test_what_mpi_is_tried_without() -> None:
    choice, network = {"OMPI_MCA_pml": "ucx"}, {"OMPI_MCA_btl_tcp_if_include": "ib9"}
    assert suspects(choice) == [("OMPI_MCA_pml",)]
    assert suspects(network) == [("OMPI_MCA_btl_tcp_if_include",)]
    assert suspects({**network, **choice, "X": "1"}) == [
        ("OMPI_MCA_pml",),
        ("OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_pml"),
    ]


def test_long_values_are_cut() -> None:
    text = shown({"A": "x" * 500, "B": "2"}, ["B", "A"])
    assert text.endswith("..., B=2") and len(text) == 100 + len(", B=2")
