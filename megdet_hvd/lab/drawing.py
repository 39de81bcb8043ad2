"""The experiments' pictures."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.lab.experiments import Found, final_ap
from megdet_hvd.lab.records import LabRecord
from megdet_hvd.lab.runs import (
    BN_SIZE_RUNS,
    FIGURE4,
    TABLE2,
    TABLE3,
    TUNING,
    LabRun,
    judged_runs,
    rate_runs,
)
from megdet_hvd.lab.scale import LabScale

SIZE_INCHES, DPI = (12.0, 4.4), 110
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def new_axes(titles: Sequence[str]) -> tuple[Any, Sequence[Any]]:
    """A figure with one drawing for each title, without matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    drawings = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, title in zip(drawings, titles, strict=True):
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
    return figure, drawings


def save_picture(figure: Any, file: Path) -> None:
    """As PNG, whole or not at all."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(file, buffer.getvalue())


def draw_batches(runs: Sequence[LabRun], scale: LabScale, found: Found, title: str) -> Any:
    """Loss over epochs of the first seed, and mmAP over the batch with every seed."""
    figure, (losses, scores) = new_axes((f"{title}: loss", "mmAP at the end, %; ×: diverged"))
    colours = {batch: COLOURS[i] for i, batch in enumerate(sorted({run.batch for run in runs}))}
    _losses(losses, scale, found, {run: colours[run.batch] for run in runs})
    for run in runs:
        shift = {"o": 1.0, "s": 1.06, "^": 0.94}[_marker(run)]
        _dots(scores, run, found, run.batch * shift, colours[run.batch])
    scores.set_xscale("log", base=2)
    scores.set_xticks(sorted(colours), [str(batch) for batch in sorted(colours)])
    scores.set_xlabel("batch; circle: full rate, square: half, triangle: no warm-up")
    scores.set_ylim(0, 1.08 * max(1.0, scores.get_ylim()[1]))
    return figure


def _losses(axes: Any, scale: LabScale, found: Found, colours: Mapping[LabRun, str]) -> None:
    """Over epochs, of the first seed."""
    for run, colour in colours.items():
        records = _of(run, found)
        if records:
            record = records[min(records)]
            epochs = record.get("epochs") or record["updates"] * run.batch / scale.train_images
            xs = [i * epochs / max(1, record["updates"]) for i, _ in record["loss"]]
            ys = [value for _, value in record["loss"]]
            axes.plot(xs, ys, _style(run), color=colour, label=_label(run), linewidth=1.2)
    axes.set_xlabel("epoch")
    axes.set_ylim(0, _top(found, list(colours)))
    if axes.lines:
        axes.legend(fontsize="x-small", ncols=2)


def _of(run: LabRun, found: Found) -> dict[int, LabRecord]:
    return {seed: record for (name, seed), record in found.items() if name == run.name}


def _label(run: LabRun) -> str:
    words = [f"batch {run.batch}"]
    words += ["half rate"] if run.rate_factor == 0.5 else []
    words += [] if run.rate is None else [f"rate {run.rate:g}"]
    words += [] if run.warmup else ["no warm-up"]
    words += [f"{run.processes} processes"] if run.processes > 1 else []
    return ", ".join(words)


def _style(run: LabRun) -> str:
    if not run.warmup:
        return ":"
    return "--" if run.rate_factor == 0.5 or run.processes > 1 else "-"


def _marker(run: LabRun) -> str:
    if not run.warmup:
        return "^"
    return "s" if run.rate_factor == 0.5 or run.processes > 1 else "o"


def _dots(axes: Any, run: LabRun, found: Found, x: float, colour: str) -> None:
    for record in _of(run, found).values():
        ap = final_ap(record)
        if ap is not None:
            axes.plot(x, 100 * ap, _marker(run), color=colour, alpha=0.8)
        else:
            _cross(axes, x, record, color=colour)


def _cross(axes: Any, x: float, record: LabRecord, **style: Any) -> None:
    """At the foot of the drawing, whatever its scale, for a training that diverged."""
    if record["diverged"] is not None:
        axes.plot(x, 0.02, "x", transform=axes.get_xaxis_transform(), **style)


def _top(found: Found, runs: Sequence[LabRun]) -> float:
    names = {run.name for run in runs}
    starts = [r["initial_loss"] for (name, _), r in found.items() if name in names]
    return 1.3 * max((start for start in starts if start is not None), default=3.0)


def draw_table2(scale: LabScale, found: Found) -> Any:
    """Loss and mmAP without BN."""
    return draw_batches(TABLE2, scale, found, "frozen BN")


def draw_table3(scale: LabScale, found: Found) -> Any:
    """Loss and mmAP with CGBN."""
    return draw_batches(TABLE3, scale, found, "CGBN, 8 images a statistic")


def draw_tuning(scale: LabScale, found: Found) -> Any:
    """Loss, and mmAP over the rate."""
    figure, (losses, scores) = new_axes(("the baseline: loss", "mmAP at the end, %; ×: diverged"))
    colours = dict(zip(TUNING, COLOURS, strict=True))
    _losses(losses, scale, found, colours)
    for run, colour in colours.items():
        _dots(scores, run, found, run.peak_rate(scale), colour)
    scores.set_xscale("log", base=2)
    rates = [run.peak_rate(scale) for run in TUNING]
    scores.set_xticks(rates, [f"{rate:g}" for rate in rates])
    scores.set_xlabel("peak rate")
    scores.set_ylim(0, 1.08 * max(1.0, scores.get_ylim()[1]))
    return figure


def draw_rates(scale: LabScale, found: Found) -> Any:
    """What trains and what diverges, by batch and peak rate."""
    return draw_outcomes(rate_runs(scale), scale, found)


def draw_large(scale: LabScale, found: Found) -> Any:
    """The same for the batches that are only judged."""
    return draw_outcomes(judged_runs(scale), scale, found)


def draw_outcomes(runs: Sequence[LabRun], scale: LabScale, found: Found) -> Any:
    """A mark for each training that ends unmeasured: batch, peak rate, trained or diverged."""
    norms = sorted({run.norm for run in runs}, reverse=True)
    figure, drawings = new_axes([f"{norm}: which rates train" for norm in norms])
    batches = sorted({run.batch for run in runs})
    for norm, axes in zip(norms, drawings, strict=True):
        scaled = [LabRun(batch, norm).peak_rate(scale) for batch in batches]
        axes.plot(batches, scaled, "k:", label="k·r")
        for run in (run for run in runs if run.norm == norm):
            for record in (r for (name, _), r in found.items() if name == run.name):
                fine = record["diverged"] is None
                label, style = ("trains", "o") if fine else ("diverges", "x")
                colour = "tab:blue" if fine else "tab:red"
                axes.plot(run.batch, run.peak_rate(scale), style, color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set_yscale("log")
        rates = sorted({run.peak_rate(scale) for run in runs})
        axes.set_yticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set_xlabel("batch")
        axes.set_ylabel("peak rate")
        _legend_once(axes)
    return figure


def draw_figure4(scale: LabScale, found: Found) -> Any:
    """MmAP by epoch, every seed."""
    figure, (axes,) = new_axes(("mmAP by epoch, policy long, CGBN; ×: diverged",))
    for run, colour in zip(FIGURE4, COLOURS, strict=False):
        for (name, _), record in found.items():
            if name == run.name:
                xs = [score["epoch"] for score in record["scores"]]
                ys = [100 * (score["AP"] or 0) for score in record["scores"]]
                axes.plot(xs, ys, ".-", color=colour, alpha=0.8, label=f"batch {run.batch}")
                _cross(axes, record.get("epochs", 0.0), record, color=colour)
    for epoch in (11, 14, 17):
        axes.axvline(epoch * scale.shrink, color="grey", linewidth=0.8, linestyle=":")
    _legend_once(axes)
    axes.set_xlim(left=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if not any(record["scores"] for record in found.values()):
        axes.set_yticks([])
    axes.set_xlabel("epoch; dotted: the rate falls")
    axes.set_ylabel("%")
    return figure


def _legend_once(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    if first:
        axes.legend([first[label] for label in sorted(first)], sorted(first))


def draw_bn_size(scale: LabScale, found: Found) -> Any:
    """MmAP over the BN size, as trained and with statistics computed anew."""
    figure, (axes,) = new_axes(("mmAP over images a statistic, batch 64; ×: diverged",))
    for run in BN_SIZE_RUNS:
        for (name, _), record in found.items():
            ap = final_ap(record)
            if name != run.name or run.bn_size is None:
                continue
            _cross(axes, run.bn_size, record, color="tab:red", label="diverged")
            if ap is None:
                continue
            axes.plot(run.bn_size, 100 * ap, "o", color="tab:blue", label="as trained")
            if "recalibrated" in record:
                again = 100 * record["recalibrated"]["AP"]
                axes.plot(
                    run.bn_size * 1.05, again, "s", color="tab:orange", label="statistics anew"
                )
    axes.set_xscale("log", base=2)
    sizes = [run.bn_size for run in BN_SIZE_RUNS]
    axes.set_xticks(sizes, [str(size) for size in sizes])
    _legend_once(axes)
    if all(final_ap(record) is None for record in found.values()):
        axes.set_yticks([])
    axes.set_xlabel("images a statistic")
    axes.set_ylabel("%")
    return figure


def draw_variance(records: Mapping[tuple[str, int], LabRecord]) -> Any:
    """Variance over N, double logarithmic, and the spread of the share of positives."""
    figure, (variance, spread) = new_axes(
        (
            "total variance of the gradient, times N of the first point",
            "spread of a batch's share of positive boxes",
        )
    )
    names = sorted({name for name, _ in records})
    for name, colour in zip(names, COLOURS, strict=False):
        for (other, _), record in records.items():
            if other != name:
                continue
            sizes = [row["images"] for row in record["rows"]]
            first = record["rows"][0]
            share = 1 / (first["variance"] * first["images"])
            values = [row["variance"] * share for row in record["rows"]]
            variance.plot(
                sizes, values, ".-", color=colour, alpha=0.8, label=name.removeprefix("variance-")
            )
            deviations = [row["foreground"]["box"][1] for row in record["rows"]]
            spread.plot(sizes, deviations, ".-", color=colour, alpha=0.8)
    sizes = sorted({row["images"] for record in records.values() for row in record["rows"]})
    variance.plot(sizes, [1 / size for size in sizes], "k:", label="1/N")
    for axes in (variance, spread):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("N, pictures of a batch")
    _legend_once(variance)
    return figure


def draw_overhead(record: LabRecord) -> Any:
    """Milliseconds a picture over the BN size."""
    figure, (axes,) = new_axes(("a training step on 2 processes, ms a picture",))
    rows = record["rows"]
    sides = [key for key in rows[0] if key not in ("bn_size", "images_per_process")]
    for side, colour in zip(sides, COLOURS, strict=False):
        axes.plot(
            [row["bn_size"] for row in rows],
            [1000 * row[side] for row in rows],
            ".-",
            color=colour,
            label=side,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([row["bn_size"] for row in rows], [str(row["bn_size"]) for row in rows])
    axes.set_xlabel("images a statistic (and in a step)")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure
