"""The first trainer's side, with a mailbox that no message leaves."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.checkpoint.naming import BEST, checkpoint_name
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.engine.run_folder.metrics import Metrics
from megdet_hvd.job import stopping
from megdet_hvd.job.world import World
from megdet_hvd.pipeline.concurrent_evaluation import ConcurrentEvaluation
from megdet_hvd.pipeline.mailbox import EvaluationReply, EvaluationRequest, NoResult
from megdet_hvd.report.metrics_file import read_metrics
from tests.engine.small import small_config

END = 5  # 27 pictures, batch 12: epochs end in steps 3 and 5


@dataclass
class Mailbox:
    """Answers in order, with what a test gave."""

    answers: list[float | str] = field(default_factory=list)
    """An mmAP, or why there is no result."""
    requests: list[EvaluationRequest] = field(default_factory=list)
    pending = 0
    lost: str | None = None
    dark: str | None = None

    def request(self, request: EvaluationRequest) -> None:
        self.requests.append(request)

    def results(self) -> list[EvaluationReply | NoResult]:
        found = [*zip(self.requests, self.answers, strict=False)]
        self.answers = []
        return [
            NoResult(request, answer)
            if isinstance(answer, str)
            else EvaluationReply(request, answer, answer, 6, {"AP": answer}, self.dark)
            for request, answer in found
        ]

    def wait(self, at_most_s: float = math.inf) -> list[EvaluationReply | NoResult]:
        return self.results()

    def request_no_more(self) -> None:
        self.closed = True


class Line:
    """Evaluates in line, as a test wants it."""

    aps: dict[int, float] = {}  # noqa: RUF012
    stops: str | None = None

    def __init__(self, run: Any, metrics: Metrics, pictures: Any) -> None:
        self._run, self._metrics = run, metrics

    def measure(self) -> None:
        run = self._run
        if self.stops is not None:
            run.stopped, run.evaluation_due = self.stops, True
            return
        run.own_ap = self.aps[run.iteration]
        self._metrics.write("eval", run.iteration, AP=run.own_ap)


class LoggedErrors(list[str]):
    """What the log was told."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def errors() -> Any:
    told = LoggedErrors()
    with mock.patch("megdet_hvd.pipeline.concurrent_evaluation.LOGGER.error", told):
        yield told


def evaluations(
    folder: Path, mailbox: Mailbox, iteration: int, *saved: int
) -> tuple[ConcurrentEvaluation, Any]:
    """Those of a run that stands at ``iteration`` and has these checkpoints."""
    files = RunFolder(folder / "run")
    files.checkpoints.mkdir(parents=True, exist_ok=True)
    for number in saved:
        (files.checkpoints / checkpoint_name(number)).write_text(str(number))
    config = small_config(folder, ["evaluation.untrained=true", "evaluation.every_epochs=1"])
    run: Any = SimpleNamespace(
        config=config,
        world=World(0, 1, ((0,),), 1, "plain python"),
        folder=files,
        data=SimpleNamespace(train=range(27)),
        still_ours=lambda: None,
        own_checkpoints=None,
        derived=SimpleNamespace(end_iteration=END),
        iteration=iteration,
        ap=0.5,
        measured_at=0,
        best_ap=None,
        compared_after=0,
        evaluation_due=False,
        stopped=None,
    )
    metrics = Metrics(files.metrics, None, iteration)
    return ConcurrentEvaluation(run, metrics, mock.Mock(), mailbox), run  # type: ignore[arg-type]


def ordered(mailbox: Mailbox) -> list[int]:
    return [request.iteration for request in mailbox.requests]


def test_what_has_no_result_is_handed_over_once(tmp_path: Path) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 0)
    assert along.begin() is False, "a new run measures its untrained model"
    along, run = evaluations(tmp_path, mailbox, 0, 0)
    assert along.begin() is True and ordered(mailbox) == [0], "nobody need measure it again"
    mailbox.answers = [0.1]
    along.look()
    assert run.best_ap is None, "the untrained model is not to be kept"
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 0)
    assert along.begin() is True and ordered(mailbox) == [], "it was measured before"
    along, run = evaluations(tmp_path, mailbox, 4, 2, 3, 4, 5)
    assert along.begin() is False and ordered(mailbox) == [3], "2 and 4 are not due, 5 is not yet"


