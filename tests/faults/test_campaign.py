"""The campaign itself: what is drawn, and that each wrong answer would be seen."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.attempt import Attempt
from tests.faults.chain import _lost, judge
from tests.faults.draw import CHAIN_FAULTS, Fault, draw_campaign
from tests.faults.kinds import BY_NAME, FAULT, FINISHED, HANG, KINDS, STOPPED
from tests.faults.mutations import SUBJECTS, Subject, campaign, try_one


def test_what_is_drawn() -> None:
    chains = draw_campaign(1, 130)
    assert chains == draw_campaign(1, 130) != draw_campaign(2, 130)
    faults = [fault for chain in chains for attempt in chain.attempts for fault in attempt]
    assert len(faults) >= 130
    assert {fault.kind for fault in faults} == set(BY_NAME), "every kind comes"
    for chain in chains:
        assert CHAIN_FAULTS[0] <= chain.faults <= CHAIN_FAULTS[1]
        for attempt in chain.attempts:
            kinds = [BY_NAME[fault.kind] for fault in attempt]
            assert sum(kind.ends for kind in kinds) <= 1 and not any(k.ends for k in kinds[:-1])
            assert all(chain.program in kind.programs for kind in kinds)
            assert all(fault.rank < chain.ranks for fault in attempt)
    assert len(Counter(fault.kind for fault in draw_campaign(1, 13)[0].attempts[0])) > 1


TRACEBACK = "Traceback (most recent call last):\n"
KILL = Fault("kill", 1, "step", 2, 0)
CLOCK = Fault("clock", 0, "step", 1, 0)
WELL = Attempt(
    code=None,
    launcher_code=137,
    output="error: rank 1 (here) has ended without a word\n",
    took_s=9.0,
    events=[{"kind": "clock"}, {"kind": "kill"}],
    ranks=2,
)


@pytest.mark.parametrize(
    ("attempt", "wrong"),
    [
        (WELL, 0),
        (replace(WELL, code=FAULT), 0),
        (replace(WELL, code=HANG), 0),
        (replace(WELL, code=FINISHED), 1),
        (replace(WELL, code=STOPPED), 1),
        (replace(WELL, output="nothing"), 1),
        (replace(WELL, output=f"{WELL.output}{TRACEBACK}"), 1),
        (replace(WELL, output=f"{WELL.output}{TRACEBACK}", tagged=True), 0),  # the launcher's
        (replace(WELL, output=f"{WELL.output}[1]<stderr>:{TRACEBACK}", tagged=True), 1),
        (replace(WELL, left=["4711 python"]), 1),
        (replace(WELL, events=[{"kind": "clock"}]), 1),  # it ended, and nothing ended it
        (replace(WELL, events=[], code=FINISHED), 0),
    ],
)
def test_an_attempt_is_judged(attempt: Attempt, wrong: int) -> None:
    records = judge((CLOCK, KILL), attempt, set())
    assert sum(bool(record.problems) for record in records) == wrong, records
    happened = {event["kind"] for event in attempt.events}
    assert {r.kind for r in records if r.effective} == happened


def test_a_lost_checkpoint_is_seen() -> None:
    assert _lost({3, 6}, {3, 6, 9}, set()) is None
    assert _lost({3, 6, 9}, {6, 9, 12}, set()) is None
    assert _lost({3, 6}, {3}, {6}) is None
    assert _lost({3, 6}, {3}, set()) == "checkpoint 6 is lost, of [3, 6]: there are [3]"
    assert _lost({3, 6, 9}, {12}, set()) == "of checkpoints [3, 6, 9] only [12] are left"


def test_mutated_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign(11, 60) == []
    assert "WRONG" not in capsys.readouterr().out


def test_a_wrong_reader_is_seen() -> None:
    sound = SUBJECTS[0]

    def fails(file: Path, right: Path) -> str:
        raise KeyError(file.name)

    assert "KeyError" in try_one(Subject("x", sound.make, sound.mutate, fails), 1)
    assert len(KINDS) == len(BY_NAME) >= 12
