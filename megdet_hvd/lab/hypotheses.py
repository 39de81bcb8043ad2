"""What is registered in docs/lab/registration*.md, each criterion as a function of records.

Where the registration leaves a word open it is read so: "most seeds" are more than half of them;
H2's batch diverged at the full rate with most seeds, and trains at half of it with all; H3 takes a
batch with a seed as one case; H7's difference is smaller by its size, whoever is ahead.
"""

import statistics
from collections.abc import Callable, Sequence

from megdet_hvd.lab.experiments import Found, curve_of
from megdet_hvd.lab.gradients import log_slope, spread_slope
from megdet_hvd.lab.overhead import SIDES
from megdet_hvd.lab.records import LabRecord
from megdet_hvd.lab.runs import (
    BN_SIZE_RUNS,
    FIGURE4,
    TABLE2,
    TABLE3,
    TABLE3_TWICE,
    LabRun,
    judged_runs,
    rate_runs,
)
from megdet_hvd.lab.scale import BATCHES, FULL, GRADUAL, LabScale
from megdet_hvd.lab.sitting import OVERHEAD, VARIANCE_AT
from megdet_hvd.lab.verdicts import (
    NOT_SEEN,
    OPEN,
    SEEN,
    Answered,
    Evidence,
    Hypothesis,
    Judged,
    apart,
    judged,
    name_of,
    paired_points,
    points_apart,
)

SLOPE_TOLERANCE = 0.1
CGBN_RATIO, RECOMPUTED_RATIO = 1.1, 1.4
"""Of a step to one with plain BN, at most (H12)."""
JUDGED_SIZES = (32, 64)
"""Images a statistic that H12 speaks of."""
FIRST_DROP = 11
"""Epoch of *long*'s; the early epochs of H7 are those up to it."""


def _full_rate(*, warmup: bool) -> list[LabRun]:
    """The larger batches of table 2 at k·r."""
    return [run for run in TABLE2[1:] if run.rate_factor == 1 and run.warmup == warmup]


def _answer(seen: bool) -> str:
    return SEEN if seen else NOT_SEEN


def _most_diverged(trained: Sequence[bool]) -> bool:
    return 2 * trained.count(False) > len(trained)


def _ends(evidence: Evidence, runs: Sequence[LabRun]) -> str:
    """``diverged: 0 of 3 at 8, 2 of 3 at 16``."""
    ends = [(run.batch, evidence.trained(run)) for run in runs]
    each = (f"{trained.count(False)} of {len(trained)} at {batch}" for batch, trained in ends)
    return f"diverged: {', '.join(each)}"


def _h1(evidence: Evidence) -> Answered:
    large = _full_rate(warmup=True)
    fails = any(_most_diverged(evidence.trained(run)) for run in large)
    seen = all(evidence.trained(TABLE2[0])) and fails
    return _answer(seen), _ends(evidence, [TABLE2[0], *large])


def _h2(evidence: Evidence) -> Answered:
    diverged = {
        run.batch for run in _full_rate(warmup=True) if _most_diverged(evidence.trained(run))
    }
    if not diverged:
        return OPEN, "no batch diverged at the full rate with most seeds"
    halves = [run for run in TABLE2 if run.rate_factor == 0.5 and run.batch in diverged]
    rescued = [run for run in halves if all(evidence.trained(run))]
    if not rescued:
        return NOT_SEEN, f"at half the rate, {_ends(evidence, halves)}"
    numbers, below = [], []
    for run in rescued:
        pairs = paired_points(evidence, run, TABLE2[0])
        if pairs is None:
            return OPEN, f"no mmAP of k = 1, or of {run.batch} at half the rate, with every seed"
        below.append(all(pair < 0 for pair in pairs))
        numbers.append(f"{run.batch} at half the rate less k = 1: {points_apart(pairs)}")
    return _answer(any(below)), "; ".join(numbers)


def _h3(evidence: Evidence) -> Answered:
    helped: list[str] = []
    harmed: list[str] = []
    pairs = zip(_full_rate(warmup=True), _full_rate(warmup=False), strict=True)
    for warm, cold in pairs:
        ends = zip(evidence.trained(warm), evidence.trained(cold), strict=True)
        for seed, (with_it, without) in zip(evidence.scale.seeds, ends, strict=True):
            if with_it != without:
                (helped if with_it else harmed).append(f"{warm.batch} of seed {seed}")
    numbers = (
        f"train only with it: {', '.join(helped) or 'none'}; "
        f"only without: {', '.join(harmed) or 'none'}"
    )
    return _answer(bool(helped) and not harmed), numbers


