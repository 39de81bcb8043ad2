"""The job that follows one which Slurm does not requeue; facts as scontrol writes them."""

from pathlib import Path

import pytest

from megdet_hvd.cluster.sbatch_options import read_options
from megdet_hvd.slurm_job.record import failures_of, idle_starts_of
from megdet_hvd.slurm_job.successor import environ_of, follower, options, train_words

FACTS = {
    "JobName": "megdet_16gpu", "Partition": "gpu", "Account": "(null)", "QOS": "long",
    "TimeLimit": "1-00:00:00", "Features": "a100", "ExcNodeList": "n[5-6]", "ReqNodeList": "(null)",
    "CPUs/Task": "8", "TresPerNode": "gres:gpu:a100:8", "MinMemoryNode": "0", "OverSubscribe": "NO",
    "Licenses": "turn:1", "Dependency": "singleton(fulfilled)",
}  # fmt: skip


def test_it_has_the_first_ones_options() -> None:
    words = options(FACTS, job=47, tasks_per_node=8, nodes=2, log="/a b/47/megdet_16gpu-47.log")
    found, rest = read_options(words, "here")
    assert rest == []
    assert found == {
        "dependency": "afterany:47", "no-requeue": "", "open-mode": "append",
        "job-name": "megdet_16gpu", "partition": "gpu", "qos": "long", "time": "1-00:00:00",
        "constraint": "a100", "exclude": "n[5-6]", "licenses": "turn:1", "nodes": "2",
        "ntasks-per-node": "8", "cpus-per-task": "8", "gpus-per-node": "a100:8", "exclusive": "",
        "output": "/a b/47/megdet_16gpu-%j.log",
    }  # fmt: skip


def test_memory_sharing_and_a_log_without_a_number() -> None:
    facts = {"MinMemoryNode": "400G", "OverSubscribe": "YES", "TresPerNode": "gres/gpu:4"}
    words = options(facts, job=4, tasks_per_node=1, nodes=1, log="/x/run-47.log")
    assert {"--mem=400G", "--oversubscribe", "--gpus-per-node=4"} < set(words)
    assert not [word for word in words if word.startswith("--output")], "its own, as before"
    assert "--mem-per-cpu=4G" in options(
        {"MinMemoryCPU": "4G"}, job=4, tasks_per_node=1, nodes=1, log=None
    )


def test_the_jobs_name_stays_where_its_number_is_in_it() -> None:
    for name, log, new in (
        ("megdet_16gpu", "megdet_16gpu-16.log", "megdet_16gpu-%j.log"),
        ("megdet_16gpu", "16-megdet_16gpu.log", "%j-megdet_16gpu.log"),
        ("a 16% b", "a 16% b 16.log", "a 16%% b %j.log"),
        ("", "50%-16.log", "50%%-%j.log"),
    ):
        facts = {**FACTS, "JobName": name}
        words = options(facts, job=16, tasks_per_node=8, nodes=2, log=f"/x/{log}")
        assert words[-1] == f"--output=/x/{new}"
    words = options(FACTS, job=16, tasks_per_node=8, nodes=2, log="/x/megdet_16gpu.log")
    assert not [word for word in words if word.startswith("--output")]


def test_a_member_of_an_array_is_followed_by_a_plain_job() -> None:
    facts = {**FACTS, "JobId": "49", "ArrayJobId": "47", "ArrayTaskId": "2"}
    for log in ("/x/run-47_2.log", "/x/run-49.log"):
        words = options(facts, job="47_2", tasks_per_node=8, nodes=2, log=log)
        assert words[0] == "--dependency=afterany:47_2"
        assert words[-1] == "--output=/x/run-%j.log"
        assert not [word for word in words if word.startswith("--array")]


def test_the_run_is_named_unless_the_user_has_named_one(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    given = ["name=a b", "seed=1"]
    assert train_words(given, run) == [*given, "--run", str(run)]
    along = ["--evaluators", "8"]
    assert train_words(along, run)[:2] == along, "a pipeline goes on as one"
    for named in (["--run=x"], ["--resume", "x", "seed=2"]):
        assert train_words(named, run) == named


def test_it_begins_with_the_first_ones_variables() -> None:
    text = b"HOME=/h\0SLURM_JOB_ID=4\0SLURM_CONF=/c\0X=a=b\nc\0SBATCH_QOS=q\0\xff=\xfe\0"
    assert environ_of(text) == {
        "HOME": "/h", "SLURM_CONF": "/c", "X": "a=b\nc", "SBATCH_QOS": "q", "\udcff": "\udcfe",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "follows"),
    [
        ("50|afterany:47(unfulfilled)|big", 50),
        ("50|singleton(unfulfilled)|big", 50),
        ("50|afterok:12(unfulfilled),afterany:9:47+5(unfulfilled)|big", 50),
        ("50|afterany:470(unfulfilled)|big", None),
        ("50|afterany:47(unfulfilled)|mail me", None),
        ("50|(null)|big", None),
        ("47|singleton|big", None),
        ("", None),
    ],
)
def test_a_chain_goes_on_by_itself(line: str, follows: int | None) -> None:
    assert follower(f"{line}\n", job=47, name="big") == follows


def test_failures_are_counted_over_all_that_follow_each_other() -> None:
    def end(job: int, failure: bool) -> dict[str, object]:
        return {"event": "end", "job": job, "requeued": True, "failure": failure}

    def follows(job: int, successor: int) -> dict[str, object]:
        return {"event": "successor", "job": job, "successor": successor}

    records = [
        end(1, True), follows(1, 5), end(9, True), end(5, True), follows(5, 6), end(6, False),
    ]  # fmt: skip
    assert [failures_of(records, job) for job in (1, 5, 6, 9)] == [1, 2, 2, 1]
    assert [idle_starts_of(records, job) for job in (5, 6)] == [0, 1]
