"""``python -m megdet_hvd.submit`` as a program; Slurm's programs are scripts of ours here.

A real Slurm's answers are tests/slurm's matter.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.init import lay_out
from megdet_hvd.submit.__main__ import main
from megdet_hvd.submit.check import job_environment

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = str(ROOT / "slurm" / "megdet_16gpu.sbatch")

FAKE = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    call = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    json.dump([call, os.getcwd(), os.environ.get("MEGDET_ROOT")], file)
    file.write("\\n")
answers = json.loads(os.environ["ANSWERS"])
for key, (code, text) in answers.items():
    if all(word in call for word in key.split()):
        print(text, file=sys.stderr if code else sys.stdout)
        sys.exit(code)
sys.exit("not expected: " + " ".join(call))
"""
ANSWERS: dict[str, tuple[int, str]] = {
    "sbatch --test-only": (0, "sbatch: Job 12 to start at 2026-03-01T10:00:00 on nodes n[1-2]"),
    "sbatch --parsable": (0, "4711;cluster"),
    "srun --mpi=list": (0, "MPI plugin types are...\n\tnone\n\tpmix\nspecific pmix plugin"),
}


class Desk:
    """A login node: fake programs, data, a finished environment, a site file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / 'a desk, with "odd" name\'s'
        self.programs = self.folder / "bin"
        self.programs.mkdir(parents=True)
        for name in ("sbatch", "squeue", "scontrol", "sacct", "srun"):
            (self.programs / name).write_text(FAKE.format(python=sys.executable))
            (self.programs / name).chmod(0o755)
        self.data = self.folder / "coco"
        for name in ("train2017", "val2017", "annotations"):
            (self.data / name).mkdir(parents=True)
        pictures = [{"file_name": f"{n}.jpg", "id": n} for n in range(3200)]
        for name in ("train", "val"):
            file = self.data / "annotations" / f"instances_{name}2017.json"
            file.write_text(json.dumps({"images": pictures}))
        self.venv = self.folder / "env"
        self.venv.mkdir()
        (self.venv / "megdet_hvd.json").write_text('{"state": "ready", "holds": "torch 9"}')
        self.calls = self.folder / "calls"
        self.site('SITE_PARTITION=gpu\nSITE_ACCOUNT=vision\nSITE_DATA_ROOT="$DATA"\n')

    def site(self, text: str) -> None:
        (self.folder / "site.sh").write_text(text)

    def run(
        self, *words: str, answers: dict[str, tuple[int, str]] | None = None, path: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        environ = {
            **os.environ,
            "PATH": path or f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CALLS": str(self.calls),
            "ANSWERS": json.dumps(ANSWERS if answers is None else answers),
            "DATA": str(self.data),
            "MEGDET_SITE": str(self.folder / "site.sh"),
            "MEGDET_VENV": str(self.venv),
        }
        environ.pop("COCO_ROOT", None)
        return subprocess.run(
            [sys.executable, "-m", "megdet_hvd.submit", *words],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def called(self, *words: str) -> list[Any]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [call for call in map(json.loads, lines) if set(words) <= set(call[0])]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_check_shows_what_would_run_and_submits_nothing(desk: Desk) -> None:
    done = desk.run("--check", "--nodes=4", TEMPLATE, "learning.policy=long", "name=a b")
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        f"would run: env MEGDET_ROOT={ROOT} sbatch --partition=gpu --account=vision --nodes=4 "
        f"{TEMPLATE} learning.policy=long 'name=a b'",
        "job log: megdet_16gpu-JOBID.log",
        f"environment: {desk.venv} (torch 9)",
        f"run folder: {ROOT}/runs/a b",
        "4 nodes × 8 processes × 1 image",
        "learning rate 0.02 × 32/16 = 0.04 (linear scaling, §3.2)",
        "iterations per epoch 3200/32 = 100.00",
        "BN statistics over 8 ranks × 1 image = 8 images",
        "launcher: srun --mpi=pmix",
        "Slurm accepts it: Job 12 to start at",
    ):
        assert line in done.stdout
    (asked,) = desk.called("sbatch")
    assert asked[0][1:] == [
        "--test-only", "--partition=gpu", "--account=vision", "--nodes=4", TEMPLATE,
        "learning.policy=long", "name=a b",
    ]  # fmt: skip


def test_submit_from_any_folder(desk: Desk) -> None:
    (desk.folder / "own.yaml").write_text("global_batch: 32\n")
    done = desk.run(TEMPLATE, "--config", "own.yaml", "output=/some where")
    assert done.returncode == 0, done.stdout + done.stderr
    (call,) = desk.called("sbatch", "--parsable")
    assert call[0][-4:] == [TEMPLATE, "--config", f"{desk.folder}/own.yaml", "output=/some where"]
    assert call[1:] == [str(ROOT), str(ROOT)]
    assert "submitted: job 4711" in done.stdout
    assert f"log: {ROOT}/megdet_16gpu-4711.log" in done.stdout
    assert "run folder: /some where/megdet_16gpu-4711" in done.stdout
    assert "scancel 4711" in done.stdout


def test_all_problems_at_once(desk: Desk) -> None:
    desk.site(
        'SITE_PARTITION=gpu\nSITE_DATA_ROOT="$DATA"\nSITE_LAUNCHER=srun\nSITE_SRUN_MPI=pmi9\n'
    )
    (desk.venv / "megdet_hvd.json").unlink()
    (desk.data / "annotations" / "instances_val2017.json").unlink()
    refused = {
        **ANSWERS,
        "sbatch --test-only": (1, "allocation failure: Invalid qos specification"),
    }
    done = desk.run("--check", "--nodes=3", TEMPLATE, answers=refused)
    assert done.returncode == 2
    found = [line for line in done.stdout.splitlines() if line.startswith("PROBLEM: ")]
    for line, said in zip(
        found,
        (
            "is no finished environment: make setup",
            "data.val.0.annotations=${COCO_ROOT}/annotations/instances_val2017.json: no such file",
            "global_batch=32 does not divide over 24 processes",
            "SITE_LAUNCHER=srun: srun --mpi=list has no pmi9",
            "Slurm refuses the job: allocation failure: Invalid qos specification",
        ),
        strict=True,
    ):
        assert said in line
    assert "5 problems; nothing was submitted" in done.stdout
    assert desk.run("--nodes=3", TEMPLATE, answers=refused).returncode == 2
    assert not desk.called("sbatch", "--parsable")


def test_options_of_srun_are_shown_and_looked_up(desk: Desk) -> None:
    image = desk.folder.parent / "x y.sqsh"
    desk.site(
        'SITE_DATA_ROOT="$DATA"\n'
        f"SITE_SRUN_OPTIONS=\"--container-image='{image}' --network=sn_all\"\n"
    )
    answers = {**ANSWERS, "srun --help": (0, "  --network=type  (config specific)")}
    done = desk.run("--check", TEMPLATE, answers=answers)
    assert done.returncode == 2
    assert f"PROBLEM: SITE_SRUN_OPTIONS: --container-image={image}: no such file" in done.stdout
    assert "note: SITE_SRUN_OPTIONS: srun --help lists no --container-image here" in done.stdout
    assert "lists no --network" not in done.stdout
    assert f"options of srun: '--container-image={image}' --network=sn_all" in done.stdout
    image.touch()
    done = desk.run("--check", TEMPLATE, answers=answers)
    assert done.returncode == 0, done.stdout
    assert "environment: the container of SITE_SRUN_OPTIONS" in done.stdout
    assert "launcher: srun --mpi=pmix\n" in done.stdout, "no other takes them"
    desk.site("SITE_SRUN_OPTIONS='--ntasks=3'\n")
    done = desk.run("--check", TEMPLATE)
    assert "SITE_SRUN_OPTIONS: --ntasks can't be set there: it follows from the job" in done.stdout


def test_what_would_make_another_job_of_it(desk: Desk) -> None:
    done = desk.run("--check", "--array=0-3", "--export=NONE", TEMPLATE)
    assert done.returncode == 2
    assert "PROBLEM: --array=0-3: the jobs would all be one and the same run" in done.stdout
    assert "PROBLEM: --export=NONE keeps MEGDET_SITE, MEGDET_VENV from the job" in done.stdout
    passed = desk.run("--check", "--export=ALL,X=1", TEMPLATE)
    assert passed.returncode == 0, passed.stdout


def test_network_cards_are_counted(desk: Desk) -> None:
    desk.site('SITE_DATA_ROOT="$DATA"\nSITE_NETWORK_CARDS="mlx5_0 mlx5_1"\n')
    done = desk.run("--check", TEMPLATE)
    assert "PROBLEM: SITE_NETWORK_CARDS names 2 cards for 8 processes" in done.stdout
    assert desk.run("--check", "--ntasks-per-node=2", "--nodes=8", TEMPLATE).returncode == 0


def test_an_array_of_settings(desk: Desk) -> None:
    array = ("--array=seed=0,1", "--array", "learning.policy=normal,long%3")
    done = desk.run("--check", *array, "--qos=low", TEMPLATE, "name=auto")
    assert done.returncode == 0, done.stdout
    for line in (
        "4 jobs, as members of one array (sbatch --array=0-3%3)",
        f"member 2 (seed=1 learning.policy=normal): run folder: {ROOT}/runs/megdet_16gpu-JOBID_2",
        "global batch 32 = 16 processes × 2 images × 1 pass",
        "job log: megdet_16gpu-JOBID_%a.log",
    ):
        assert line in done.stdout, done.stdout
    assert done.stdout.count("global batch 32") == 1, "what holds for all is said once"
    (asked,) = desk.called("sbatch", "--test-only")
    words = ["--array", "seed=0,1", "--array", "learning.policy=normal,long%3"]
    assert asked[0][-6:] == [TEMPLATE, "name=auto", *words]
    assert {"--array=0-3%3", "--output=%x-%A_%a.log"} < set(asked[0])

    done = desk.run(*array, TEMPLATE)
    assert "submitted: job 4711, an array of 4" in done.stdout
    assert "scancel 4711 (one: 4711_0)" in done.stdout


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (
            ("--array", "seed=x,1", "--array", "learning.policy=norml,long"),
            ["seed=x: ", "learning.policy=norml: "],
        ),
        (("--array", "seed=1,1"), ["1 stands there twice"]),
        (
            ("--array", "global_batch=32,33"),
            ["member 1 (global_batch=33): global_batch=33 does not"],
        ),
        (("--array", "seed=0,1", TEMPLATE, "name=mine"), ["would share the run folder: "]),
        (("--array", "seed=0,1", TEMPLATE, "seed=3"), ["seed has a value, and --array gives"]),
    ],
)
def test_values_that_can_not_be(desk: Desk, words: tuple[str, ...], problems: list[str]) -> None:
    """All at once, and each once, not for each pair with another."""
    done = desk.run("--check", *words, *(() if TEMPLATE in words else (TEMPLATE,)))
    assert done.returncode == 2, done.stdout
    for problem in problems:
        assert done.stdout.count(problem) == 1, done.stdout
    assert "1 problem; nothing was submitted" in done.stdout


def test_an_array_may_stand_behind_the_template_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = desk.run(
        "--check", "--array=learning.policy=normal,long", TEMPLATE, "--array", "seed=0,1"
    )
    assert done.returncode == 0 and "sbatch --array=0-3)" in done.stdout, done.stdout
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-3")
    done = desk.run("--check", TEMPLATE)
    assert "PROBLEM: --array=0-3: the jobs would all be one and the same run" in done.stdout


def test_the_status_of_an_array(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEGDET_ROOT", str(desk.folder / "jobs"))
    lay_out(ROOT, desk.folder / "jobs")
    for number, seed in enumerate((3, 5)):
        run = desk.folder / "jobs" / "runs" / f"x-47_{number}"
        run.mkdir(parents=True)
        one: dict[str, Any] = {"event": "start", "job": 49 - number, "slurm_id": f"47_{number}"}
        one |= {"nodes": ["n1"], "words": ["--config", "x.yaml", f"seed={seed}"], "time": 1.0}
        (run / "jobs.jsonl").write_text(json.dumps(one))
    answers = {
        "squeue --array": (0, "2|PENDING|Resources\n1|RUNNING|None\n"),
        "sacct": (0, "COMPLETED|0:0"),
        "scontrol": (0, "JobId=47 ArrayJobId=47 ArrayTaskId=2\n   StdOut=/none\n"),
        "squeue": (0, ""),
    }
    done = desk.run("--status", "47", answers=answers)
    member = desk.run("--status", "47_1", answers=answers)
    lines = done.stdout.splitlines()
    assert lines[0] == "array 47: 3 members", done.stdout + done.stderr
    assert lines[1].startswith("47_0 (seed=3): ended: COMPLETED, exit code 0; no metrics yet")
    assert lines[2].startswith("47_1 (seed=5): running; no metrics yet")
    assert lines[3] == "47_2: waits: Resources; no run folder yet"
    assert f"run {desk.folder}/jobs/runs/x-47_1" in member.stdout, member.stdout + member.stderr


def test_what_would_die_without_a_log(desk: Desk) -> None:
    """Slurm accepts all of it, and ends the job at once; or it would end in a traceback."""
    log = "--output=/nope/dir/%x-%j.log"
    done = desk.run("--check", "--job-name=a/b", log, TEMPLATE)
    assert done.returncode == 2, done.stdout
    assert "PROBLEM: --job-name=a/b: the log and the run folder are named after it" in done.stdout
    assert "no such folder: /nope/dir" in done.stdout
    long = desk.run("--check", f"--job-name={'n' * 300}", TEMPLATE, f"output={desk.folder}")
    assert long.returncode == 2 and not long.stderr, long.stderr
    assert "has 315 bytes, and a file's or folder's name can have 255" in long.stdout
    assert "run folder: nnn" in long.stdout
    place = desk.run("--check", TEMPLATE, f"output={desk.folder}/site.sh")
    assert f"PROBLEM: run folder: {desk.folder}/site.sh is a file" in place.stdout


def test_what_the_job_takes_over_from_this_shell(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_MCA_pml", "ucx")
    monkeypatch.setenv("PMIX_RANK", "3")
    done = desk.run("--check", TEMPLATE)
    assert done.returncode == 0
    assert "note: set in this shell, and so for all ranks: OMPI_MCA_pml=ucx. A site" in done.stdout
    none = desk.run("--check", "--export=MEGDET_SITE,MEGDET_VENV", TEMPLATE)
    assert "OMPI_MCA_pml" not in none.stdout


def test_where_slurm_does_not_requeue(desk: Desk) -> None:
    done = desk.run("--check", "--no-requeue", TEMPLATE)
    assert done.returncode == 0, done.stdout
    assert "Slurm will not requeue this job (--no-requeue): where it is stopped" in done.stdout
    assert "will not requeue" not in desk.run("--check", TEMPLATE).stdout
    own = desk.folder / "own.sbatch"
    own.write_text(Path(TEMPLATE).read_text().replace("#SBATCH --requeue\n", ""))
    config = {**ANSWERS, "scontrol show config": (0, "JobRequeue              = 0")}
    assert "(JobRequeue=0)" in desk.run("--check", str(own), answers=config).stdout
    config["scontrol show config"] = (0, "JobRequeue              = 1")
    assert "will not requeue" not in desk.run("--check", str(own), answers=config).stdout


def test_a_run_in_which_another_job_works(desk: Desk) -> None:
    run = desk.folder / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "jobs.jsonl").write_text('{"event": "start", "job": 4711, "restart": 0}\n')
    running = "RUNNING|None|2026-03-01T10:00:00|1:00|2|n[1-2]|big|/p"
    words = ("--check", TEMPLATE, "--run", str(run))
    done = desk.run(*words, answers={**ANSWERS, "squeue": (0, running)})
    assert done.returncode == 0, done.stdout
    assert "note: job 4711 works in" in done.stdout and "is running" in done.stdout
    ended = desk.run(*words, answers={**ANSWERS, "squeue": (1, "Invalid job id specified")})
    assert ended.returncode == 0 and "works in" not in ended.stdout, ended.stdout


def test_a_wrong_site_file_and_a_missing_template(desk: Desk) -> None:
    desk.site("SITE_PARTITON=gpu\n")
    done = desk.run("--check", "slurm/megdet_12gpu.sbatch")
    assert done.returncode == 2
    assert "SITE_PARTITON: no such entry; nearest: SITE_PARTITION" in done.stdout
    assert "slurm/megdet_12gpu.sbatch: no such template; there are slurm/" in done.stdout
    assert "slurm/megdet_128gpu.sbatch" in done.stdout
    said = "sbatch: unrecognized option '--partitoin=x'"
    wrong = desk.run(
        *("--check", "--partitoin=x", TEMPLATE),
        answers={
            "sbatch --test-only": (1, said),
            **{k: v for k, v in ANSWERS.items() if k[:4] == "srun"},
        },
    )
    assert wrong.returncode == 2
    assert "Slurm refuses the job: unrecognized option '--partitoin=x'" in wrong.stdout


def test_without_slurm_the_rest_is_checked(desk: Desk, tmp_path: Path) -> None:
    """Only bash is on PATH."""
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "bash").symlink_to("/bin/bash")
    done = desk.run("--check", TEMPLATE, path=str(tmp_path / "only"))
    assert done.returncode == 0, done.stdout
    assert "Slurm was not asked: sbatch is not on PATH" in done.stdout
    assert "global batch 32 = 16 processes × 2 images" in done.stdout


def test_staging_and_archives(desk: Desk) -> None:
    desk.site("SITE_DATA_ROOT=$DATA/set.tar\nSITE_STAGING=/local\n".replace("$DATA", '"$DATA"'))
    (desk.data / "set.tar").touch()
    done = desk.run("--check", TEMPLATE)
    assert done.returncode == 0, done.stdout
    assert f"staged on each node: data {desk.data}/set.tar to /local" in done.stdout
    desk.site('SITE_DATA_ROOT="$DATA"/set.tar\n')
    assert "an archive needs SITE_STAGING" in desk.run("--check", TEMPLATE).stdout


def test_status_of_a_run(desk: Desk) -> None:
    run = desk.folder / "a run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "iteration_00000040.pt").touch()
    (run / "config.yaml").write_text("global_batch: 32\nlearning: {max_iterations: 80}\n")
    train = {"kind": "train", "iteration": 40, "epoch": 0.4, "images_seen": 1280, "loss": 2.5}
    train |= {"images_per_s": 64.0, "step_s": 0.5, "rate": 0.04}
    (run / "metrics.jsonl").write_text(json.dumps(train) + '\n{"kind": "tra')
    start = {"event": "start", "job": 4711, "restart": 0, "time": 1, "nodes": ["n1", "n2"]}
    launch = {"event": "launch", "job": 4711, "restart": 0, "launcher": "srun"}
    record = f"{json.dumps({**start, 'tasks_per_node': 8})}\n{json.dumps(launch)}\n"
    (run / "jobs.jsonl").write_text(record)
    queue = "PENDING|BeginTime|2026-03-01T10:00:00|1:00|2||big|/p"
    done = desk.run("--status", "a run", answers={"squeue": (0, queue)})
    assert done.returncode == 0, done.stderr
    for said in (
        "iteration 40 of 80 (50.0 %), 20 s of training left",
        "loss 2.500, 64.0 images/s",
        "newest checkpoint: iteration_00000040.pt",
        "attempt: job 4711, 2 nodes × 8 by srun",
        "job 4711 waits: BeginTime (its time to begin has not come",
        "expected to start: 2026-03-01T10:00:00",
    ):
        assert said in done.stdout
    gone = {"squeue": (1, "Invalid job id specified"), "sacct": (0, "COMPLETED|0:0")}
    ended = desk.run("--status", "a run", answers=gone)
    assert "job 4711 is not in the queue; ended: COMPLETED, exit code 0" in ended.stdout
    log = desk.folder / "big-9.log"
    log.write_text(f"job: Slurm job 9\njob: run folder: {run}\n")
    by_number = {"scontrol": (0, f"JobId=9\n   StdOut={log}\n"), "squeue": (0, queue)}
    assert f"run {run}\niteration 40" in desk.run("--status", "9", answers=by_number).stdout
    absent = desk.run("--status", "no run")
    assert absent.returncode == 2 and "no such folder, and no job's number" in absent.stderr
    unasked = desk.run("--status", "77", path="/nowhere")
    assert unasked.returncode == 2 and unasked.stdout == ""
    assert "job 77: no run of it below " in unasked.stderr
    assert "and Slurm was not asked: squeue is not on PATH" in unasked.stderr


def test_a_python_without_the_packages_says_what_it_can_not_check(desk: Desk) -> None:
    program = (
        "import sys; sys.modules['pydantic'] = sys.modules['yaml'] = None;"
        "from megdet_hvd.submit.__main__ import main;"
        "sys.exit(main(['--check', sys.argv[1]]))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MEGDET_VENV": str(desk.venv)}
    environ |= {"PATH": "/bin", "MEGDET_SITE": str(desk.folder / "site.sh"), "DATA": str(desk.data)}
    done = subprocess.run(
        [sys.executable, "-c", program, TEMPLATE],
        cwd=desk.folder, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "were not checked" in done.stdout and "install/run python -m" in done.stdout


def test_a_job_submitted_from_within_another_inherits_nothing_of_it() -> None:
    inherited = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "SBATCH_QOS": "q"}
    assert job_environment(Path("/p"), {**inherited, "HOME": "/h"}) == {
        "SLURM_CONF": "/c", "SBATCH_QOS": "q", "HOME": "/h", "MEGDET_ROOT": "/p",
    }  # fmt: skip


def test_beside_a_container_the_driver_needs_a_python_of_the_host(desk: Desk) -> None:
    desk.site("SITE_CONTAINER='sh -c'\n")
    (desk.venv / "bin").mkdir()
    python = desk.venv / "bin" / "python"
    python.write_text("#!/bin/sh\necho version 3.11, pydantic\n")
    python.chmod(0o755)
    bad = desk.run("--check", TEMPLATE, "data.kind=scenes", "--rezume", "x")
    assert bad.returncode == 2
    assert f"SITE_CONTAINER: {python} lacks version 3.11, pydantic" in bad.stdout
    assert "make setup" in bad.stdout and "MEGDET_VENV=" in bad.stdout
    assert "PROBLEM: behind the template: unrecognized arguments: --rezume" in bad.stdout
    assert "2 problems" in bad.stdout
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    good = desk.run("--check", TEMPLATE, "data.kind=scenes")
    assert good.returncode == 0, good.stdout
    assert f"the job is driven by: {python}" in good.stdout


def test_a_site_file_that_ends_its_shell(desk: Desk) -> None:
    desk.site("set -e\nfalse\n")
    assert "take out exit, exec and set -e" in desk.run("--check", TEMPLATE).stdout
    desk.site("set -u\nSITE_DATA_ROOT=$NOT_SET_ANYWHERE\n")
    assert "NOT_SET_ANYWHERE: unbound variable" in desk.run("--check", TEMPLATE).stdout


def test_from_a_folder_that_is_laid_out(desk: Desk) -> None:
    """With an environment that make setup has not made."""
    jobs = desk.folder / "jobs"
    lay_out(ROOT, jobs)
    (desk.venv / "megdet_hvd.json").unlink()
    (desk.venv / "bin").mkdir()
    python = desk.venv / "bin" / "python"

    def holds(found: str, lacks: str) -> str:
        python.write_text(f"#!/bin/sh\necho '{found}'\necho '{lacks}'\n")
        python.chmod(0o755)
        return desk.run("--check", "jobs/slurm/megdet_16gpu.sbatch").stdout

    shown = holds("torch 9, horovod 8", "")
    assert f"MEGDET_ROOT={jobs}" in shown.replace("'\"'\"'", "'") and "PROBLEM" not in shown
    assert f"environment: {desk.venv} (torch 9, horovod 8; not made by make setup)" in shown
    assert "job.sh differs" not in shown
    (jobs / "slurm" / "job.sh").write_text("# mine\n")
    shown = holds("torch 9", "horovod, megdet_hvd")
    assert f"PROBLEM: {desk.venv} lacks horovod, megdet_hvd: install it, or ln -s /path/" in shown
    assert f"note: {jobs}/slurm/job.sh differs from what this megdet_hvd has" in shown
    python.unlink()
    shown = desk.run("--check", "jobs/slurm/megdet_16gpu.sbatch").stdout
    assert f"PROBLEM: {desk.venv} is no finished environment: ln -s /path/to/" in shown


def test_an_environment_made_by_hand_serves_a_checkout(desk: Desk) -> None:
    (desk.venv / "megdet_hvd.json").unlink()
    (desk.venv / "bin").mkdir()
    python = desk.venv / "bin" / "python"
    python.write_text('#!/bin/sh\necho "torch 9, in $PYTHONPATH"\necho megdet_hvd\n')
    python.chmod(0o755)
    done = desk.run("--check", TEMPLATE)
    assert done.returncode == 0, done.stdout
    assert f"(torch 9, in {ROOT}; not made by make setup)" in done.stdout
    python.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken = desk.run("--check", TEMPLATE)
    assert f"PROBLEM: {python} does not run: broken" in broken.stdout


def test_help_names_what_was_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/env/bin/megdet-submit", "--help"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("usage: megdet-submit [--check]")
