"""The paper's experiments: which trainings each needs, and the table that it ends in."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from megdet_hvd.lab.records import LabRecord
from megdet_hvd.lab.runs import (
    BN_SIZE_RUNS,
    FIGURE4,
    TABLE2,
    TABLE3,
    TABLE3_TWICE,
    TUNING,
    LabRun,
    judged_runs,
    rate_runs,
)
from megdet_hvd.lab.scale import BATCHES, LabScale
from megdet_hvd.plan.paper_run import paper_rows

PREDICTED_GPU, BASE_GPUS = "v100", 8
"""What k times the processes gain is not measured on two cores: `plan` says it of the paper's run,
16 pictures on 8 GPUs at k = 1."""

Found = Mapping[tuple[str, int], LabRecord]
"""Records by name of the training and seed; what is missing was not run."""


@dataclass(frozen=True)
class Experiment:
    """One table or figure of the paper, at the lab's size."""

    name: str
    title: str
    paper: str
    """What the paper found, in words."""
    runs: Callable[[LabScale], Sequence[LabRun]]
    table: Callable[[LabScale, Found, Sequence[int]], list[str]]
    once: bool = False
    """For the first seed alone."""
    beforehand: bool = False
    """No part of ``all``: what it finds is settled before the others run."""


def percent(values: Sequence[float | None]) -> str:
    """``52.1 (51.0 – 53.2)``: mean and each, in hundredths; None, a seed without it, is a dash."""
    return _mean_and_each(values, ".1f", error=False)


def points(differences: Sequence[float | None]) -> str:
    """``+1.2 ± 0.4 (+0.8 +1.6)``: mean, its standard error s/√n, and each, in hundredths."""
    return _mean_and_each(differences, "+.1f", error=True)


def _mean_and_each(values: Sequence[float | None], form: str, *, error: bool) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    text = f"{statistics.fmean(known):{form}}"
    if error and len(known) > 1:
        text += f" ± {statistics.stdev(known) / len(known) ** 0.5:.1f}"
    if len(values) == 1:
        return text
    each = ("–" if value is None else f"{100 * value:{form}}" for value in values)
    return f"{text} ({' '.join(each)})"


def final_ap(record: LabRecord | None) -> float | None:
    """MmAP at the end; None: not run, diverged, or never measured."""
    scores = [] if record is None else record["scores"]
    return scores[-1]["AP"] if scores else None


def diverged_words(records: Sequence[LabRecord]) -> str:
    """``no``, or how many of the seeds, and after how many updates."""
    at = [record["diverged"]["at"] for record in records if record["diverged"] is not None]
    if not at:
        return "no"
    where = ", ".join(map(str, at))
    return f"**{len(at)} of {len(records)}**, at update {where}"


def run_row(
    run: LabRun, scale: LabScale, found: Found, seeds: Sequence[int], baseline: LabRun
) -> list[str]:
    """Cells on what became of a training: updates, diverged, mmAP, and its pairs with another."""
    records = [found[run.name, seed] for seed in seeds if (run.name, seed) in found]
    if not records:
        return ["–", "not run", "–", "–"]
    values = [final_ap(found.get((run.name, seed))) for seed in seeds]
    pairs = [
        (final_ap(found.get((run.name, seed))), final_ap(found.get((baseline.name, seed))))
        for seed in seeds
    ]
    apart = [None if one is None or other is None else one - other for one, other in pairs]
    planned = max(record["updates"] for record in records)
    return [
        str(planned),
        diverged_words(records),
        percent(values),
        "" if run == baseline else points(apart),
    ]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


_OUTCOME = ("updates", "diverged", "mmAP, %", "to the baseline, points")


def _rate(run: LabRun, scale: LabScale) -> list[str]:
    factor = f" × {run.rate_factor:g}" if run.rate_factor != 1 else ""
    return [f"{run.batch} (k = {run.k:g})", f"{run.peak_rate(scale):g}{factor and ' (half)'}"]


def _table2(scale: LabScale, found: Found, seeds: Sequence[int]) -> list[str]:
    rows = [
        [
            *_rate(run, scale),
            "yes" if run.warmup else "no",
            *run_row(run, scale, found, seeds, TABLE2[0]),
        ]
        for run in TABLE2
    ]
    return markdown(("batch", "peak rate", "warm-up", *_OUTCOME), rows)


def _table3(scale: LabScale, found: Found, seeds: Sequence[int]) -> list[str]:
    rows = [
        [
            *_rate(run, scale),
            str(run.processes),
            *run_row(run, scale, found, seeds, TABLE3[0]),
            predicted_hours(run.k) if run.processes == 1 else "",
        ]
        for run in (*TABLE3, TABLE3_TWICE)
    ]
    paper = f"the paper's run on {PREDICTED_GPU.upper()}, h (*predicted*)"
    return markdown(("batch", "peak rate", "processes", *_OUTCOME, paper), rows)


def predicted_hours(k: float) -> str:
    """``3.24 (batch 32, 16 GPUs)``: of the paper's run on k times its 8 GPUs, by the plan."""
    (row,) = paper_rows(PREDICTED_GPU, (round(k * BASE_GPUS),))
    return f"{row.hours:.2f} (batch {row.batch}, {row.gpus} GPUs)"


