"""A finished run beside the prediction: which term was wrong, as far as its metrics tell."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megdet_hvd.checkpoint.facts import read_saved_layout
from megdet_hvd.config.load import load_config
from megdet_hvd.data.problems import printable
from megdet_hvd.errors import UserError
from megdet_hvd.plan.prediction import Prediction, predict
from megdet_hvd.plan.question import Question
from megdet_hvd.report.metrics_file import read_metrics
from megdet_hvd.storage import cannot_read, is_transient
from megdet_hvd.wording import counted

_SPLIT = ("split_compute_s", "split_bn_s", "split_gradients_s", "split_waiting_s")
_EVERY_LINE = ("step_s", "data_s", "images_per_s")
WARM_LINES = 1
"""Of metrics that are left out at the start: kernels are chosen, communicators are made."""


@dataclass(frozen=True)
class Measured:
    """What a run's metrics say, medians over its lines."""

    step_s: float
    data_s: float
    """Rank 0's wait for pictures."""
    images_per_s: float
    lines: int
    processes: int
    bn_images: tuple[int, ...] | None = None
    """Its BN sizes, ascending, as its newest checkpoint says; None: it doesn't."""
    parts: Mapping[str, float] | None = None
    """The time split's parts by metric, means over the ranks; None: of before there was one."""


def measured_run(folder: Path, processes: int | None) -> Measured:
    """Read it.

    Args:
        folder: the run folder.
        processes: of the run; None: as its newest checkpoint says.

    Raises:
        UserError: no run, no metrics, or its processes are not known.
        StorageError: it can't be read at the moment.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"--compare {folder}: no run folder, which has a config.yaml")
    try:
        lines = read_metrics(folder / "metrics.jsonl").train
    except OSError as error:
        if is_transient(error):
            raise cannot_read(folder / "metrics.jsonl", error) from error
        raise UserError(f"--compare {folder}: can't read its metrics ({error.strerror})") from None
    timed = [
        line
        for line in lines
        if all(_is_time(line.get(key)) for key in _EVERY_LINE) and line["step_s"] > 0
    ]
    timed = timed[WARM_LINES:] or timed
    if not timed:
        raise UserError(
            f"--compare {folder}: its metrics.jsonl has no line with a step's time yet; a line is "
            "written each log.every_iterations"
        )
    bn_images = None
    if processes is None:
        try:
            saved = read_saved_layout(folder)
        except UserError:
            raise UserError(
                f"--compare {folder}: it has no checkpoint that would say how many GPUs it ran "
                "on; give them with --gpus"
            ) from None
        processes, bn_images = saved.processes, saved.bn_images

    def median(key: str) -> float:
        return statistics.median(float(line[key]) for line in timed)

    split = [line for line in timed if all(_is_time(line.get(key)) for key in _SPLIT)]
    parts = {key: statistics.median(float(line[key]) for line in split) for key in _SPLIT if split}
    return Measured(
        median("step_s"),
        median("data_s"),
        median("images_per_s"),
        len(timed),
        processes,
        bn_images,
        parts or None,
    )


def _is_time(value: object) -> bool:
    """A number that isn't negative, nor NaN or infinite, nor too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= sys.float_info.max


def run_prediction(question: Question, folder: Path, measured: Measured) -> Prediction:
    """For the run's own configuration, batch and GPUs; its length is that of other pictures."""
    config = load_config(folder / "config.yaml")
    return predict(replace(question, config=config, images_per_gpu=None), measured.processes)


def comparison_lines(
    folder: Path, measured: Measured, row: Prediction, caveats: Sequence[str] = ()
) -> list[str]:
    """Predicted beside measured, term by term where the run recorded it; ``caveats`` at the end."""
    step = row.step
    apart = row.step.total / measured.step_s - 1
    busy_measured = measured.step_s - measured.data_s
    busy_predicted = step.total - step.data
    lines = [
        f"{printable(str(folder))}: {counted(measured.processes, 'GPU')}, batch {row.batch}, "
        f"medians of {counted(measured.lines, 'line')} of metrics",
        f"{'':26}{'predicted ms':>14}{'measured ms':>14}{'off':>9}",
    ]
    recorded = (
        ("step", step.total, measured.step_s),
        ("waiting for pictures", step.data, measured.data_s),
        ("all the rest of it", busy_predicted, busy_measured),
    )
    for name, ours, theirs in recorded:
        off = f"{ours / theirs - 1:+.0%}" if theirs > 1e-4 else "–"
        lines.append(f"{name:26}{1e3 * ours:14.1f}{1e3 * theirs:14.1f}{off:>9}")
    for name, key, ours in _terms(row):
        part = None if measured.parts is None else measured.parts[key]
        shown = "not recorded" if part is None else f"{1e3 * part:.1f}"
        off = "" if part is None or part <= 1e-4 else f"{ours / part - 1:+.0%}"
        lines.append(f"  {name:24}{1e3 * ours:14.1f}{shown:>14}{off:>9}".rstrip())
    return [*lines, _verdict(measured, row, apart), *_other_groups(measured, row), *caveats]


def _other_groups(measured: Measured, row: Prediction) -> list[str]:
    """Where BN statistics were shared otherwise than is predicted: machines of another size."""
    ours, theirs = sorted(set(row.derived.bn_images)), measured.bn_images
    if theirs is None or ours == list(theirs):
        return []
    said = [" and ".join(map(str, sizes)) or "no" for sizes in (theirs, ours)]
    return [
        f"the run's BN statistics are over {said[0]} images, and over {said[1]} on the machines of "
        "this prediction: give the run's with --gpus-per-node"
    ]


def _terms(row: Prediction) -> list[tuple[str, str, float]]:
    """The parts that training takes apart, too: name, metric, predicted seconds."""
    step = row.step
    return [
        ("compute, with CGBN's own", "split_compute_s", step.compute + step.bn_work),
        ("BN messages", "split_bn_s", step.bn_messages),
        ("gradients", "split_gradients_s", step.gradients),
        ("stragglers", "split_waiting_s", step.stragglers),
    ]


def _verdict(measured: Measured, row: Prediction, apart: float) -> str:
    step = row.step
    data_gap = step.data - measured.data_s
    rest_gap = (step.total - step.data) - (measured.step_s - measured.data_s)
    if abs(apart) <= 0.1:
        return f"the step is predicted to {apart:+.0%}: within 10 %, no term stands out"
    if abs(data_gap) > abs(rest_gap):
        return (
            f"the step is predicted to {apart:+.0%}, and the wait for pictures is what was wrong, "
            f"by {1e3 * data_gap:+.0f} ms"
        )
    if measured.parts is None:
        return (
            f"the step is predicted to {apart:+.0%}, by {1e3 * rest_gap:+.0f} ms outside the wait "
            "for pictures; the run is of before training took its steps apart, so which term it "
            "is can't be told: bench profile on these GPUs gives the compute, and the waits"
        )
    gaps = {name: ours - measured.parts[key] for name, key, ours in _terms(row)}
    name = max(gaps, key=lambda one: abs(gaps[one]))
    return (
        f"the step is predicted to {apart:+.0%}, and {name.split(',')[0]} is what was wrong most, "
        f"by {1e3 * gaps[name]:+.0f} ms"
    )
