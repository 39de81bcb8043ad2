"""A requeue that Slurm does not take at once, and nodes that are left out by it."""

import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from megdet_hvd.slurm_job import requeue as module
from megdet_hvd.slurm_job import slurm
from megdet_hvd.slurm_job.requeue import is_disabled, may_pass, requeue

AWAY = "Unable to contact slurm controller (connect failure)"
MIXED_UP = "Unexpected message received for job 153"
OFF = "Requested operation is presently disabled for job 3"


class Controller:
    """Answers in turn, a clock that only sleeping moves, and what was asked."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.now_s = 0.0
        self.excluded: list[str] = []
        self.term: list[object] = []
        self.said: list[str] = []

    def requeue(self, job: int) -> str | None:
        self.term.append(signal.getsignal(signal.SIGTERM))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def exclude(self, job: int, nodes: list[str]) -> str | None:
        self.excluded += nodes
        return None

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def term() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def asked(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, bad: dict[str, str] | None = None
) -> str | None:
    monkeypatch.setattr(slurm, "requeue", controller.requeue)
    monkeypatch.setattr(slurm, "exclude", controller.exclude)
    clock = SimpleNamespace(monotonic=lambda: controller.now_s, sleep=controller.sleep)
    monkeypatch.setattr(module, "time", clock)
    return requeue(3, bad or {}, controller.said.append, enough=lambda: controller.now_s > 9000)


@pytest.mark.usefixtures("term")
def test_a_controller_that_is_away_is_asked_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = Controller(*([AWAY, MIXED_UP] * 100), None)
    assert asked(controller, monkeypatch) is None
    assert controller.now_s == 200 * 10
    assert len(controller.said) == 1 + 2000 // 600
    assert AWAY in controller.said[0]
    assert set(controller.term) == {signal.SIG_DFL}, "Slurm may end the script"


@pytest.mark.usefixtures("term")
def test_what_no_other_try_would_mend_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for problem in (OFF, "Invalid job id specified", "Access/permission denied"):
        controller = Controller(problem)
        assert asked(controller, monkeypatch) == problem
        assert (controller.now_s, controller.said) == (0.0, [])
    unknown = Controller("The moon is full")
    assert asked(unknown, monkeypatch) == "The moon is full"
    assert 300 <= unknown.now_s < 320


@pytest.mark.usefixtures("term")
def test_the_request_for_an_end_is_heard_while_the_controller_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked(Controller(AWAY), monkeypatch) == AWAY


@pytest.mark.usefixtures("term")
def test_a_bad_node_is_left_out_once_the_job_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm takes that of a waiting job alone, and meanwhile sends TERM to this very process."""
    controller = Controller(AWAY, None)
    assert asked(controller, monkeypatch, {"n9": "it shows 7 of 8 GPUs"}) is None
    assert controller.excluded == ["n9"]
    told = "n9 is left out from now on (ExcNodeList of the job): it shows 7 of 8 GPUs"
    assert controller.said[-1] == told
    assert set(controller.term) == {signal.SIG_IGN}


def test_words() -> None:
    assert is_disabled(OFF) and not is_disabled(AWAY)
    assert is_disabled("Access/permission denied for job 3")
    assert may_pass(AWAY, 1e9) and may_pass(MIXED_UP, 1e9) and not may_pass(OFF, 0)