def test_results_that_were_measured_otherwise_are_no_rivals(tmp_path: Path) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 5, 3, 5)
    along.begin()
    mailbox.answers = [0.5, 0.3]
    along.look()
    for compared_after, best in ((0, 0.5), (3, 0.3), (5, None)):
        along, run = evaluations(tmp_path, Mailbox(), 5)
        run.compared_after = compared_after
        along.begin()
        assert run.best_ap == best


def test_the_best_of_all_results_is_kept(tmp_path: Path) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 5, 3, 5)
    along.begin()
    mailbox.answers = [0.5, 0.4]
    along.look()
    assert run.best_ap == 0.5 and (run.folder.checkpoints / BEST).read_text() == "3"


def test_pictures_without_light_are_told_once(tmp_path: Path) -> None:
    mailbox = Mailbox(dark="3 of 6 pictures are all but black")
    along, _ = evaluations(tmp_path, mailbox, 5, 3, 5)
    along.begin()
    told = LoggedErrors()
    with mock.patch("megdet_hvd.pipeline.concurrent_evaluation.LOGGER.warning", told):
        mailbox.answers = [0.5, 0.4]
        along.look()
    assert told == ["warning: validation: 3 of 6 pictures are all but black"]


def test_what_is_handed_over_is_no_longer_due_and_its_result_is_drawn(tmp_path: Path) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 0)
    assert run.ap is run.measured_at is None, "a checkpoint says nothing of its own"
    told = LoggedErrors()
    with mock.patch("megdet_hvd.pipeline.concurrent_evaluation.LOGGER.warning", told):
        for iteration in (1, 2, 3):
            run.iteration, run.evaluation_due = iteration, True
            along.measure()
            assert not run.evaluation_due, "of a checkpoint that follows, evaluators see to it"
            along.saved(run.folder.checkpoints / checkpoint_name(iteration))
            assert len(told) == (iteration == 3), "they are behind"
    assert "3 checkpoints behind training" in told[0] and ordered(mailbox) == [1, 2, 3]
    for name in mailbox.requests:
        name.path.touch()
    drawn: Any = along._pictures.draw_curves
    mailbox.answers = [0.1, 0.2]
    along.look()
    assert drawn.call_count == 2 and len(along.protected) == 1


def test_a_full_disk_costs_the_link_and_not_the_run(tmp_path: Path, errors: LoggedErrors) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 5, 3, 5)
    along.begin()
    best = run.folder.checkpoints / BEST
    full = OSError(28, "No space left on device")
    with mock.patch("megdet_hvd.checkpoint.atomic.os.replace", side_effect=full):
        mailbox.answers = [0.5]
        along.look()
    assert len(errors) == 1 and "No space left" in errors[0]
    assert (run.best_ap, best.exists()) == (None, False)
    mailbox.requests, mailbox.answers = mailbox.requests[1:], [0.4]
    along.look()
    assert run.best_ap == 0.4 and best.read_text() == "5"
    assert [line["AP"] for line in read_metrics(run.folder.metrics).eval] == [0.5, 0.4]
    # Carried on: what was measured best is still there, and its link is made up for.
    along, run = evaluations(tmp_path, Mailbox(), 5, 3, 5)
    run.best_ap = 0.4
    along.begin()
    assert run.best_ap == 0.5 and best.read_text() == "3"


def test_a_result_is_asked_for_again_where_its_checkpoint_was_not_marked(tmp_path: Path) -> None:
    """The process is killed as it marks, or between the mark and the metrics."""
    for at in (
        "megdet_hvd.pipeline.concurrent_evaluation.mark_best",
        "megdet_hvd.engine.run_folder.metrics.Metrics.write",
    ):
        mailbox = Mailbox()
        along, run = evaluations(tmp_path / at, mailbox, 5, 3)
        along.begin()
        mailbox.answers = [0.5]
        with mock.patch(at, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            along.look()
        mailbox = Mailbox()
        along, run = evaluations(tmp_path / at, mailbox, 5, 3)
        along.begin()
        assert ordered(mailbox) == [3]
        mailbox.answers = [0.5]
        along.look()
        assert (run.folder.checkpoints / BEST).read_text() == "3"
        assert [line["AP"] for line in read_metrics(run.folder.metrics).eval] == [0.5]


def test_an_evaluation_without_a_checkpoint_is_told(tmp_path: Path, errors: LoggedErrors) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 3)
    along.measure()
    along.saved(None)
    assert (
        ordered(mailbox) == [] and len(errors) == 1 and "iteration 3 is not evaluated" in errors[0]
    )
    run.iteration = 4
    along.saved(run.folder.checkpoints / checkpoint_name(4))
    assert ordered(mailbox) == [] and len(errors) == 1


