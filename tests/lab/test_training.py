"""How the lab watches a training, with a program of a few lines in the training's place."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.errors import RUN_ERROR, RunError, UserError
from megdet_hvd.lab.runs import LabRun
from megdet_hvd.lab.training import Training

KNOWN = {"settings": "s", "backbone": "b"}
RISING = [2.0, 2.0, *[9.0] * 10]
"""Losses that the rule calls diverged."""


class Watched(Training):
    """Runs ``program`` instead of the training command; the folder is its first word."""

    program = ""

    def _train_command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self.folder)]


def lines(losses: Sequence[float]) -> str:
    records = [
        {"kind": "train", "iteration": i, "loss": loss, "rate": 0.01}
        for i, loss in enumerate(losses, start=1)
    ]
    return "".join(f"{json.dumps(record)}\n" for record in records)


def watch(folder: Path, program: str, losses: Sequence[float] = ()) -> Training:
    """Watch ``program`` to its end, in a run folder with these losses already."""
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(lines(losses))
    training = Watched(LabRun(8, "frozen"), [], 0.01, folder, KNOWN)
    training.program = program
    training.start([0])
    deadline = time.monotonic() + 60
    while not training.look():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return training


def test_what_had_diverged_before_the_record_was_made_is_not_carried_on(tmp_path: Path) -> None:
    training = watch(tmp_path / "run", "raise SystemExit('started again')", RISING)
    assert not training.output.exists()
    record = training.record()
    assert record["diverged"]["at"] == 11 and record["scores"] == []
    assert (record["updates"], record["processor_s"]) == (12, 0.0)
    training.stop()  # there is nothing to stop


def writing(losses: Sequence[float], then: str) -> str:
    """A program that writes these losses into its run folder."""
    return (
        "import sys, time\nfrom pathlib import Path\n"
        f"Path(sys.argv[1], 'metrics.jsonl').write_text({lines(losses)!r})\n{then}"
    )


def test_what_diverges_is_stopped_whatever_it_then_ends_with(tmp_path: Path) -> None:
    training = watch(tmp_path / "run", writing(RISING, "time.sleep(60)"))  # ended by the signal
    assert training.divergence is not None and training.divergence.iteration == 11


def test_what_diverges_in_its_last_updates_has_diverged(tmp_path: Path) -> None:
    training = watch(tmp_path / "run", writing(RISING, ""))
    assert training.divergence is not None and training.divergence.iteration == 11


def test_it_runs_on_the_cores_it_is_given(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    watch(tmp_path / "run", "import os; raise SystemExit(7 * (os.sched_getaffinity(0) != {0}))")
    assert os.sched_getaffinity(0) == before


def test_of_a_diverged_training_nothing_is_measured(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shares = [{"rpn_foreground": 0.5 if i < 18 else i / 100} for i in range(20)]
    losses = [2.0, 2.0, *[9.0] * 18]
    records: list[dict[str, Any]] = [
        {"kind": "train", "iteration": i, "loss": loss, "rate": 0.01, **share}
        for i, (loss, share) in enumerate(zip(losses, shares, strict=True), start=1)
    ]
    records.append({"kind": "eval", "iteration": 20, "epoch": 2.0, "AP": 0.1})
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    run = LabRun(8, "frozen", recalibrated=True)
    training = Watched(run, [], 0.01, tmp_path / "run", KNOWN)
    training.program = "import sys; open(sys.argv[1] + '/recalibrated.json', 'w').write('{}')"
    training.start([0])
    assert training.look(), "it has diverged already: nothing is begun"
    training.recalibrated.write_text('{"AP": 0.1}')
    record = training.record()
    assert record["scores"] == [] and "recalibrated" not in record
    assert abs(record["balance"]["rpn_foreground"] - 0.185) < 1e-12  # of the last tenth
    # What only diverges in its last updates is not measured again either.
    metrics.unlink()
    training = Watched(run, [], 0.01, tmp_path / "run", KNOWN)
    training.recalibrated.unlink()
    training.program = writing(losses, "")
    training.start([0])
    while not training.look():
        time.sleep(0.05)
    assert training.divergence is not None and not training.recalibrated.exists()
    assert "precise_bn" not in training.output.read_text()


def test_a_loss_that_is_not_finite_is_told_from_other_ends(tmp_path: Path) -> None:
    ends = f"print('error: the loss is not finite'); raise SystemExit({RUN_ERROR})"
    training = watch(tmp_path / "run", writing([2.0, 1.0], ends))
    assert training.divergence is not None and training.divergence.iteration == 3
    above = watch(tmp_path / "above", writing(RISING, ends))  # before it was not finite
    assert above.divergence is not None and above.divergence.iteration == 11
    worded = "print('error: a value is not finite'); raise SystemExit(2)"
    with pytest.raises(RunError, match="a value is not finite"):
        watch(tmp_path / "worded", writing([2.0, 1.0], worded))
    other = f"print('error: no space'); raise SystemExit({RUN_ERROR})"
    with pytest.raises(RunError, match=r"exit code 3 \(error: no space\)"):
        watch(tmp_path / "other", writing([2.0, 1.0], other))


def test_what_is_told_of_an_end_is_its_error_whatever_is_printed_behind_it(tmp_path: Path) -> None:
    # Of a launcher, or of a training that a killed sitting has left at work in the same folder.
    ends = (
        "print('[1,0]<stderr>:error: another works here, kill 17'); print('iteration 20/60')\n"
        "raise SystemExit(2)"
    )
    with pytest.raises(RunError, match=r"exit code 2 \(error: another works here, kill 17\); see"):
        watch(tmp_path / "run", ends)


def test_an_earlier_sitting_s_error_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text("error: the loss is not finite\n")
    ends = f"print('error: no space'); raise SystemExit({RUN_ERROR})"
    with pytest.raises(RunError, match="no space"):
        watch(tmp_path / "run", writing([2.0, 1.0], ends))


def test_another_training_s_folder_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    # It has diverged, and none of it says with which settings.
    watch(tmp_path / "run", "", RISING)
    training = Watched(LabRun(8, "frozen"), [], 0.01, tmp_path / "run", {**KNOWN, "settings": "t"})
    with pytest.raises(UserError, match="other settings"):
        training.start([0])
    assert (tmp_path / "run" / "metrics.jsonl").exists()
