"""An experiment's records as a page with a table, and a picture."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.errors import UserError
from megdet_hvd.lab import drawing
from megdet_hvd.lab.experiments import EXPERIMENTS, Experiment, markdown
from megdet_hvd.lab.gradients import spread_slope
from megdet_hvd.lab.hypotheses import names_asked, verdicts
from megdet_hvd.lab.records import LabRecord
from megdet_hvd.lab.sitting import OVERHEAD, VARIANCE_AT, VARIANCE_KINDS, Sitting
from megdet_hvd.wording import counted

OTHERS: Mapping[str, tuple[str, str]] = {
    "variance": (
        "The gradient's variance over the batch, eqs. (2) to (4)",
        "Var(∇l_N) = σ²/N: linear scaling keeps the variance of an update, not its mean. The "
        "assumption is weaker for detection, as pictures carry different numbers of boxes.",
    ),
    OVERHEAD: (
        "What CGBN and recomputation cost",
        "Sublinear memory makes statistics over 32 or 64 images possible, at a slight loss of "
        "speed.",
    ),
}
"""Experiments that train nothing of their own: title, and the paper's finding in words."""

NOT_RUN = "not run: there is no record of it"
"""Instead of a table and a picture."""

Lines = list[str]


def write_report(sitting: Sitting, name: str, seeds: Sequence[int]) -> list[Path]:
    """Write ``SCALE-NAME.md`` and ``.png`` beside the records; returns what was written.

    Raises:
        UserError: the folder can't be written.
    """
    experiment = next((one for one in EXPERIMENTS if one.name == name), None)
    if experiment is not None:
        title, paper = experiment.title, experiment.paper
        lines, figure = _trainings(sitting, experiment, seeds)
    else:
        title, paper = OTHERS[name]
        lines, figure = (_variance if name == "variance" else _overhead)(sitting, seeds)
    stem = f"{sitting.scale.name}-{name}"
    picture = sitting.records / f"{stem}.png"
    text = [f"# {title}", "", f"*Paper:* {paper}", "", "*Measured here:*", "", *lines, ""]
    if figure is None:
        return [_page(sitting, stem, text)]
    text += [f"![{title}]({picture.name})", ""]
    page = _page(sitting, stem, text)
    with _kept(sitting):
        drawing.save_picture(figure, picture)
    return [page, picture]


def write_verdicts(sitting: Sitting) -> list[Path]:
    """Write ``SCALE-hypotheses.md``: what the registered seeds' records say of each hypothesis.

    Returns what was written: nothing where none is registered for this scale.

    Raises:
        UserError: the folder can't be written.
    """
    scale = sitting.scale
    each, once = names_asked(scale)
    found = {
        **sitting.found(scale.seeds, each),
        **sitting.found(sitting.seeds_with_record(*once), once),
    }
    rows = [
        [
            *(one.hypothesis.name, one.hypothesis.experiment, one.hypothesis.criterion),
            *(f"**{one.answer}**", one.numbers),
        ]
        for one in verdicts(scale, found)
    ]
    if not rows:
        return []
    head = ("", "experiment", "counts as seen here", "answer", "numbers, *measured here*")
    seeds = ", ".join(map(str, scale.seeds))
    text = [
        "# The hypotheses, held against the records",
        "",
        f"Judged by `megdet_hvd/lab/hypotheses.py`, from seeds {seeds}; the criteria are those of "
        "the registration.",
        "",
        *markdown(head, rows),
        "",
        *_made_on(found),
        "",
    ]
    return [_page(sitting, f"{scale.name}-hypotheses", text)]


def _page(sitting: Sitting, stem: str, text: Lines) -> Path:
    page = sitting.records / f"{stem}.md"
    with _kept(sitting):
        sitting.records.mkdir(parents=True, exist_ok=True)
        write_bytes(page, "\n".join(text).encode())
    return page


@contextmanager
def _kept(sitting: Sitting) -> Iterator[None]:
    """Raises UserError where the folder can't be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{sitting.records}: the records can't be kept there ({error.strerror}); "
            "try another --out"
        ) from error


def _trainings(
    sitting: Sitting, experiment: Experiment, seeds: Sequence[int]
) -> tuple[Lines, object]:
    scale = sitting.scale
    runs = experiment.runs(scale)
    if experiment.once:
        seeds = sitting.seeds_with(runs)[:1] or seeds
    found = sitting.found(seeds, (run.name for run in runs))
    if not found:
        return [NOT_RUN], None
    lines = experiment.table(scale, found, seeds)
    draw = getattr(drawing, f"draw_{experiment.name}", None)
    if draw is not None:
        return [*lines, "", *_made_on(found)], draw(scale, found)
    figure = drawing.draw_batches(runs, scale, found, experiment.title)
    return [*lines, "", *_made_on(found)], figure


def _variance(sitting: Sitting, seeds: Sequence[int]) -> tuple[Lines, object]:
    names = [f"{name}-{at}" for name in VARIANCE_KINDS for at in VARIANCE_AT]
    found = sitting.found(seeds, names)
    if not found:
        return [NOT_RUN], None
    rows = []
    for name in names:
        records = [found[name, seed] for seed in seeds if (name, seed) in found]
        if not records:
            continue
        slopes = [record["slope"] for record in records]
        sizes = [row["images"] for row in records[0]["rows"]]
        spreads = [spread_slope(record["rows"]) for record in records]
        rows.append(
            [
                name.removeprefix("variance-"),
                f"{sizes[0]} … {sizes[-1]}",
                *(
                    f"{statistics.fmean(values):.3f} ({' '.join(f'{v:.3f}' for v in values)})"
                    for values in (slopes, spreads)
                ),
            ]
        )
    head = (
        "norm, at which weights",
        "N",
        "slope of the variance (paper: −1)",
        "slope of the spread of positives (independent pictures: −0.5)",
    )
    return [*markdown(head, rows), "", *_made_on(found)], drawing.draw_variance(found)


def _overhead(sitting: Sitting, seeds: Sequence[int]) -> tuple[Lines, object]:
    found = sitting.found(sitting.seeds_with_record(OVERHEAD)[:1], [OVERHEAD])
    if not found:
        return [NOT_RUN], None
    record = next(iter(found.values()))
    sides = [key for key in record["rows"][0] if key not in ("bn_size", "images_per_process")]
    plain = sides[1]
    rows = [
        [
            str(row["bn_size"]),
            *(f"{1000 * row[side]:.1f} ({row[side] / row[plain]:.2f})" for side in sides),
        ]
        for row in record["rows"]
    ]
    head = ("images a statistic", *(f"{side}, ms a picture (to {plain})" for side in sides))
    carried = f"BN sums are carried by {record.get('carrier', 'horovod')} (`bn.carrier`)."
    return [*markdown(head, rows), "", carried, *_made_on(found)], drawing.draw_overhead(record)


def _made_on(found: Mapping[tuple[str, int], LabRecord]) -> Lines:
    machines = sorted({record["machine"] for record in found.values()})
    hours = sum(record.get("clock_s", 0.0) for record in found.values()) / 3600
    if not machines:
        return []
    versions = sorted({record.get("versions", {}).get("torch", "") for record in found.values()})
    if len(versions) > 1:
        machines.append(f"torch {', '.join(version or 'unknown' for version in versions)}")
    took = f"; {hours:.1f} hours of single trainings" if hours else ""
    return [f"{counted(len(found), 'record')}, on {'; '.join(machines)}{took}."]
