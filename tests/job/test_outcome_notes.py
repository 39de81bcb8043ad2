from pathlib import Path

import pytest

from megdet_hvd.cli import parse_train_arguments
from megdet_hvd.cluster.outcome import Outcome, read_outcome
from megdet_hvd.job import outcome_notes


def test_what_is_known_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "outcome.json"
    outcome_notes.begin()
    outcome_notes.tell(0)  # nobody wants to know
    monkeypatch.setenv("MEGDET_OUTCOME", str(file))
    outcome_notes.note(run_folder=tmp_path / "run")
    outcome_notes.note(iteration=7)
    outcome_notes.note(message="done")
    outcome_notes.tell(3, "the loss is not finite")
    outcome_notes.tell(0)
    assert read_outcome(file) == Outcome(3, "the loss is not finite", 7, str(tmp_path / "run"))
    file.unlink()
    outcome_notes.tell(5)
    assert read_outcome(file) == Outcome(5, "done", 7, str(tmp_path / "run"))
    file.unlink()
    outcome_notes.begin()
    outcome_notes.tell(0)
    assert read_outcome(file) == Outcome(0)


def test_a_bad_command_line_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEGDET_OUTCOME", str(tmp_path / "outcome.json"))
    outcome_notes.begin()
    with pytest.raises(SystemExit):
        parse_train_arguments(["--rum", "x"])
    outcome = read_outcome(tmp_path / "outcome.json")
    assert outcome is not None and outcome.code == 2 and "--rum" in outcome.message
    monkeypatch.setenv("MEGDET_OUTCOME", str(tmp_path / "nowhere" / "outcome.json"))
    outcome_notes.tell(0)
    assert "the outcome can't be written" in capsys.readouterr().err
