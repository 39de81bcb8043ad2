"""What a run can do without never ends it: one warning names it, and training goes on."""

import logging
from pathlib import Path
from unittest import mock

import pytest

from megdet_hvd.checkpoint.naming import list_checkpoints
from megdet_hvd.engine.result import result_of
from megdet_hvd.engine.run_folder.best_effort import BestEffort
from megdet_hvd.engine.run_folder.folder import RunFolder, forget_after
from megdet_hvd.engine.run_folder.summary import summary
from megdet_hvd.report.metrics_file import read_metrics
from tests.engine.tale import Tale

END = 12
ERRORS = (
    ValueError("a value"),
    RuntimeError("a\nruntime"),
    MemoryError(),
    KeyError("key"),
    OSError(5, "Input/output error"),
    ImportError("no such library"),
)
SIDE_WORK = {
    "megdet_hvd.report.curves.draw_curves": "the picture of the curves can't be written",
    "megdet_hvd.report.detections.draw_detections": "the picture of detections can't be written",
    "megdet_hvd.engine.run_folder.metrics._plain": "metrics.jsonl can't be written",
    "torch.utils.tensorboard.SummaryWriter.__init__": "tensorboard can't be written",
    "torch.utils.tensorboard.SummaryWriter.add_scalar": "tensorboard can't be written",
    "torch.utils.tensorboard.SummaryWriter.close": "tensorboard can't be written",
    "megdet_hvd.engine.run.summary": "the summary can't be written",
    "megdet_hvd.engine.saving.prune_checkpoints": "checkpoints after iteration",
    "megdet_hvd.engine.saving.mark_best": "checkpoints after iteration",
    "megdet_hvd.engine.progress.tqdm.update": "the progress bar can't be shown",
    "megdet_hvd.engine.progress.tqdm.close": "the progress bar can't be shown",
}
SETTINGS = (
    "log.tensorboard=true",
    "log.progress=bar",
    "evaluation.every_epochs=1",
    "checkpoint.every_epochs=1",
    "checkpoint.keep=1",
)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "megdet_hvd")
    return caplog


@pytest.mark.parametrize("where", SIDE_WORK)
def test_side_work_that_fails_costs_one_warning(
    where: str, tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    said = SIDE_WORK[where]
    for error in ERRORS if "curves" in where or "_plain" in where else ERRORS[:2]:
        tale = Tale(tmp_path / type(error).__name__, {6: 0.1, 12: 0.2}, SETTINGS)
        tale.drawn = "draw_" in where
        warnings.clear()
        with mock.patch(where, side_effect=error):
            tale.run()
        told = [record.getMessage() for record in warnings.records if said in record.getMessage()]
        assert len(told) == (2 if "iteration" in said else 1), (error, warnings.text)
        assert "\n" not in told[0]
        assert type(error).__name__ in told[0] or str(error.args[-1]) in told[0]
        assert tale.run_now.iteration == END and tale.measured == [6, 12]
        assert list_checkpoints(tale.files.checkpoints)[-1].name == "iteration_00000012.pt"
        if "_plain" not in where:
            assert [line["iteration"] for line in read_metrics(tale.files.metrics).eval] == [6, 12]


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_whoever_wants_to_end_the_run_may(wish: type[BaseException]) -> None:
    with pytest.raises(wish), BestEffort("a picture").writing():
        raise wish


def test_a_line_that_is_no_line_of_ours_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    good = ['{"kind": "train", "iteration": 3, "loss": 1}', '{"kind": "eval", "iteration": 3}']
    bad = [
        '{"kind": "train"}',
        '{"kind": "train", "iteration": "x"}',
        '{"kind": "eval", "iteration": null, "AP": 1}',
        '{"kind": "eval", "iteration": NaN}',
        '{"kind": ["eval"], "iteration": 4}',
        "[1, 2]",
        '"text"',
        "[" * 100_000,
        '{"kind": "eval", "itera',
    ]
    text = "\n".join([*bad, good[0], *bad, good[1]]).encode() + b"\n\xff\xfe\x00\n"
    folder.metrics.write_bytes(text)
    found = read_metrics(folder.metrics)
    assert [line["iteration"] for line in found.train + found.eval] == [3, 3]
    told = "after 3 iterations: AP@.5 on validation none; mmAP none"
    assert summary(folder, 3)[0] == told
    forget_after(folder.metrics, 3)
    assert folder.metrics.read_text().splitlines() == good


def test_metrics_that_cannot_be_read_cost_no_result(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"kind": "eval", "iteration": 3, "AP": 0.5, "AP50": 0.7}\n')
    assert result_of(folder, 3, 1.0).best_ap == 0.5
    stale = OSError(116, "Stale file handle")
    with mock.patch("megdet_hvd.report.metrics_file.Path.open", side_effect=stale):
        assert result_of(folder, 3, 1.0).iteration == 3
        forget_after(folder.metrics, 3)
    assert "metrics.jsonl can't be read (Stale file handle)" in warnings.text
