"""What a job does once its ranks are gone; Slurm's answers are made up."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.outcome import Outcome
from megdet_hvd.cluster.site import Site
from megdet_hvd.config.load import load_config
from megdet_hvd.slurm_job import after, slurm, successor
from megdet_hvd.slurm_job.after import end_job
from megdet_hvd.slurm_job.job import BatchJob
from megdet_hvd.slurm_job.job_arguments import JobArguments
from megdet_hvd.slurm_job.slurm import NodeProbe

OFF = "Requested operation is presently disabled for job 47"
NODES = [
    {"NodeName": name, "State": "IDLE", "Partitions": "gpu", "Gres": "gpu:8"}
    for name in ("n1", "n2", "n3")
]
FACTS = {"JobState": "RUNNING", "Partition": "gpu", "JobName": "big", "ExcNodeList": "n9"}


class Cluster:
    """Slurm, and what it was asked to do."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.facts = dict(FACTS)
        self.nodes = list(NODES)
        self.refusal: str | None = None
        self.queue = ""
        self.said = {"n1": "gpus 8", "n2": "gpus 8"}
        self.excluded: list[str] = []
        self.submitted: list[str] = []
        patch.setattr(slurm, "job_facts", lambda job: self.facts)
        patch.setattr(slurm, "node_facts", lambda hosts=(): self.nodes)
        self.requeued: list[str] = []
        patch.setattr(slurm, "requeue", self._requeue)
        patch.setattr(slurm, "own_queue", lambda form: self.queue)
        patch.setattr(slurm, "probe_nodes", lambda *given: NodeProbe(said=self.said))
        patch.setattr(slurm, "exclude", lambda job, nodes: self.excluded.extend(nodes))
        patch.setattr(slurm, "own_log", lambda: "/logs/big-47.log")
        patch.setattr(successor, "submit", self._submit)
        patch.setattr(after, "_REQUEUED_S", 0)

    def _requeue(self, job: str) -> str | None:
        self.requeued.append(job)
        return self.refusal

    def _submit(
        self, words: list[str], environ: Any, folder: Path, member: int | None
    ) -> tuple[int | None, str]:
        self.submitted, self.member = words, member
        return 50, ""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    before = signal.getsignal(signal.SIGTERM)
    yield Cluster(monkeypatch)
    signal.signal(signal.SIGTERM, before)


def job(folder: Path, array: int | None = None) -> BatchJob:
    member = None if array is None else 2
    allocation = Allocation(47, "big", 0, ("n1", "n2"), 8, 8, array, member)
    config = load_config(None, ["data.kind=scenes", "seed=5"])
    return BatchJob(allocation, Site(), JobArguments("megdet_hvd.train", (), folder, config))


def ended(
    folder: Path, code: int, note: str = "", array: int | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """The job's exit code, and its record."""
    if note:
        (folder / f"note.{note}").touch()
    found = end_job(job(folder, array), Outcome(code, "so"), code, (folder,), -1)
    lines = (folder / "jobs.jsonl").read_text().splitlines()
    return found, [json.loads(line) for line in lines]


def test_another_job_follows_where_none_is_requeued(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.refusal = OFF
    code, records = ended(tmp_path, 5, "USR1")
    assert code == 5
    assert [record["event"] for record in records] == ["end", "successor"]
    assert records[0]["requeued"] and records[1]["successor"] == 50
    assert {"--dependency=afterany:47", "--job-name=big", "--exclude=n9"} < set(cluster.submitted)
    assert "job 50 follows it, and carries on" in capsys.readouterr().out


def test_a_member_of_an_array_is_requeued_without_the_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The last one's own number is the whole array's."""
    _, (record, _) = ended(tmp_path, 5, "USR1", array=47)
    assert cluster.requeued == ["47_2"]
    assert (record["job"], record["slurm_id"], record["requeued"]) == (47, "47_2", True)
    cluster.refusal = OFF
    ended(tmp_path, 5, "USR1", array=47)
    assert "--dependency=afterany:47_2" in cluster.submitted and cluster.member == 2


def test_a_chain_of_the_users_goes_on(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.refusal, cluster.queue = OFF, "49|afterany:47(unfulfilled)|big\n"
    ended(tmp_path, 5, "USR1")
    assert cluster.submitted == []
    assert "job 49 follows it" in capsys.readouterr().out


def test_a_bad_node_is_left_out(cluster: Cluster, tmp_path: Path) -> None:
    cluster.said["n2"] = "gpus 7"
    assert ended(tmp_path, 4)[1][0]["failure"]
    assert cluster.excluded == ["n2"]
    cluster.refusal = OFF
    ended(tmp_path, 4)
    assert "--exclude=n9,n2" in cluster.submitted


def test_a_node_that_the_job_can_not_do_without_stays(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.said["n2"] = "gpus 7"
    del cluster.nodes[2]
    ended(tmp_path, 4)
    assert cluster.excluded == []
    said = capsys.readouterr().out
    assert (
        "n2 is bad (it shows 7 of 8 GPUs), and can't be left out: without it 1 node would" in said
    )


def test_no_node_is_left_out_where_all_are_well_or_nothing_failed(
    cluster: Cluster, tmp_path: Path
) -> None:
    ended(tmp_path, 4)
    cluster.said["n2"] = "gpus 7"
    ended(tmp_path, 5, "USR1")  # told to stop: no node is to blame
    assert cluster.excluded == []


@pytest.mark.parametrize(
    ("facts", "again"),
    [
        ({"JobState": "PENDING"}, True),
        ({"JobState": "COMPLETING", "Restarts": "1"}, True),
        ({"JobState": "COMPLETING", "Restarts": "0"}, False),
        ({"JobState": "CANCELLED", "Restarts": "0"}, False),
    ],
)
def test_words_for_a_requeue_of_slurms_own(
    facts: dict[str, str], again: bool, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.facts = facts
    _, (record,) = ended(tmp_path, 5, "TERM")
    assert record["reason"].startswith(
        "Slurm has requeued the job itself" if again else "not requeued by itself: Slurm ends"
    )
    assert not record["requeued"]


def test_a_run_whose_folder_was_moved_can_be_resumed(cluster: Cluster, tmp_path: Path) -> None:
    """The ranks went on under the old name, where there is no configuration any more."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "iteration_00000004.pt").touch()
    ended(tmp_path, 0)
    assert load_config(tmp_path / "config.yaml").seed == 5
    (tmp_path / "config.yaml").write_text("seed: 6\n")
    ended(tmp_path, 0)
    assert (tmp_path / "config.yaml").read_text() == "seed: 6\n"
