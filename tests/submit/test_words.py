"""What submit says, from literal text: refusals, the queue, metrics, attempts."""

from pathlib import Path

import pytest

from megdet_hvd.cluster.site import Site
from megdet_hvd.cluster.template import Template
from megdet_hvd.submit.job import make_job, quoted, whole_paths
from megdet_hvd.submit.queue import exit_words, parse_queue, queue_words
from megdet_hvd.submit.refusals import explained
from megdet_hvd.submit.standing import attempts, progress

TEMPLATE = Template(
    {"job-name": "big", "nodes": "16", "output": "%x-%j.log"}, ("--config", "c", "$@")
)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("Invalid account or account/partition combination specified", "SITE_ACCOUNT"),
        ("invalid partition specified: gpu", "SITE_PARTITION"),
        ("Invalid qos specification", "SITE_QOS"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "shorter --time"),
        ("Node count specification invalid", "fewer --nodes"),
        ("Invalid generic resource (gres) specification", "sinfo -o '%P %G'"),
        ("Requested node configuration is not available", "has not as many nodes"),
    ],
)
def test_refusals_come_with_a_remedy(message: str, hint: str) -> None:
    text = explained(f"sbatch: error: Batch job submission failed\nallocation failure: {message}\n")
    first, second = text.splitlines()
    assert message in first and "sbatch:" not in first
    assert hint in second.partition("to do:")[2]


def test_an_unknown_refusal_stands_as_it_is() -> None:
    assert explained("sbatch: error: The moon is full\n") == "The moon is full"


def test_who_wins() -> None:
    site = Site(partition="gpu", account="a b", sbatch_options=("--time=1", "-C", "x y"))
    job = make_job(TEMPLATE, Path("/p q/t.sbatch"), site, {"time": "2"}, ["name=x y"], {})
    words = ["--partition=gpu", "--account=a b", "--time=2", "--constraint=x y"]
    assert job.sbatch("--parsable") == [
        "sbatch", "--parsable", *words, "/p q/t.sbatch", "name=x y",
    ]  # fmt: skip
    assert job.all_options["nodes"] == "16"
    assert job.train_words == ("--config", "c", "name=x y")
    assert job.log("7") == "big-7.log"
    assert "'/p q/t.sbatch' 'name=x y'" in quoted(job.sbatch())
    named = make_job(
        TEMPLATE, Path("/t"), Site(), {"job-name": "mine"}, [], {"SBATCH_JOB_NAME": "e"}
    )
    assert named.log() == "mine-JOBID.log"


def test_paths_of_the_user_become_whole(tmp_path: Path) -> None:
    (tmp_path / "my run").mkdir()
    (tmp_path / "c.yaml").touch()
    words = ["--resume", "my run", "--config=c.yaml", "name=c.yaml", "--config", "configs/x.yaml"]
    assert whole_paths(words, tmp_path, Path("/project")) == [
        "--resume", f"{tmp_path}/my run", f"--config={tmp_path}/c.yaml", "name=c.yaml",
        "--config", "configs/x.yaml",
    ]  # fmt: skip
    assert whole_paths(words, tmp_path, tmp_path) == words


def test_the_queue() -> None:
    waits = parse_queue("PENDING|Priority|2026-03-01T10:00:00|12:00:00|16||big|/p q\n")
    assert waits is not None and waits.folder == "/p q"
    assert queue_words("7", waits) == [
        "job 7 waits: Priority (jobs with a higher priority come first)",
        "expected to start: 2026-03-01T10:00:00",
    ]
    runs = parse_queue("RUNNING|None|2026-03-01T10:00:00|1:00|2|n[1-2]|big|/p\n")
    assert runs is not None
    assert queue_words("7", runs) == [
        "job 7 is running on 2 nodes (n[1-2]), since 2026-03-01T10:00:00, 1:00 of its time left"
    ]
    assert parse_queue("slurm_load_jobs error: Invalid job id specified\n") is None


def test_progress() -> None:
    train = [{"iteration": 20, "loss": 1.5, "epoch": 0.5, "images_per_s": 100.0, "step_s": 2.0}]
    scores = [{"iteration": 10, "AP": 0.3}, {"iteration": 20, "AP": 0.25}]
    assert progress(train, scores, 5060) == [
        "iteration 20 of 5060 (0.4 %), 2 h 48 min of training left at this speed",
        "loss 1.500, 100.0 images/s",
        "mmAP 0.250 at iteration 20, best 0.300 at 10",
    ]
    assert progress(train, [{"iteration": 10, "AP": None}], 20)[0].endswith("(100.0 %), done")
    assert progress(train, [], None)[0] == "iteration 20, epoch 0.50"
    assert progress(train, [], 19)[0] == "iteration 20, epoch 0.50"  # the end has been moved
    assert progress([], [], None) == [
        "no metrics yet: not started, or still before its first lines"
    ]


def test_attempts() -> None:
    start = {"event": "start", "job": 7, "nodes": ["n1", "n2"], "tasks_per_node": 8, "time": 0}
    start |= {"log": "/p q/big-7.log"}
    outcome = {"code": 5, "message": "stopped on request", "iteration": 40}
    lines = attempts(
        [
            {**start, "restart": 0},
            {"event": "launch", "job": 7, "restart": 0, "launcher": "srun"},
            {"event": "end", "job": 7, "restart": 0, "outcome": outcome, "requeued": True},
            {**start, "restart": 1},
        ]
    )
    assert lines[0].startswith("attempt: job 7, 2 nodes × 8 by srun, 19")
    assert lines[0].endswith(": code 5, stopped on request (iteration 40); requeued")
    assert lines[1].startswith("attempt: job 7 restart 1, 2 nodes × 8, 19")
    assert lines[1].endswith(": no end noted (running, or killed)")
    assert lines[2] == "log: /p q/big-7.log"
    assert attempts([{**start, "evaluators": 8}])[0].startswith(
        "attempt: job 7, 2 nodes × 8, of which 8 evaluate, 19"
    )
    killed = [start, {"event": "end", "job": 7, "outcome": None, "reason": "killed"}]
    assert attempts(killed)[0].endswith(": killed")
    assert attempts([start] * 7)[0] == "7 attempts; the last 5:"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("0:0", "exit code 0"),
        ("5:0", "exit code 5"),
        ("?", "exit code ?"),
        ("0:9", "ended by SIGKILL"),
        ("1:15", "ended by SIGTERM, exit code 1"),
        ("0:125", "ended by signal 125"),
        ("0:53", "not started: Slurm could not open its log or run its script"),
    ],
)
def test_exit_codes_with_signals(code: str, words: str) -> None:
    assert exit_words(code).startswith(words)


def test_patterns_of_a_log() -> None:
    job = make_job(TEMPLATE, Path("/t"), Site(), {"output": "%u/%5j-%%j-%x-%N.log"}, [], {})
    assert job.log("7") == "%u/00007-%j-big-%N.log"
    assert job.expanded("a\\%j", "7") == "a%j"
