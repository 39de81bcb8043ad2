"""Pictures of the plan: hours and speed-up over GPUs, and the step's parts; PNG and SVG."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.errors import UserError
from megdet_hvd.plan.prediction import Prediction
from megdet_hvd.plan.question import (
    COCO_TRAIN,
    COCO_TRAIN_BOXES,
    IMAGES_PER_GPU,
    Question,
)
from megdet_hvd.schedule.policy import NORMAL

PARTS = (
    ("compute", "compute", "tab:blue"),
    ("bn_work", "CGBN's own work", "tab:cyan"),
    ("bn_messages", "BN messages", "tab:red"),
    ("gradients", "gradients", "tab:orange"),
    ("stragglers", "stragglers", "tab:green"),
    ("data", "data", "tab:gray"),
)
PAPER_HOURS = ((8, 33.0), (128, 4.0))
"""GPUs and hours of MegDet's abstract, https://arxiv.org/abs/1711.07240."""
SIZE_INCHES = (13.0, 4.6)
DPI = 110
MOST_TICKS = 14
"""Named on an axis: more would lie on each other."""


def draw_plan(question: Question, rows: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write plan.png and plan.svg into ``folder``, made where it isn't there.

    By GPUs, in whatever order the rows are.

    Raises:
        UserError: the folder can't be written.
    """
    figure = plan_figure(question, sorted(rows, key=lambda row: row.gpus))
    return save(figure, folder, "plan")


def save(figure: Any, folder: Path, name: str) -> list[Path]:
    """As PNG and SVG, replaced whole; the SVG without a date, so that it is the same each time."""
    import matplotlib

    files = []
    for ending in ("png", "svg"):
        buffer = BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(
                buffer, format=ending, metadata={"Date": None} if ending == "svg" else None
            )
        files.append(folder / f"{name}.{ending}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(files[-1], buffer.getvalue())
        except OSError as error:
            raise UserError(f"--plot {folder}: can't be written ({error.strerror})") from None
    return files


def new_figure(width: float, height: float) -> Any:
    """Without matplotlib's global state, and without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plan_figure(question: Question, rows: Sequence[Prediction]) -> Any:
    """Hours, speed-up and the step, side by side."""
    figure = new_figure(*SIZE_INCHES)
    figure.suptitle(
        f"Predicted: {question.profile.name}, network {question.network.name}, "
        f"{question.gpus_per_machine} GPUs a machine",
        parse_math=False,
    )
    hours, speed, parts = figure.subplots(1, 3)
    gpus = [row.gpus for row in rows]
    hours.plot(gpus, [row.hours for row in rows], "o-", color="tab:blue", label="predicted")
    if _is_papers(question, rows):
        hours.plot(*zip(*PAPER_HOURS, strict=True), "s", color="black", label="paper (abstract)")
    hours.set_yscale("log")
    hours.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    hours.set_ylabel("hours of the run")
    hours.set_title("time")
    first = rows[0]
    ups = [row.images_per_s / first.images_per_s * first.gpus for row in rows]
    speed.plot(gpus, ups, "o-", color="tab:blue", label="predicted")
    speed.plot(gpus, gpus, "--", color="grey", label="linear")
    speed.set_yscale("log", base=2)
    speed.set_title(f"images/s, in GPUs' worth of the row of {first.gpus}")
    ticks = _apart(gpus)
    speed.set_yticks(ticks, [str(g) for g in ticks])
    for axes in (hours, speed):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(g) for g in ticks])
        axes.minorticks_off()
        axes.set_xlabel("GPUs")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _draw_parts(parts, rows)
    return figure


def _apart(gpus: Sequence[int]) -> list[int]:
    """Of ascending numbers those whose names find room on a logarithmic axis, the first with it."""
    found: list[int] = []
    least = (gpus[-1] / gpus[0]) ** (1 / MOST_TICKS)
    for number in gpus:
        if not found or number >= found[-1] * least:
            found.append(number)
    return found


def _is_papers(question: Question, rows: Sequence[Prediction]) -> bool:
    """Whether the paper's two times belong beside these rows.

    They are of COCO, 2 images a GPU in one pass, and a policy's whole 11 epochs.
    """
    return question.train_images in (COCO_TRAIN, COCO_TRAIN_BOXES) and all(
        row.images == IMAGES_PER_GPU
        and row.batch == IMAGES_PER_GPU * row.gpus
        and row.derived.end_epoch == NORMAL.end_epoch
        and row.derived.end_iteration == row.derived.policy_iterations
        for row in rows
    )


def _draw_parts(axes: Any, rows: Sequence[Prediction]) -> None:
    names = list(range(len(rows)))
    below = [0.0] * len(rows)
    for key, title, colour in PARTS:
        heights = [1e3 * getattr(row.step, key) for row in rows]
        axes.bar(names, heights, bottom=below, color=colour, label=title)
        below = [b + h for b, h in zip(below, heights, strict=True)]
    every = -(-len(rows) // MOST_TICKS)
    axes.set_xticks(names[::every], [str(row.gpus) for row in rows[::every]])
    axes.set_title("a step's parts, ms")
    axes.set_xlabel("GPUs")
    axes.set_ylim(0, max(below) * 1.35)
    axes.legend(fontsize=7, ncols=2, loc="upper left")
