"""The picture of a run: losses, AP, learning rate and speed over its iterations."""

from collections.abc import Sized
from io import BytesIO
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.report.metrics_file import MetricsFile, series

_LOSSES = (
    ("loss", "sum", "black"),
    ("rpn_class", "RPN classification", "tab:blue"),
    ("rpn_box", "RPN box", "tab:cyan"),
    ("class", "final classification", "tab:red"),
    ("box", "final box", "tab:orange"),
)
_APS = (
    ("AP50", "AP@.5", "tab:blue"),
    ("AP", "mmAP (AP@[.50:.95])", "tab:red"),
    ("AP75", "AP@.75", "tab:green"),
)
_PARTS = (
    ("split_compute_s", "computing", "tab:green"),
    ("split_bn_s", "BN messages", "tab:blue"),
    ("split_gradients_s", "gradients", "tab:orange"),
    ("split_data_s", "pictures", "tab:purple"),
    ("split_waiting_s", "waiting for others", "tab:red"),
)
SIZE_INCHES = (11.0, 7.0)
DPI = 100


def draw_curves(lines: MetricsFile, out: Path, *, title: str = "") -> None:
    """Draw a run's metrics to a PNG of 1100 × 700 pixels, replaced whole each time.

    Uses no global state of matplotlib and no display, so it can be called in mid-run.

    Args:
        lines: the run's; a run that is going on or has been resumed is fine.
        out: the PNG file.
        title: a line on top.

    Raises:
        OSError: the file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    grid = figure.add_gridspec(2, 6)
    losses, aps = (figure.add_subplot(grid[0, place]) for place in (slice(0, 3), slice(3, 6)))
    rates, speeds, splits = (
        figure.add_subplot(grid[1, place]) for place in (slice(0, 2), slice(2, 4), slice(4, 6))
    )
    _draw_losses(losses, lines)
    _draw_aps(aps, lines)
    _draw_line(rates, lines, "rate", "learning rate", "tab:purple")
    _draw_line(speeds, lines, "images_per_s", "images/s (all processes)", "tab:green")
    _draw_split(splits, lines)
    end = max((record["iteration"] for record in lines.train + lines.eval), default=1)
    for axes in (losses, aps, rates, speeds, splits):
        axes.set_xlim(0, max(end * 1.02, 1))
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(out, buffer.getvalue())


def _draw_losses(axes: Any, lines: MetricsFile) -> None:
    axes.set_title("loss, eq. (1) without weight decay")
    for key, name, colour in _LOSSES:
        x, y = series(lines.train, "iteration", key)
        if not x and lines.train:
            continue  # a detector of the user's own has other losses
        width = 1.6 if key == "loss" else 1.0
        axes.plot(x, y, color=colour, label=name, linewidth=width, marker=_mark(x))
    axes.set_ylim(bottom=0)
    _legend_or_note(axes, bool(lines.train), "no training lines yet")


def _draw_aps(axes: Any, lines: MetricsFile) -> None:
    axes.set_title("validation")
    top = 0.0
    for key, name, colour in _APS:
        x, y = series(lines.eval, "iteration", key)
        top = max([top, *y])
        last = f"{name}: {y[-1]:.3f}" if y else name
        axes.plot(x, y, color=colour, marker="o", markersize=4, label=last)
    axes.set_ylim(0, min(1.0, max(0.1, top * 1.15)))
    axes.set_ylabel("AP, 0…1")
    _legend_or_note(axes, bool(lines.eval), "no evaluation yet")
    epochs = [(r["iteration"], r["epoch"]) for r in lines.eval if r.get("epoch")]
    if epochs:
        iteration, epoch = epochs[-1]
        ratio = epoch / iteration if iteration else 0.0
        if ratio > 0:
            above = axes.secondary_xaxis("top", functions=(_times(ratio), _times(1 / ratio)))
            above.set_xlabel("epoch")


def _draw_line(axes: Any, lines: MetricsFile, key: str, title: str, colour: str) -> None:
    axes.set_title(title)
    x, y = series(lines.train, "iteration", key)
    axes.plot(x, y, color=colour, linewidth=1.4, marker=_mark(x))
    axes.set_ylim(0, 1.1 * max(y, default=0) or 1)
    if not x:
        _legend_or_note(axes, False, "no training lines yet")


def _draw_split(axes: Any, lines: MetricsFile) -> None:
    axes.set_title("where a step's time goes, s")
    records = [record for record in lines.train if all(key in record for key, *_ in _PARTS)]
    columns = [series(records, "iteration", key)[1] for key, *_ in _PARTS]
    x, _ = series(records, "iteration", "split_step_s")
    if len(x) > 1 and all(len(column) == len(x) for column in columns):
        names, colours = [name for _, name, _ in _PARTS], [colour for *_, colour in _PARTS]
        axes.stackplot(x, *columns, labels=names, colors=colours)
        axes.legend(fontsize=7, ncols=2, loc="upper left")
        axes.set_ylim(0, 1.45 * max(map(sum, zip(*columns, strict=True))) or 1)  # room for it
    else:
        _legend_or_note(axes, False, "no two training lines yet")


def _mark(x: Sized) -> str | None:
    """A line through one point is invisible."""
    return "o" if len(x) == 1 else None


def _legend_or_note(axes: Any, filled: bool, note: str) -> None:
    if filled:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", color="grey")


def _times(ratio: float) -> Any:
    return lambda x: x * ratio
