"""Before a requeue: whether a lost node is waited for, and which node is left out."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from megdet_hvd.slurm_job import lost_nodes, slurm
from megdet_hvd.slurm_job.lost_nodes import blamed, find_bad, hears_s, limit_s
from megdet_hvd.slurm_job.slurm import NodeProbe

HOSTS = ("n1", "n2")
WELL = NodeProbe(said={"n1": "gpus 8", "n2": "gpus 8"})
SILENT = NodeProbe("Task launch failed on node n2: Communication connection failure", ("n2",))


class Cluster:
    """Slurm's answers, and a clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.probe = SILENT
        self.timeout_s = 300.0
        self.down_at_s = float("inf")
        self.not_heard_at_s = 100.0
        self.said: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    found = Cluster()
    monkeypatch.setattr(slurm, "node_timeout_s", lambda: found.timeout_s)
    monkeypatch.setattr(slurm, "is_down", lambda hosts: found.now_s >= found.down_at_s)
    monkeypatch.setattr(
        slurm, "not_heard", lambda hosts: ["n2"] * (found.now_s >= found.not_heard_at_s)
    )
    clock = SimpleNamespace(monotonic=lambda: found.now_s, sleep=found.sleep)
    monkeypatch.setattr(lost_nodes, "time", clock)
    yield found


def found_bad(cluster: Cluster, enough: Callable[[], bool] = lambda: False) -> dict[str, str]:
    return find_bad(HOSTS, lambda: cluster.probe, cluster.said.append, enough=enough)


def test_no_wait_where_all_nodes_answer(cluster: Cluster) -> None:
    cluster.probe = WELL
    assert found_bad(cluster) == {}
    assert (cluster.now_s, cluster.said) == (0.0, [])


def test_a_step_that_slurm_refuses_is_no_sign_of_a_lost_node(cluster: Cluster) -> None:
    """As ``--gres=none`` beside SLURM_GPUS_PER_NODE once was, at each requeue after a failure."""
    refused = "Unable to create step for job 166: Invalid Trackable RESource (TRES) specification"
    cluster.probe = NodeProbe(unclear=refused)
    cluster.not_heard_at_s = float("inf")
    assert found_bad(cluster) == {}
    assert (cluster.now_s, cluster.said) == (0.0, [f"the nodes could not be tried ({refused})"])
    cluster.not_heard_at_s = 0.0  # but the controller misses one
    assert found_bad(cluster) == {}
    assert cluster.now_s >= limit_s(300)
    assert "a node does not answer (Slurm does not hear n2)" in cluster.said[-1]


def test_no_wait_where_slurm_never_gives_a_node_up(cluster: Cluster) -> None:
    cluster.timeout_s = 0.0
    assert found_bad(cluster) == {"n2": f"it does not answer ({SILENT.silent})"}
    assert (cluster.now_s, cluster.said) == (0.0, [])


def test_slurm_has_its_time_and_no_more(cluster: Cluster) -> None:
    assert found_bad(cluster) == {}, "Slurm knows of it, and gives it to no job"
    assert limit_s(300) <= cluster.now_s < limit_s(300) + 5
    (said,) = cluster.said
    assert "failed on node n2" in said and "300 s" in said


def test_a_node_that_slurm_hears_and_the_job_does_not_is_left_out(cluster: Cluster) -> None:
    """A cut between two nodes: Slurm would give the job the same two again."""
    cluster.not_heard_at_s = float("inf")
    assert found_bad(cluster) == {"n2": f"it does not answer ({SILENT.silent})"}
    assert hears_s(300) <= cluster.now_s < hears_s(300) + 5 < limit_s(300)
    assert cluster.said[-1] == "Slurm itself hears all nodes of the job, so it will not act"


def test_a_node_that_is_down_without_a_requeue_is_not_waited_for_long(cluster: Cluster) -> None:
    cluster.down_at_s = 100.0
    assert found_bad(cluster) == {}
    assert 110 <= cluster.now_s < 120


def test_word_from_outside_ends_the_wait(cluster: Cluster) -> None:
    found_bad(cluster, enough=lambda: cluster.now_s >= 40)
    assert 40 <= cluster.now_s < 45


def test_a_broken_node_is_found_without_a_wait(cluster: Cluster) -> None:
    cluster.probe = NodeProbe(said={"n1": "gpus 8", "n2": "gpus 7"})
    assert found_bad(cluster) == {"n2": "it shows 7 of 8 GPUs"}
    assert (cluster.now_s, cluster.said) == (0.0, [])


@pytest.mark.parametrize(
    ("hosts", "probe", "who"),
    [
        (("n1", "n2"), NodeProbe("x", ("n2",)), ["n2"]),
        (("n1", "n2", "n3"), NodeProbe("x", ("n3",)), ["n3"]),
        # none of several others answers the first one: it is the one that is cut off
        (("n1", "n2", "n3"), NodeProbe("x", ("n2", "n3")), ["n1"]),
        (("n1", "n2", "n3"), NodeProbe("late", said={"n1": "gpus 8", "n2": "gpus 8"}), ["n3"]),
        (("n1", "n2", "n3"), NodeProbe("late"), []),
        (("n1", "n2"), NodeProbe("x", ("n7",)), []),
    ],
)
def test_who_is_silent(hosts: tuple[str, ...], probe: NodeProbe, who: list[str]) -> None:
    assert blamed(hosts, probe) == who
