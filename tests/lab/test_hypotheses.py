"""Verdicts on records made by hand."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.lab.hypotheses import HYPOTHESES, verdicts
from megdet_hvd.lab.runs import (
    FIGURE4,
    TABLE2,
    TABLE3,
    TABLE3_TWICE,
    LabRun,
    cgbn,
    judged_runs,
    rate_runs,
)
from megdet_hvd.lab.scale import FULL, GRADUAL, LabScale
from megdet_hvd.lab.sitting import VARIANCE_AT
from megdet_hvd.lab.verdicts import DECLARED, NOT_COMPLETE, NOT_SEEN, OPEN, SEEN, apart

DOCS = Path(__file__).parents[2] / "docs" / "lab"
X = None
"""Diverged."""
Ends = Mapping[LabRun, float | Sequence[float | None] | None]
"""mmAP at the end: of all seeds, or one by one."""


def of_training(ap: float | None, **given: Any) -> dict[str, Any]:
    end = {"at": 40, "why": "the loss is not finite"} if ap is None else None
    scores = [] if ap is None else [{"epoch": 11.005, "AP": ap / 100}]
    return {"updates": 50, "diverged": end, "scores": scores, **given}


def of_figure4(aps: Mapping[int, float]) -> dict[str, Any]:
    scores = [{"epoch": epoch + 0.03, "AP": ap / 100} for epoch, ap in aps.items()]
    return of_training(1.0, scores=scores)


def curve(early: float, late: float) -> dict[int, float]:
    """Epochs up to 11 about ``early``, and their mean; those behind ``late``."""
    return {epoch: early + (epoch - 6) if epoch <= 11 else late for epoch in range(1, 19)}


def everything(ends: Ends, scale: LabScale = FULL) -> dict[tuple[str, int], dict[str, Any]]:
    """All records of three seeds in which everything trains to 50, but for ``ends``."""
    sizes = [cgbn(64, bn_size=size) for size in (2, 4, 8, 16, 32, 64)]
    every = {run: [50.0] * 3 for run in (*TABLE2, *TABLE3, TABLE3_TWICE, *sizes)}
    every |= {run: [50.0] for run in (*rate_runs(scale), *judged_runs(scale))}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for run, aps in every.items():
        given = next((one for other, one in ends.items() if other.name == run.name), 50.0)
        for seed in range(len(aps)):
            ap = given[seed] if isinstance(given, Sequence) else given
            found[run.name, seed] = of_training(ap)
    for seed in range(3):
        for run in FIGURE4:
            found[run.name, seed] = of_figure4(curve(30, 50))
        for norm in ("frozen", "cgbn"):
            for at in VARIANCE_AT:
                found[f"variance-{norm}-{at}", seed] = variance(-1.0, -0.5)
    found["overhead", 0] = overhead((1.05, 1.3), (1.02, 1.2))
    return found


def variance(slope: float, spread: float) -> dict[str, Any]:
    rows = [
        {
            "images": n,
            "variance": 7 * n**slope,
            "foreground": {"rpn": [0.1, 1.0], "box": [0.2, 0.3 * n**spread]},
        }
        for n in (1, 2, 4, 8, 16, 32, 64)
    ]
    return {"slope": slope, "rows": rows}


def overhead(*ratios: tuple[float, float]) -> dict[str, Any]:
    rows = [
        {"bn_size": size, "frozen BN": 3.0, "plain BN": 4.0}
        | {"CGBN": 4 * ours, "CGBN, recomputed": 4 * again}
        for size, (ours, again) in zip((16, 32, 64), [(9.0, 9.0), *ratios], strict=True)
    ]
    return {"rows": rows}


def answer(name: str, found: Mapping[tuple[str, int], Any], scale: LabScale = FULL) -> str:
    (verdict,) = [one for one in verdicts(scale, found) if one.hypothesis.name == name]
    assert verdict.numbers
    return verdict.answer


def table2(batch: int, factor: float = 1.0, *, warmup: bool = True) -> LabRun:
    return next(r for r in TABLE2 if (r.batch, r.rate_factor, r.warmup) == (batch, factor, warmup))


COLD = {table2(batch, warmup=False): X for batch in (16, 32, 64)}
ENDS: Sequence[tuple[str, Ends, str]] = (
    ("H1", {table2(64): X}, SEEN),
    ("H1", {table2(64): (X, 50, X)}, SEEN),  # most seeds
    ("H1", {table2(64): (X, 50, 50), table2(32): (50, X, 50)}, NOT_SEEN),  # no batch with most
    ("H1", {}, NOT_SEEN),
    ("H1", {table2(64, 0.5): X, **COLD}, NOT_SEEN),  # neither is full rate with warm-up
    ("H1", {table2(64): X, table2(8): (50, 50, X)}, NOT_SEEN),
    ("H2", {}, OPEN),
    ("H2", {table2(64): X, table2(64, 0.5): X}, NOT_SEEN),
    ("H2", {table2(64): X, table2(64, 0.5): (40, X, 40)}, NOT_SEEN),
    ("H2", {table2(64): X, table2(64, 0.5): (40, 49.9, 30)}, SEEN),
    ("H2", {table2(64): X, table2(64, 0.5): (40, 50, 30)}, NOT_SEEN),  # one is not below
    ("H2", {table2(64): X, table2(64, 0.5): 40, table2(8): (50, 50, X)}, OPEN),
    ("H2", {table2(64): X, table2(32): X, table2(64, 0.5): X, table2(32, 0.5): 45}, SEEN),
    (
        "H2",
        {table2(64): X, table2(32): X, table2(64, 0.5): 40, table2(32, 0.5): 51},
        SEEN,  # one such batch is enough
    ),
    ("H2", {table2(16, 0.5): 40, table2(64): X, table2(64, 0.5): X}, NOT_SEEN),  # 16 had trained
    ("H3", COLD, SEEN),
    ("H3", {table2(64, warmup=False): (50, X, 50)}, SEEN),
    ("H3", {}, NOT_SEEN),
    ("H3", {**COLD, table2(64): X}, SEEN),  # with and without
    ("H3", {**COLD, table2(64): X, table2(64, warmup=False): (X, 50, X)}, NOT_SEEN),
    ("H4", {}, SEEN),
    ("H4", {cgbn(16): (50, 50, X)}, NOT_SEEN),
    ("H4", {cgbn(8, processes=2): (50, X, 50)}, NOT_SEEN),
    ("H4", {cgbn(256, updates=125): X}, NOT_SEEN),
    ("H4", {LabRun(256, "frozen", updates=125): X}, SEEN),
    ("H8", {cgbn(64, bn_size=2): (48, 49, 48.5)}, SEEN),
    ("H8", {cgbn(64, bn_size=2): (40, 40, 50.1)}, NOT_SEEN),  # not of one sign
    ("H8", {cgbn(64, bn_size=2): (49.9, 40, 49)}, NOT_SEEN),  # mean -3.7, two errors 6.2
    ("H8", {cgbn(64, bn_size=2): (52, 52, 52.1)}, NOT_SEEN),  # above
    ("H8", {cgbn(64, bn_size=2): (48, X, 48.5)}, OPEN),
    ("H8", {cgbn(64, bn_size=32): (48, X, 48.5)}, OPEN),
    ("H8", {cgbn(64, bn_size=4): X, cgbn(64, bn_size=2): (48, 49, 48.5)}, SEEN),
)


@pytest.mark.parametrize(("name", "ends", "wanted"), ENDS)
def test_what_becomes_of_trainings_is_judged(name: str, ends: Ends, wanted: str) -> None:
    assert answer(name, everything(ends)) == wanted


@pytest.mark.parametrize(
    ("ours", "frozen", "wanted"),
    [
        ((51, 52, 51), (50, 50, 50), SEEN),
        ((49, 48, 49), (50, 50, 50), SEEN),  # any sign
        ((51, 52, 49), (50, 50, 50), NOT_SEEN),
        ((51, 58, 50.1), (50, 50, 50), NOT_SEEN),  # mean 3.03, two errors 4.99
        ((51, 62, 70), (50, 60, 69), SEEN),  # within seeds: 1, 2, 1
        ((51, 52, 51), (50, X, 50), OPEN),
    ],
)
def test_norms_are_compared_in_pairs(
    ours: Sequence[float], frozen: Sequence[float | None], wanted: str
) -> None:
    ends: Ends = {cgbn(64): ours, table2(64): frozen}
    assert answer("H13", everything(ends, GRADUAL), GRADUAL) == wanted


def rates(largest: Mapping[tuple[int, str], float], scale: LabScale) -> Ends:
    """Up to which multiple of k·r each trains."""
    ends: dict[LabRun, float | None] = {}
    for run in rate_runs(scale):
        top = largest.get((run.batch, run.norm), 1.0 if run.norm == "frozen" else 2.0)
        ends[run] = 50.0 if run.rate_factor <= top else X
    return ends


@pytest.mark.parametrize(
    ("largest", "wanted"),
    [
        ({}, SEEN),
        ({(8, "cgbn"): 1.0}, NOT_SEEN),  # level
        ({(64, "cgbn"): 0.5}, NOT_SEEN),
        ({(64, "cgbn"): 0.0}, NOT_SEEN),  # none, beside one
        ({(64, "frozen"): 0.0}, SEEN),  # one, beside none
        ({(64, "frozen"): 0.0, (64, "cgbn"): 0.0}, OPEN),  # none of those tried
        ({(8, "frozen"): 16.0, (8, "cgbn"): 16.0}, OPEN),  # all of them
        ({(8, "frozen"): 16.0, (8, "cgbn"): 16.0, (64, "cgbn"): 1.0}, NOT_SEEN),
    ],
)
@pytest.mark.parametrize("scale", [FULL, GRADUAL], ids=["full", "gradual"])
def test_the_largest_rate_is_compared_at_every_batch(
    largest: Mapping[tuple[int, str], float], wanted: str, scale: LabScale
) -> None:
    assert answer("H6", everything(rates(largest, scale), scale), scale) == wanted


def test_level_is_what_is_nearer_at_the_end_than_early() -> None:
    small, large = (run.name for run in FIGURE4)
    found = everything({})
    for seed in range(3):
        found[small, seed] = of_figure4(curve(40, 50))
        found[large, seed] = of_figure4(curve(30, 49))
    assert answer("H7", found) == SEEN
    found[large, 1] = of_figure4(curve(30, 40))  # 10 behind, early and at the end
    assert answer("H7", found) == NOT_SEEN
    found[large, 1] = of_figure4(curve(30, 61))  # 10 behind, then 11 ahead
    assert answer("H7", found) == NOT_SEEN
    found[large, 1] = of_figure4({e: ap for e, ap in curve(30, 49).items() if e != 7})
    assert answer("H7", found) == OPEN
    found[large, 1] = of_training(X)
    assert answer("H7", found) == OPEN
    # All of the early epochs count: 2 behind, 50 in the eleventh, 5 at the end.
    found[large, 1] = of_figure4({**curve(38, 45), 11: -5.0})
    assert answer("H7", found) == SEEN
    # Behind epoch 11 only the end counts: 2 behind early, 5 at the end, much in between.
    between = {epoch: 10.0 for epoch in range(12, 18)}
    found[large, 1] = of_figure4({**curve(38, 45), **between})
    assert answer("H7", found) == NOT_SEEN
    found[large, 1] = of_figure4({**curve(30, 10), 18: 49.0})
    assert answer("H7", found) == SEEN


@pytest.mark.parametrize(
    ("slope", "spread", "wanted"),
    [
        (-1.1, -0.4, (SEEN, SEEN)),
        (-0.9, -0.6, (SEEN, SEEN)),
        (-0.89, -0.5, (NOT_SEEN, SEEN)),
        (-1.11, -0.61, (NOT_SEEN, NOT_SEEN)),
        (-1.0, -0.39, (SEEN, NOT_SEEN)),
    ],
)
@pytest.mark.parametrize("name", ["variance-frozen-start", "variance-cgbn-end"])
def test_slopes_are_those_of_every_norm_seed_and_end(
    name: str, slope: float, spread: float, wanted: tuple[str, str]
) -> None:
    found = everything({})
    found[name, 2] = variance(slope, spread)
    assert (answer("H10", found), answer("H11", found)) == wanted


def test_costs_are_those_at_32_and_64() -> None:
    found = everything({})
    assert answer("H12", found) == SEEN
    for dear in (((1.101, 1.3), (1.0, 1.0)), ((1.0, 1.0), (1.0, 1.401))):
        assert answer("H12", {("overhead", 4): overhead(*dear)}) == NOT_SEEN
    assert answer("H12", {("overhead", 4): overhead((1.1, 1.4), (1.1, 1.4))}) == SEEN
    assert answer("H12", {("overhead", 4): {"rows": overhead((1, 1), (1, 1))["rows"][:2]}}) == OPEN


@pytest.mark.parametrize("scale", [FULL, GRADUAL], ids=["full", "gradual"])
def test_nothing_is_concluded_before_all_is_there(scale: LabScale) -> None:
    found = everything({}, scale)
    for one in HYPOTHESES[scale.name]:
        if one.judge is None:
            assert answer(one.name, {}, scale) == DECLARED
            continue
        assert answer(one.name, found, scale) in (SEEN, NOT_SEEN, OPEN)
        names = {getattr(run, "name", run) for run in (*one.each, *one.once(scale))}
        needed = [key for key in found if key[0] in names]
        assert needed
        for key in needed:
            without = {other: record for other, record in found.items() if other != key}
            assert answer(one.name, without, scale) == NOT_COMPLETE, key
    assert verdicts(FULL, {})[0].numbers == "not there yet: 12 of 12 records (of seed 0, 1, 2)"


def test_what_one_seed_runs_is_judged_by_the_seed_that_has_it() -> None:
    found = everything({})
    rated = {run.name for run in rate_runs(FULL)}
    moved = {(name, 5 if name in rated else seed): r for (name, seed), r in found.items()}
    assert answer("H6", moved) == answer("H6", found) == OPEN
    assert answer("H6", {**moved, (min(rated), 2): of_training(50)}) == NOT_COMPLETE


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([1.0, 2.0, 6.0], False),  # mean 3, s/√3 = 1.53: 3 < 3.06
        ([1.1, 2.1, 6.0], True),  # mean 3.07, s/√3 = 1.49: 3.07 > 2.99
        ([-1.1, -2.1, -6.0], True),
        ([0.0, 5.0, 5.0], False),
        ([-0.1, 5.0, 5.0], False),
        ([2.0], False),
        ([], False),
    ],
)
def test_two_standard_errors(pairs: Sequence[float], wanted: bool) -> None:
    assert apart(pairs) == wanted


def test_criteria_are_quoted_as_they_were_registered() -> None:
    pages = [(DOCS / f"registration{kind}.md").read_text("utf-8") for kind in ("", "-gradual")]
    cells = {row[0]: row[-1] for row in map(_cells, pages[0].splitlines()) if row}
    (cells["H13"],) = [row[1] for row in map(_cells, pages[1].splitlines()) if row[:1] == ["H13"]]
    for one in {*HYPOTHESES["full"], *HYPOTHESES["gradual"]}:
        if one.judge is None:
            assert cells[one.name] == "not judged: see below"
        else:
            assert cells[one.name] == one.criterion
    assert {one.name for one in HYPOTHESES["full"]} | {"H13"} == cells.keys()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]] if re.match(r"\| H\d", line) else []
