"""The model held against published runs that it was not fitted on (docs/plan.md has the tables).

Goals, set before: a, median 8 % and worst 20 %; b, median 12 % and worst 30 %.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from megdet_hvd.plan.fit import (
    FULL,
    LINE,
    Shared,
    SharedFit,
    Variant,
    known_point,
    known_stack,
    predicted_s,
)
from megdet_hvd.plan.published import PublishedRun, mlperf_runs
from megdet_hvd.plan.split import Stack, stacks

GOALS = {"a": (0.08, 0.20), "b": (0.12, 0.30)}
"""Median and worst error, in parts of the measured step."""
ALONE: dict[str, Variant] = {
    "all terms": FULL,
    "without stragglers": Variant(communication=True, stragglers=False),
    "without communication": Variant(communication=False, stragglers=True),
    "baseline, neither": LINE,
}


@dataclass(frozen=True)
class Held:
    """A row that had to be predicted."""

    stack: str
    run: PublishedRun
    model_s: float
    left_out_s: float
    """The same, where this stack had no part in the shared constants."""
    baseline_s: float
    """A line without communication and stragglers; in b its n₀ from the other stacks."""

    def error(self, seconds: float) -> float:
        """In parts of what was measured; above 0: predicted too slow."""
        return seconds / self.run.step_s - 1


@dataclass(frozen=True)
class HeldOut:
    """All of it."""

    shared: Shared
    baseline: Shared
    a: tuple[Held, ...]
    b: tuple[Held, ...]
    """Here ``left_out_s`` is what counts, and ``model_s`` has the stack's own rows in n₀ and σ."""
    c: tuple[Held, ...]
    stacks: tuple[Stack, ...]

    @property
    def free_parameters(self) -> tuple[int, int, int]:
        """Shared; a stack's own, all of a; all of b."""
        fitted = sum(2 for stack in self.stacks if stack.test)
        return 2, fitted, sum(1 for stack in self.stacks if stack.point_test)


def median_worst(errors: Sequence[float]) -> tuple[float, float]:
    """Of their sizes."""
    sizes = [abs(error) for error in errors]
    return statistics.median(sizes), max(sizes)


@cache
def validate() -> HeldOut:
    """Fit, and predict what was set apart. Some seconds."""
    found = stacks(mlperf_runs())
    full, line = SharedFit(FULL), SharedFit(LINE)
    shared, baseline = full.fit(found), line.fit(found)
    rows: dict[str, list[Held]] = {"a": [], "b": [], "c": []}
    for stack in found:
        others = [other for other in found if other is not stack]
        left_out, left_line = full.fit(others), line.fit(others)
        for goal, runs, predicted, its_line in (
            ("a", stack.test, _of_stack, baseline),
            ("b", stack.point_test, _of_point, left_line),
            ("c", stack.single_image, _of_stack, baseline),
        ):
            rows[goal] += [
                Held(
                    stack.name,
                    run,
                    predicted(stack, run, shared, FULL),
                    predicted(stack, run, left_out, FULL),
                    predicted(stack, run, its_line, LINE),
                )
                for run in runs
            ]
    return HeldOut(shared, baseline, tuple(rows["a"]), tuple(rows["b"]), tuple(rows["c"]), found)


def _of_stack(stack: Stack, run: PublishedRun, shared: Shared, variant: Variant) -> float:
    compute = known_stack(stack.fit, shared.spread, variant)
    return predicted_s(run, compute, shared.spread, variant)


def _of_point(stack: Stack, run: PublishedRun, shared: Shared, variant: Variant) -> float:
    assert stack.point is not None
    compute = known_point(stack.point, shared, variant)
    return predicted_s(run, compute, shared.spread, variant)


@dataclass(frozen=True)
class Ablation:
    """Errors with terms left out."""

    name: str
    a: tuple[float, float]
    b: tuple[float, float]


@cache
def ablations() -> tuple[Ablation, ...]:
    """Each variant fitted and left out by itself: what a term is worth on these rows."""
    found = stacks(mlperf_runs())
    result = []
    for name, variant in ALONE.items():
        fitting = SharedFit(variant)
        errors: dict[str, list[float]] = {"a": [], "b": []}
        for stack in found:
            shared = fitting.fit([other for other in found if other is not stack])
            errors["a"] += [
                _of_stack(stack, run, shared, variant) / run.step_s - 1 for run in stack.test
            ]
            errors["b"] += [
                _of_point(stack, run, shared, variant) / run.step_s - 1 for run in stack.point_test
            ]
        result.append(Ablation(name, median_worst(errors["a"]), median_worst(errors["b"])))
    return tuple(result)
