"""The comparison of tests.proof: equal is equal to the bit, and nothing is not equal."""

import json

from tests.proof import PARTS, compared, losses_of


def metrics(*losses: float) -> str:
    lines = [{"kind": "train", "iteration": 1, **dict.fromkeys(PARTS, loss)} for loss in losses]
    return "".join(f"{json.dumps(line)}\n" for line in [{"kind": "eval", "AP": 0.0}, *lines])


def test_equal_losses() -> None:
    lines, equal = compared(losses_of(metrics(1.5, 0.1)), losses_of(metrics(1.5, 0.1)))
    assert equal and len(lines) == 3 and "differ" not in "".join(lines)


def test_the_last_bit_counts_and_is_named() -> None:
    before, after = losses_of(metrics(1.5, 0.1)), losses_of(metrics(1.5, 0.1))
    after[1] = (*after[1][:2], 0.1 + 2**-56, *after[1][3:])
    assert after[1] != before[1]
    lines, equal = compared(before, after)
    assert not equal and lines[2].endswith("differ: rpn_box") and "differ" not in lines[1]


def test_a_shorter_run_or_none_is_not_equal() -> None:
    assert not compared(losses_of(metrics(1.5)), losses_of(metrics(1.5, 0.1)))[1]
    assert not compared([], [])[1]
    assert not compared(losses_of(metrics(float("nan"))), losses_of(metrics(0.1)))[1]
