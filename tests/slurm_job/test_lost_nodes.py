"""Whether a job waits for Slurm to find a node down before it is requeued."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from megdet_hvd.slurm_job import lost_nodes, slurm
from megdet_hvd.slurm_job.lost_nodes import limit_s, wait_until_seen

HOSTS = ("n1", "n2")


class Cluster:
    """Slurm's answers, and a clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.problem: str | None = "Task launch failed on node n2: Communication connection failure"
        self.timeout_s = 300.0
        self.down_at_s = float("inf")

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    found = Cluster()
    monkeypatch.setattr(slurm, "silence", lambda nodes: found.problem)
    monkeypatch.setattr(slurm, "node_timeout_s", lambda: found.timeout_s)
    monkeypatch.setattr(slurm, "is_down", lambda hosts: found.now_s >= found.down_at_s)
    clock = SimpleNamespace(monotonic=lambda: found.now_s, sleep=found.sleep)
    monkeypatch.setattr(lost_nodes, "time", clock)
    yield found


def waited(cluster: Cluster, enough: Callable[[], bool] = lambda: False) -> tuple[float, list[str]]:
    said: list[str] = []
    wait_until_seen(HOSTS, said.append, enough=enough)
    return cluster.now_s, said


def test_no_wait_where_all_nodes_answer(cluster: Cluster) -> None:
    cluster.problem = None
    assert waited(cluster) == (0.0, [])


def test_no_wait_where_slurm_never_gives_a_node_up(cluster: Cluster) -> None:
    cluster.timeout_s = 0.0
    assert waited(cluster) == (0.0, [])


def test_slurm_has_its_time_and_no_more(cluster: Cluster) -> None:
    end_s, said = waited(cluster)
    assert limit_s(300) <= end_s < limit_s(300) + 5
    assert len(said) == 1 and "failed on node n2" in said[0] and "300 s" in said[0]


def test_a_node_that_is_down_without_a_requeue_is_not_waited_for_long(cluster: Cluster) -> None:
    cluster.down_at_s = 100.0
    end_s, _ = waited(cluster)
    assert 110 <= end_s < 120


def test_word_from_outside_ends_the_wait(cluster: Cluster) -> None:
    end_s, _ = waited(cluster, enough=lambda: cluster.now_s >= 40)
    assert 40 <= end_s < 45