def _h4(evidence: Evidence) -> Answered:
    runs = [*TABLE3, TABLE3_TWICE, *_judged_cgbn(evidence.scale)]
    trained = [end for run in runs for end in evidence.trained(run)]
    at = {run.batch: run for run in runs if run.processes == 1}
    two = f"; on 2 processes, {_ends(evidence, [TABLE3_TWICE])}"
    return _answer(all(trained)), _ends(evidence, list(at.values())) + two


def _judged_cgbn(scale: LabScale) -> list[LabRun]:
    return [run for run in judged_runs(scale) if run.norm == "cgbn"]


def _h6(evidence: Evidence) -> Answered:
    scale, answers, numbers = evidence.scale, [], []
    for batch in BATCHES:
        largest: dict[str, float] = {}
        highest = 0.0
        for run in (run for run in rate_runs(scale) if run.batch == batch):
            highest = max(highest, rate := run.peak_rate(scale))
            if all(evidence.trained(run)):
                largest[run.norm] = max(largest.get(run.norm, 0.0), rate)
        ours, frozen = largest.get("cgbn", 0.0), largest.get("frozen", 0.0)
        unknown = ours == frozen and ours in (0.0, highest)
        answers.append(OPEN if unknown else _answer(ours > frozen))
        words = [f"{rate:g}" if rate else "none" for rate in (ours, frozen)]
        edge = (" (the highest tried)" if ours else " (of those tried)") if unknown else ""
        numbers.append(f"at {batch}: {' : '.join(words)}{edge}")
    worst = next((one for one in (NOT_SEEN, OPEN) if one in answers), SEEN)
    return worst, f"largest rate that trains, CGBN : frozen, {'; '.join(numbers)}"


def _h7(evidence: Evidence) -> Answered:
    small, large = (
        [{e: 100 * ap for e, ap in curve_of(r).items()} for r in evidence.of(run)]
        for run in FIGURE4
    )
    if not all(None not in evidence.points(run) for run in FIGURE4):
        return OPEN, f"mmAP is missing at the end; {_ends(evidence, FIGURE4)}"
    epochs = range(1, FIRST_DROP + 1)
    smaller, numbers = [], []
    for seed, one, other in zip(evidence.scale.seeds, small, large, strict=True):
        if not all(epoch in one and epoch in other for epoch in epochs):
            return OPEN, f"seed {seed} has no mmAP of some epoch up to {FIRST_DROP}"
        early = statistics.fmean(other[epoch] - one[epoch] for epoch in epochs)
        end = other[max(other)] - one[max(one)]
        smaller.append(abs(end) < abs(early))
        numbers.append(f"{early:+.1f} and {end:+.1f}")
    heading = f"64 less 8 in points, mean of epochs 1 … {FIRST_DROP} and end: "
    return _answer(all(smaller)), heading + "; ".join(numbers)


def _h8(evidence: Evidence) -> Answered:
    two, best = (next(run for run in BN_SIZE_RUNS if run.bn_size == size) for size in (2, 32))
    pairs = paired_points(evidence, two, best)
    if pairs is None:
        trained = [f"at {run.bn_size}: {evidence.trained(run).count(False)}" for run in (two, best)]
        return OPEN, f"seeds that diverged {', '.join(trained)}"
    seen = apart(pairs) and all(pair < 0 for pair in pairs)
    return _answer(seen), f"2 less 32: {points_apart(pairs)}"


def _variance_names(*norms: str) -> tuple[str, ...]:
    return tuple(f"variance-{norm}-{at}" for norm in norms for at in VARIANCE_AT)


def _slopes(evidence: Evidence, wanted: float, slope: Callable[[LabRecord], float]) -> Answered:
    within, numbers = [], []
    for name in _variance_names("frozen", "cgbn"):
        slopes = [slope(record) for record in evidence.of(name)]
        within += [abs(found - wanted) <= SLOPE_TOLERANCE + 1e-9 for found in slopes]
        each = " ".join(f"{found:.3f}" for found in slopes)
        numbers.append(f"{name.removeprefix('variance-')} {each}")
    return _answer(all(within)), "; ".join(numbers)


def _h10(evidence: Evidence) -> Answered:
    def slope(record: LabRecord) -> float:
        rows = record["rows"]
        return log_slope([row["images"] for row in rows], [row["variance"] for row in rows])

    return _slopes(evidence, -1.0, slope)


def _h11(evidence: Evidence) -> Answered:
    return _slopes(evidence, -0.5, lambda record: spread_slope(record["rows"]))