def test_a_stop_ends_the_wait_and_leaves_what_is_missing(tmp_path: Path) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 5, 3, 5)
    along.begin()
    mailbox.answers = [0.5]
    try:
        stopping.request("enough")
        along.finish()
    finally:
        stopping.forget()
    assert run.stopped == "enough" and run.evaluation_due
    assert [path.name for path in along.protected] == [checkpoint_name(5)]


def test_an_evaluation_that_failed_is_told_and_training_goes_on(
    tmp_path: Path, errors: LoggedErrors
) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 5, 3, 5)
    run.config = run.config.model_copy(
        update={"checkpoint": run.config.checkpoint.model_copy(update={"keep": 1})}
    )
    along.begin()
    mailbox.answers = ["it can't be read (Stale file handle)", 0.25]
    along.look()
    told = "error: iteration 3 is not evaluated: it can't be read (Stale file handle)"
    assert errors == [f"{told}. Training goes on"]
    assert [line["iteration"] for line in read_metrics(run.folder.metrics).eval] == [5]
    assert run.best_ap == 0.25 and not along.protected
    left = sorted(path.name for path in run.folder.checkpoints.iterdir())
    assert left == [BEST, checkpoint_name(5)], "it is no longer kept for the evaluators"


def test_lost_evaluators_are_replaced_in_line(tmp_path: Path, errors: LoggedErrors) -> None:
    mailbox = Mailbox()
    along, run = evaluations(tmp_path, mailbox, 3, 3)
    along.begin()
    mailbox.lost = "the process of rank 2 has ended"
    along.look()
    along.look()
    assert len(errors) == 1 and "the process of rank 2 has ended" in errors[0]
    assert "evaluates in line" in errors[0] and "without a result: iterations 3" in errors[0]
    assert not along.protected
    run.iteration = 5
    with (
        mock.patch("megdet_hvd.pipeline.concurrent_evaluation.InLine", Line),
        mock.patch.object(Line, "aps", {5: 0.3}),
    ):
        along.measure()
        along.saved(run.folder.checkpoints / checkpoint_name(5))
        along.finish()
        along.close()
    assert ordered(mailbox) == [3], "nobody takes another request"
    assert [line["iteration"] for line in read_metrics(run.folder.metrics).eval] == [5]


def test_the_last_evaluation_is_made_up_for_in_line(tmp_path: Path) -> None:
    """Its evaluators die over it, or before it was handed over; the job may want to stop then."""
    for at in ("over it", "before it"):
        mailbox = Mailbox()
        along, run = evaluations(tmp_path / at, mailbox, 3, 3)
        along.begin()
        run.iteration = 5
        last = run.folder.checkpoints / checkpoint_name(5)
        last.write_text("5")
        along.measure()
        if at == "before it":
            mailbox.lost = "gone"
        along.saved(last)
        mailbox.lost = "gone"
        with (
            mock.patch("megdet_hvd.pipeline.concurrent_evaluation.InLine", Line),
            mock.patch.object(Line, "aps", {5: 0.3}),
        ):
            along.finish()
        assert run.best_ap == 0.3 and (run.folder.checkpoints / BEST).read_text() == "5"
        assert [line["iteration"] for line in read_metrics(run.folder.metrics).eval] == [5]
        assert run.stopped is None

    mailbox = Mailbox()
    along, run = evaluations(tmp_path / "stop", mailbox, 5, 5)
    along.begin()
    mailbox.lost = "gone"
    with (
        mock.patch("megdet_hvd.pipeline.concurrent_evaluation.InLine", Line),
        mock.patch.object(Line, "stops", "enough"),
    ):
        along.finish()
    assert run.stopped == "enough" and run.evaluation_due
    assert not (run.folder.checkpoints / BEST).exists()
