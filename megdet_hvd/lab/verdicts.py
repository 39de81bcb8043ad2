"""Whether a registered hypothesis is met: a criterion as a pure function of records.

An answer is *seen* or *not seen* once every record that the criterion speaks of is there; before
that it is *not complete*, whatever the records so far say. *Can't be judged* is a criterion whose
comparison has no two sides: a difference in mmAP with a training that diverged, or rates that all
train.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megdet_hvd.lab.experiments import Found, final_ap
from megdet_hvd.lab.records import LabRecord
from megdet_hvd.lab.runs import LabRun
from megdet_hvd.lab.scale import LabScale
from megdet_hvd.wording import counted

SEEN, NOT_SEEN, OPEN = "seen", "not seen", "can't be judged"
NOT_COMPLETE, DECLARED = "not complete", "not judged"


@dataclass(frozen=True)
class Evidence:
    """Records that are all there, as a criterion asks for them."""

    scale: LabScale
    found: Found

    def of(self, run: LabRun | str) -> list[LabRecord]:
        """By seed; a single one, of what one seed has."""
        keys = sorted(key for key in self.found if key[0] == name_of(run))
        return [self.found[key] for key in keys]

    def trained(self, run: LabRun) -> list[bool]:
        """Whether it did, by seed."""
        return [record["diverged"] is None for record in self.of(run)]

    def points(self, run: LabRun) -> list[float | None]:
        """MmAP at the end in hundredths, by seed; None: diverged, or not measured."""
        return [None if (ap := final_ap(r)) is None else 100 * ap for r in self.of(run)]


Answered = tuple[str, str]
"""The answer, and the numbers it rests on."""


@dataclass(frozen=True)
class Hypothesis:
    """One line of the registration's table."""

    name: str
    experiment: str
    criterion: str
    """What counts as seen here, in the registration's words."""
    judge: Callable[[Evidence], Answered] | None = None
    """None: declared beforehand as not to be decided at this size."""
    each: tuple[LabRun | str, ...] = ()
    """Records that every seed must have."""
    once: Callable[[LabScale], Sequence[LabRun | str]] = lambda scale: ()
    """Records that one seed must have."""


@dataclass(frozen=True)
class Judged:
    """What became of a hypothesis."""

    hypothesis: Hypothesis
    answer: str
    numbers: str


def judged(hypothesis: Hypothesis, scale: LabScale, found: Found) -> Judged:
    """Hold the records of a scale against one criterion.

    ``found`` may have more records than are asked for. Those of other than the registered seeds
    count for what is run with one seed alone.
    """
    if hypothesis.judge is None:
        return Judged(hypothesis, DECLARED, "declared beforehand as not to be decided here")
    needed = {(name_of(run), seed) for run in hypothesis.each for seed in scale.seeds}
    once = [name_of(run) for run in hypothesis.once(scale)]
    begun = min((seed for name, seed in found if name in once), default=scale.seeds[0])
    needed |= {(name, begun) for name in once}
    missing = needed - found.keys()
    if missing:
        seeds = ", ".join(str(seed) for seed in sorted({seed for _, seed in missing}))
        short = f"{len(missing)} of {counted(len(needed), 'record')}"
        return Judged(hypothesis, NOT_COMPLETE, f"not there yet: {short} (of seed {seeds})")
    evidence = Evidence(scale, {key: found[key] for key in needed})
    return Judged(hypothesis, *hypothesis.judge(evidence))


def apart(pairs: Sequence[float]) -> bool:
    """Whether paired differences are "more than two standard errors": |mean| > 2·s/√n, one sign."""
    one_sign = all(one > 0 for one in pairs) or all(one < 0 for one in pairs)
    return len(pairs) > 1 and one_sign and abs(statistics.fmean(pairs)) > 2 * _error(pairs)


def _error(pairs: Sequence[float]) -> float:
    """Standard error of their mean, s/√n."""
    return statistics.stdev(pairs) / math.sqrt(len(pairs))


def paired_points(evidence: Evidence, run: LabRun, other: LabRun) -> list[float] | None:
    """Of mmAP in points within each seed; None where one has none."""
    pairs = list(zip(evidence.points(run), evidence.points(other), strict=True))
    known = [one - two for one, two in pairs if one is not None and two is not None]
    return known if len(known) == len(pairs) else None


def points_apart(pairs: Sequence[float]) -> str:
    """``-1.0 -2.0 points, mean -1.50, two standard errors 1.00``."""
    each = " ".join(f"{one:+.1f}" for one in pairs)
    text = f"{each} points, mean {statistics.fmean(pairs):+.2f}"
    return text + (f", two standard errors {2 * _error(pairs):.2f}" if len(pairs) > 1 else "")


def name_of(run: LabRun | str) -> str:
    """Of its record."""
    return run if isinstance(run, str) else run.name
