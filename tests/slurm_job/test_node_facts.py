"""Whether a job finds enough nodes elsewhere; facts as scontrol of Slurm 22.05 writes them."""

import pytest

from megdet_hvd.slurm_job.node_facts import can_do_without, hosts_in, is_away, is_lost

JOB = {"Partition": "gpu,long", "ReqNodeList": "(null)", "ExcNodeList": "n[5-6]"}


def node(
    name: str, state: str = "IDLE", partitions: str = "gpu", gres: str = "gpu:8"
) -> dict[str, str]:
    own = {"NodeName": name, "State": state, "Partitions": partitions}
    return {**own, "CPUTot": "64", "ActiveFeatures": "a100", "Gres": gres}


def why_not(*others: dict[str, str], job: dict[str, str] = JOB, bad: str = "n2") -> str | None:
    nodes = [node("n1", "ALLOCATED"), node("n2", "MIXED"), *others]
    return can_do_without([bad], job=job, nodes=nodes, hosts=["n1", "n2"])


def test_lists_of_nodes() -> None:
    assert hosts_in("n[5-6]") == ["n5", "n6"]
    assert hosts_in("(null)") == hosts_in("") == []


@pytest.mark.parametrize(
    "state", ["DOWN*", "IDLE*", "IDLE+DRAIN", "MIXED+DRAINING", "DOWN", "FAIL"]
)
def test_nodes_that_take_no_job(state: str) -> None:
    assert is_away(state)
    assert "the job takes 2" in str(why_not(node("n3", state)))


@pytest.mark.parametrize(
    ("state", "lost", "away"),
    [
        ("DOWN*", True, True),
        ("ALLOCATED*", True, True),
        ("MIXED+NOT_RESPONDING", True, True),
        ("DOWN+DRAIN", True, True),
        ("MIXED+DRAIN", False, True),
        ("IDLE+POWERED_DOWN", False, False),
        ("IDLE~", False, False),
        ("ALLOCATED", False, False),
        ("", False, False),
    ],
)
def test_states(state: str, lost: bool, away: bool) -> None:
    assert (is_lost(state), is_away(state)) == (lost, away)


def test_one_more_of_the_kind_is_enough() -> None:
    assert not is_away("ALLOCATED")
    assert why_not(node("n3")) is None
    assert why_not(node("n3", "ALLOCATED", "urgent,long")) is None


@pytest.mark.parametrize(
    "other",
    [node("n3", partitions="urgent"), node("n3", gres="gpu:4"), node("n5"), {"NodeName": "n9"}],
)
def test_nodes_that_do_not_count(other: dict[str, str]) -> None:
    """In no partition of the job, of another kind, or left out already."""
    assert why_not(other) == "without it 1 node would be left, and the job takes 2"


def test_a_node_that_is_asked_for_by_name_stays() -> None:
    pinned = {**JOB, "ReqNodeList": "n[1-2]"}
    assert "asks for n2 by name" in str(why_not(node("n3"), job=pinned))
