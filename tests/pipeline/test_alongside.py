"""The first trainer's side, with a desk that no message leaves."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from megdet_hvd.checkpoint.naming import BEST, checkpoint_name
from megdet_hvd.comm import stopping
from megdet_hvd.comm.world import World
from megdet_hvd.engine.metrics import Metrics
from megdet_hvd.engine.run_folder import RunFolder
from megdet_hvd.pipeline.alongside import Alongside
from megdet_hvd.pipeline.desk import Order, Result
from megdet_hvd.report.metrics_file import read_metrics
from tests.engine.small import small_config

END = 5  # 27 pictures, batch 12: epochs end in steps 3 and 5


@dataclass
class Desk:
    """Answers in order, with what a test gave."""

    answers: list[float] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    unanswered = 0

    def order(self, order: Order) -> None:
        self.orders.append(order)

    def results(self) -> list[Result]:
        found = zip(self.orders, self.answers, strict=False)
        self.answers = []
        return [Result(order, ap, ap, 6, {"AP": ap}) for order, ap in found]

    def wait(self, at_most_s: float = math.inf) -> list[Result]:
        return self.results()


class Told(list[str]):
    """What the log was told."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def errors() -> Any:
    told = Told()
    with mock.patch("megdet_hvd.pipeline.alongside.LOGGER.error", told):
        yield told


def evaluations(folder: Path, desk: Desk, iteration: int, *saved: int) -> tuple[Alongside, Any]:
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
        derived=SimpleNamespace(end_iteration=END),
        iteration=iteration,
        best_ap=None,
        evaluation_due=False,
        stopped=None,
    )
    metrics = Metrics(files.metrics, None, iteration)
    return Alongside(run, metrics, mock.Mock(), desk), run  # type: ignore[arg-type]


def ordered(desk: Desk) -> list[int]:
    return [order.iteration for order in desk.orders]


def test_what_has_no_result_is_handed_over_once(tmp_path: Path) -> None:
    desk = Desk()
    along, run = evaluations(tmp_path, desk, 0)
    assert along.begin() is False, "a new run measures its untrained model"
    along, run = evaluations(tmp_path, desk, 0, 0)
    assert along.begin() is True and ordered(desk) == [0], "nobody need measure it again"
    desk.answers = [0.1]
    along.look()
    assert run.best_ap is None, "the untrained model is not to be kept"
    desk = Desk()
    along, run = evaluations(tmp_path, desk, 0)
    assert along.begin() is True and ordered(desk) == [], "it was measured before"
    along, run = evaluations(tmp_path, desk, 4, 2, 3, 4, 5)
    assert along.begin() is False and ordered(desk) == [3], "2 and 4 are not due, 5 is not yet"


def test_the_best_of_all_results_is_kept(tmp_path: Path) -> None:
    desk = Desk()
    along, run = evaluations(tmp_path, desk, 5, 3, 5)
    along.begin()
    desk.answers = [0.5, 0.4]
    along.look()
    assert run.best_ap == 0.5 and (run.folder.checkpoints / BEST).read_text() == "3"


def test_a_full_disk_costs_the_link_and_not_the_run(tmp_path: Path, errors: Told) -> None:
    desk = Desk()
    along, run = evaluations(tmp_path, desk, 5, 3, 5)
    along.begin()
    best = run.folder.checkpoints / BEST
    full = OSError(28, "No space left on device")
    with mock.patch("megdet_hvd.checkpoint.retention.os.replace", side_effect=full):
        desk.answers = [0.5]
        along.look()
    assert len(errors) == 1 and "No space left" in errors[0]
    assert (run.best_ap, best.exists()) == (None, False)
    desk.orders, desk.answers = desk.orders[1:], [0.4]
    along.look()
    assert run.best_ap == 0.4 and best.read_text() == "5"
    assert [line["AP"] for line in read_metrics(run.folder.metrics).eval] == [0.5, 0.4]


def test_an_evaluation_without_a_checkpoint_is_told(tmp_path: Path, errors: Told) -> None:
    desk = Desk()
    along, run = evaluations(tmp_path, desk, 3)
    along.measure()
    along.saved(None)
    assert ordered(desk) == [] and len(errors) == 1 and "iteration 3 is not evaluated" in errors[0]
    run.iteration = 4
    along.saved(run.folder.checkpoints / checkpoint_name(4))
    assert ordered(desk) == [] and len(errors) == 1


def test_a_stop_ends_the_wait_and_leaves_what_is_missing(tmp_path: Path) -> None:
    desk = Desk()
    along, run = evaluations(tmp_path, desk, 5, 3, 5)
    along.begin()
    desk.answers = [0.5]
    try:
        stopping.request("enough")
        along.finish()
    finally:
        stopping.forget()
    assert run.stopped == "enough" and run.evaluation_due
    assert [path.name for path in along.protected] == [checkpoint_name(5)]
