"""Training, evaluation and prediction on storage that fails: sat out, or exit code 6."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from megdet_hvd.checkpoint.file import load_checkpoint
from megdet_hvd.cluster.outcome import read_outcome
from megdet_hvd.errors import STORAGE_ERROR
from megdet_hvd.slurm_job.decide import decide
from tests.ranks import ROOT

HERE = Path(__file__).parent


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_storage_that_fails_is_sat_out_or_ends_the_run_as_what_it_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "check_storage.py"), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout
    found = re.findall(r"ATTEMPT (\S+) code (\d+) failed (\d+) said ?(.*)", done.stdout)
    said = {name: (int(code), int(met), text) for name, code, met, text in found}
    assert said["good"][0] == 0, said["good"]
    runs = tmp_path / "runs"
    right = losses(runs / "good")[:2]
    assert said["once"][0] == 0 and said["met"][1] == 5, (said["once"], said["met"])
    assert losses(runs / "once") == right, "no picture was left out"
    lasting = [name for name in said if name.endswith("inf")]
    assert len(lasting) == 12
    for name in lasting:
        code, met, text = said[name]
        assert code == STORAGE_ERROR and met >= 3, (name, said[name])
        assert text.count("error: ") == 1 and "Traceback" not in text, (name, text)
        assert re.search("Stale file handle|Input/output error", text), (name, text)
        if not name.startswith("predict"):
            outcome = read_outcome(tmp_path / f"{name}.json")
            # Where nothing can be written, the outcome can't, and the exit code must do.
            told = STORAGE_ERROR if outcome is None else outcome.code
            assert told == STORAGE_ERROR, (name, outcome)
            assert (outcome is None) == (name == "checkpoint_inf"), (name, outcome)
            decision = decide(
                outcome,
                STORAGE_ERROR if outcome is None else 1,
                note=None,
                job_runs=True,
                progressed=False,
                idle=0,
                failures=0,
                allowed=2,
            )
            assert decision.requeue and decision.failure, (name, decision)
    assert said["resume_1"][:2] == (0, 1) and load_checkpoint(runs / "good")["iteration"] == 3
    pictures = [file.name for file in (tmp_path / "out").iterdir()]
    assert pictures == ["p2.png"], "one that storage does not give up does not keep others back"
