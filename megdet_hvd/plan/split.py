"""Which published rows the model is fitted on, and which it must predict: a rule, not a choice.

Written down, and committed, before anything was fitted. A *stack* is one submitter's systems of
one MLPerf round with the same GPU. Rows at 1 image a GPU are never fitted on and never scored.

- **a, a known stack.** Its two numbers come from its smallest system, and the next larger one with
  another number of images a GPU. Every system larger than both is a test.
- **b, one machine known.** One number comes from the smallest system, which must be one machine.
  Every larger system is a test, unless it, too, is one machine with as many images a GPU. All
  shared constants come from the other stacks.

Of systems with equally many GPUs the first by name counts as the smaller.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from megdet_hvd.plan.published import PublishedRun

FEWEST_IMAGES = 2
"""Images a GPU of the rows that are fitted and scored."""


@dataclass(frozen=True)
class Stack:
    """A stack's rows by their part."""

    key: tuple[str, str, str]
    fit: tuple[PublishedRun, ...]
    """Goal a: the two rows that its numbers come from; empty where there are no two."""
    test: tuple[PublishedRun, ...]
    """Goal a: what they must predict."""
    point: PublishedRun | None
    """Goal b: the one row that is known."""
    point_test: tuple[PublishedRun, ...]
    """Goal b: what it must predict."""
    single_image: tuple[PublishedRun, ...]
    """At 1 image a GPU: shown, neither fitted nor scored."""

    @property
    def name(self) -> str:
        """In words."""
        version, _, gpu = self.key
        shown = self.fit[0] if self.fit else self.point
        return f"{version} {self.key[1] if shown is None else shown.submitter} {gpu}"


def stacks(runs: Iterable[PublishedRun]) -> tuple[Stack, ...]:
    """All stacks with something to fit, to predict or to show, in the order of the rows."""
    grouped: dict[tuple[str, str, str], list[PublishedRun]] = {}
    for run in runs:
        grouped.setdefault(run.stack, []).append(run)
    found = (_stack(key, rows) for key, rows in grouped.items())
    return tuple(s for s in found if s.fit or s.point_test)


def _stack(key: tuple[str, str, str], rows: list[PublishedRun]) -> Stack:
    ordered = sorted(rows, key=lambda run: (run.ranks, run.system))
    scored = [run for run in ordered if run.images >= FEWEST_IMAGES]
    fit: tuple[PublishedRun, ...] = ()
    first = scored[0] if scored else None
    if first is not None:
        other = next((run for run in scored if run.images != first.images), None)
        fit = () if other is None else (first, other)
    point = first if first is not None and first.machines == 1 else None
    return Stack(
        key=key,
        fit=fit,
        test=tuple(run for run in scored if fit and run.ranks > max(r.ranks for r in fit)),
        point=point,
        point_test=tuple(
            run
            for run in scored
            if point is not None
            and run.ranks > point.ranks
            and (run.images != point.images or run.machines != 1)
        ),
        single_image=tuple(run for run in ordered if run.images < FEWEST_IMAGES),
    )