def _h12(evidence: Evidence) -> Answered:
    (record,) = evidence.of(OVERHEAD)
    _, plain, ours, recomputed = SIDES
    within, numbers = [], []
    for row in (row for row in record["rows"] if row["bn_size"] in JUDGED_SIZES):
        ratios = row[ours] / row[plain], row[recomputed] / row[plain]
        within.append(ratios[0] <= CGBN_RATIO and ratios[1] <= RECOMPUTED_RATIO)
        numbers.append(f"at {row['bn_size']}: {ratios[0]:.3f}, recomputed {ratios[1]:.3f}")
    if len(within) != len(JUDGED_SIZES):
        return OPEN, f"not measured at {' and '.join(map(str, JUDGED_SIZES))}"
    return _answer(all(within)), "; ".join(numbers)


def _h13(evidence: Evidence) -> Answered:
    ours, frozen = TABLE3[-1], _full_rate(warmup=True)[-1]
    pairs = paired_points(evidence, ours, frozen)
    if pairs is None:
        ends = (f"{run.norm} {_ends(evidence, [run])}" for run in (ours, frozen))
        return OPEN, "; ".join(ends)
    return _answer(apart(pairs)), f"CGBN less frozen at 64: {points_apart(pairs)}"


H13 = Hypothesis(
    "H13",
    "`table2`, `table3`",
    "CGBN and frozen BN differ by more than two standard errors at k = 8, the pairs of three "
    "seeds, `table3` less `table2` (any sign; the paper: CGBN is better)",
    _h13,
    each=(TABLE2[-3], TABLE3[-1]),
)
OF_TRAININGS = (
    Hypothesis(
        "H1",
        "`table2`",
        "k = 1 trains with all seeds, and at least one larger batch diverges with most seeds",
        _h1,
        each=(TABLE2[0], *_full_rate(warmup=True)),
    ),
    Hypothesis(
        "H2",
        "`table2`",
        "such a batch exists, and its mmAP is below k = 1 with all seeds",
        _h2,
        each=tuple(run for run in TABLE2 if run.warmup),
    ),
    Hypothesis(
        "H3",
        "`table2`",
        "no batch diverges with it that trains without, and one trains with it that diverges "
        "without",
        _h3,
        each=(*_full_rate(warmup=True), *_full_rate(warmup=False)),
    ),
    Hypothesis(
        "H4",
        "`table3`, `large`",
        "none diverges with any seed, k = 16 and 32 included",
        _h4,
        each=(*TABLE3, TABLE3_TWICE),
        once=_judged_cgbn,
    ),
    Hypothesis("H5", "`table3`", "larger batches are as accurate (the paper)"),
    Hypothesis(
        "H6",
        "`rates`",
        "at every batch the largest rate that trains is higher with CGBN than with frozen BN",
        _h6,
        once=rate_runs,
    ),
    Hypothesis(
        "H7",
        "`figure4`",
        "the difference at the end is smaller than at the mean of epochs 1 … 11, with all seeds",
        _h7,
        each=FIGURE4,
    ),
    Hypothesis(
        "H8",
        "`bn_size`",
        "mmAP at 2 is below that at 32 with all seeds, by more than two standard errors",
        _h8,
        each=tuple(run for run in BN_SIZE_RUNS if run.bn_size in (2, 32)),
    ),
    Hypothesis("H9", "`bn_size`", "32 is best, 64 slightly worse (the paper)"),
)
OF_MEASUREMENTS = (
    Hypothesis(
        "H10",
        "`variance`",
        "over 512 pictures cut into batches of N = 1 … 64: slope within −1 ± 0.1 with frozen BN "
        "(where it must be so), and with CGBN",
        _h10,
        each=_variance_names("frozen", "cgbn"),
    ),
    Hypothesis(
        "H11",
        "`variance`",
        "the spread of a batch's share of positives falls with N, slope −0.5 ± 0.1",
        _h11,
        each=_variance_names("frozen", "cgbn"),
    ),
    Hypothesis(
        "H12",
        "`overhead`",
        "a step with CGBN is at most 1.1, with recomputation at most 1.4 times one with plain BN, "
        "at 32 and 64",
        _h12,
        once=lambda scale: (OVERHEAD,),
    ),
)
HYPOTHESES = {
    FULL.name: (*OF_TRAININGS, *OF_MEASUREMENTS),
    GRADUAL.name: (*OF_TRAININGS, H13),
}
"""By scale. What hangs on no schedule is measured for the first registration alone."""


def verdicts(scale: LabScale, found: Found) -> list[Judged]:
    """All hypotheses that are registered for a scale; none where none is."""
    return [judged(one, scale, found) for one in HYPOTHESES.get(scale.name, ())]


def names_asked(scale: LabScale) -> tuple[set[str], set[str]]:
    """The records that the scale's hypotheses speak of: of each seed, and of one."""
    ours = HYPOTHESES.get(scale.name, ())
    each = {name_of(run) for one in ours for run in one.each}
    return each, {name_of(run) for one in ours for run in one.once(scale)}
