"""Measured beside expected; what is off stands at the end."""

from tests.gpu.visit.expected import ALWAYS, EXPECTED, Expected
from tests.gpu.visit.parts import PARTS
from tests.gpu.visit.record import Record
from tests.gpu.visit.table import lines

WANTED = (
    Expected("steps", "ours, ms", 40.0, 80.0, "cuda", "*predicted*: a line"),
    Expected("steps", "equal bits", 1, 1, "any", "the code"),
    Expected("steps", "never measured", 3, ALWAYS, "any", "the code"),
)


def test_what_is_off_or_missing_is_told() -> None:
    record = Record("steps", "done", "cuda", {"ours, ms": 95.04, "equal bits": True, "more": "x"})
    told = lines({"steps": record, "later": None}, WANTED, ["later"])
    row = ["ours,", "ms", "95", "40", "…", "80", "OFF", "*predicted*:", "a", "line"]
    assert row in [line.split() for line in told]
    assert told[told.index("off:") + 1 :] == [
        "steps, ours, ms: 95, expected 40 … 80",
        "steps, never measured: missing, expected ≥ 3",
        "later: not reached",
    ]


def test_as_expected() -> None:
    found = {"ours, ms": 50.0, "equal bits": True, "never measured": 4}
    told = lines({"steps": Record("steps", "done", "cuda", found)}, WANTED)
    assert told[-1] == "as expected, all 1 parts" and "off:" not in told


def test_a_folder_without_results_is_not_as_expected() -> None:
    assert lines({}, WANTED, "cuda")[-2:] == ["off:", "no part has been begun in this folder"]


def test_a_cpus_times_are_compared_with_nothing() -> None:
    found = {"ours, ms": 9000.0, "equal bits": False, "never measured": 3}
    told = lines({"steps": Record("steps", "done", "cpu", found)}, WANTED)
    assert told[told.index("off:") + 1 :] == ["steps, equal bits: no, expected 1"]


def test_a_part_that_failed_misses_nothing_more() -> None:
    record = Record("steps", "failed", "cuda", {"equal bits": True}, why="exit code 1: out of luck")
    told = lines({"steps": record}, WANTED)
    assert told[told.index("off:") + 1 :] == ["steps: failed exit code 1: out of luck"]


def test_tests_that_never_ran_are_off() -> None:
    """Of each part that runs some: its exit code, and how many passed."""
    for part in ("kernel_tests", "training_tests", "fused", "peer"):
        found = {"pytest's exit code": 5, "passed": 0, "failed": 0, "skipped": 0}
        told = lines({part: Record(part, "done", "cuda", found)}, EXPECTED)
        off = told[told.index("off:") + 1 :]
        assert any(line.startswith(f"{part}, pytest's exit code: 5, ") for line in off), off
        assert any(line.startswith(f"{part}, passed: 0, ") for line in off), off


def test_each_record_is_of_its_own_device() -> None:
    found = {"ours, ms": 9000.0, "equal bits": True, "never measured": 3}
    records = {"steps": Record("steps", "done", "cpu", found, small=True)}
    more = {**records, "machine": Record("machine", "done", "cuda")}
    told = lines(more, WANTED)
    assert told[-1] == "as expected, all 2 parts" and "small" in told[1]


def test_expectations_are_of_parts_that_there_are() -> None:
    assert {one.part for one in EXPECTED} <= {part.name for part in PARTS}
    pairs = [(one.part, one.quantity) for one in EXPECTED]
    assert len(set(pairs)) == len(pairs)
    assert all(one.low <= one.high and one.source for one in EXPECTED)
