"""Whether a job finds enough nodes elsewhere; lines as scontrol of Slurm 22.05 writes them."""

import pytest

from megdet_hvd.slurm_job.node_facts import can_do_without, facts_of, hosts_in, is_away, is_lost

JOB = (
    "JobId=7 JobName=big run UserId=me(1000) JobState=RUNNING Restarts=1 Partition=gpu,long "
    "ReqNodeList=(null) ExcNodeList=n[5-6] NodeList=n[1-2] Comment=a=b c CPUs/Task=8 "
    "TresPerNode=gres:gpu:8"
)


def node(name: str, state: str = "IDLE", partitions: str = "gpu", gres: str = "gpu:8") -> str:
    return (
        f"NodeName={name} Arch=x86_64 CPUTot=64 ActiveFeatures=a100 Gres={gres} "
        f"OS=Linux 6.1 State={state} Partitions={partitions} BootTime=None"
    )


def why_not(*others: str, job: str = JOB, bad: str = "n2") -> str | None:
    nodes = [facts_of(line) for line in (node("n1", "ALLOCATED"), node("n2", "MIXED"), *others)]
    return can_do_without([bad], job=facts_of(job), nodes=nodes, hosts=["n1", "n2"])


def test_facts() -> None:
    facts = facts_of(JOB)
    assert (facts["JobName"], facts["CPUs/Task"], facts["Restarts"]) == ("big run", "8", "1")
    assert hosts_in(facts["ExcNodeList"]) == ["n5", "n6"]
    assert hosts_in(facts["ReqNodeList"]) == []
    assert facts_of(node("n1"))["OS"] == "Linux 6.1"
    assert facts_of("") == {}


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
    [node("n3", partitions="urgent"), node("n3", gres="gpu:4"), node("n5"), "NodeName=n9"],
)
def test_nodes_that_do_not_count(other: str) -> None:
    """In no partition of the job, of another kind, or left out already."""
    assert why_not(other) == "without it 1 node would be left, and the job takes 2"


def test_a_node_that_is_asked_for_by_name_stays() -> None:
    pinned = JOB.replace("ReqNodeList=(null)", "ReqNodeList=n[1-2]")
    assert "asks for n2 by name" in str(why_not(node("n3"), job=pinned))