def _tuning(scale: LabScale, found: Found, seeds: Sequence[int]) -> list[str]:
    rows = [
        [f"{run.peak_rate(scale):g}", *run_row(run, scale, found, seeds, run)[:3]] for run in TUNING
    ]
    return markdown(("rate", *_OUTCOME[:3]), rows)


def _figure4(scale: LabScale, found: Found, seeds: Sequence[int]) -> list[str]:
    small, large = FIGURE4
    rows = []
    curves = {run: _curves(run, found, seeds) for run in FIGURE4}
    for epoch in sorted({epoch for curve in curves.values() for epoch in curve}):
        values = [curves[run].get(epoch, {}) for run in (small, large)]
        each = [[one.get(seed) for seed in seeds] for one in values]
        apart = [
            None if one is None or other is None else other - one
            for one, other in zip(*each, strict=True)
        ]
        rows.append([f"{epoch:g}", *map(percent, each), points(apart)])
    head = ("epoch", f"batch {small.batch}", f"batch {large.batch}", "difference, points")
    return markdown(head, rows)


def _curves(run: LabRun, found: Found, seeds: Sequence[int]) -> dict[int, dict[int, float]]:
    """Epoch → seed → mmAP."""
    curve: dict[int, dict[int, float]] = {}
    for seed in seeds:
        record = found.get((run.name, seed))
        for epoch, ap in (curve_of(record) if record is not None else {}).items():
            curve.setdefault(epoch, {})[seed] = ap
    return curve


def curve_of(record: LabRecord) -> dict[int, float]:
    """Epoch → mmAP; the epoch to the next whole one, where a batch straddles two."""
    known = (score for score in record["scores"] if score["AP"] is not None)
    return {int(score["epoch"] + 1e-9): score["AP"] for score in known}


def _bn_size(scale: LabScale, found: Found, seeds: Sequence[int]) -> list[str]:
    best = next(run for run in BN_SIZE_RUNS if run.bn_size == 32)
    rows = []
    for run in BN_SIZE_RUNS:
        records = [found.get((run.name, seed), {}) for seed in seeds]
        again = [record.get("recalibrated", {}).get("AP") for record in records]
        row = run_row(run, scale, found, seeds, best)
        rows.append([str(run.bn_size), *row, percent(again)])
    head = ("images a statistic", *_OUTCOME[:3], "to 32, points", "mmAP, statistics anew, %")
    return markdown(head, rows)


def _rates(scale: LabScale, found: Found, seeds: Sequence[int]) -> list[str]:
    runs = rate_runs(scale)
    rows = []
    for batch in BATCHES:
        for norm in ("frozen", "cgbn"):
            row = [str(batch), norm]
            stable: list[float] = []
            for run in (run for run in runs if (run.batch, run.norm) == (batch, norm)):
                record = found.get((run.name, seeds[0]))
                if record is None:
                    row.append("not run")
                    continue
                end = record["diverged"]
                row.append("trains" if end is None else f"**diverges**, update {end['at']}")
                if end is None:
                    stable.append(run.peak_rate(scale))
            rows.append([*row, f"{max(stable):g}" if stable else "none"])
    factors = [f"{factor:g} × k·r" for factor in scale.rate_factors]
    return markdown(("batch", "norm", *factors, "largest that trains"), rows)


def _judged(scale: LabScale, found: Found, seeds: Sequence[int]) -> list[str]:
    rows = [
        [*_rate(run, scale), run.norm, *run_row(run, scale, found, seeds, run)[:2]]
        for run in judged_runs(scale)
    ]
    return markdown(("batch", "peak rate", "norm", *_OUTCOME[:2]), rows)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "table2",
        "Table 2: large batches without BN",
        "16 is the baseline; 32 may fail even with warm-up, though where it trains it loses no "
        "accuracy; 64 does not converge with warm-up alone and needs half the rate as well, with "
        "markedly lower accuracy; 128 fails even with both.",
        lambda scale: TABLE2,
        _table2,
    ),
    Experiment(
        "table3",
        "Table 3: large batches with CGBN",
        "16, 32, 64, 128 and 256 all converge with warm-up and full rate, at or above the "
        "baseline.",
        lambda scale: (*TABLE3, TABLE3_TWICE),
        _table3,
    ),
    Experiment(
        "figure4",
        "Figure 4: accuracy by epoch, policy long",
        "256 is worse than 16 in the early epochs and level in the last stage, after the second "
        "decay.",
        lambda scale: FIGURE4,
        _figure4,
    ),
    Experiment(
        "bn_size",
        "BN size: images a statistic",
        "2, 4 and 8 are poor; 32 is best; 64 is slightly worse.",
        lambda scale: BN_SIZE_RUNS,
        _bn_size,
    ),
    Experiment(
        "rates",
        "The largest learning rate that trains",
        "The paper scales the rate with the batch, and reports where that fails without BN; it "
        "has no such sweep.",
        rate_runs,
        _rates,
        once=True,
    ),
    Experiment(
        "large",
        "Batches of k = 16 and 32, judged by whether they diverge",
        "Without BN 128 (k = 8) fails; with CGBN 256 (k = 16) trains.",
        judged_runs,
        _judged,
        once=True,
    ),
    Experiment(
        "tuning",
        "The base rate r",
        "0.02 at a batch of 16, on another detector and other pictures.",
        lambda scale: TUNING,
        _tuning,
        once=True,
        beforehand=True,
    ),
)
