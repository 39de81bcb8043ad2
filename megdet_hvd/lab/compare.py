"""Ours in several processes beside torchvision's model in one, seed by seed.

``python -m megdet_hvd.lab.compare --config FILE --seeds 0 1 2 --out FOLDER [key.sub=value …]``
trains both sides in turn, prints every result, and draws the curves. ``results.json`` in FOLDER
keeps each finished run, so an interrupted comparison is carried on by the same command.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.cli import add_config_option, make_parser, parse
from megdet_hvd.command import leave

SIDES = ("ours", "torchvision")
COLOURS = {"ours": "tab:blue", "torchvision": "tab:red"}

Results = dict[str, list[dict[str, Any]]]
"""``ours-0`` → the evaluations of that run, oldest first: epoch, AP, AP50, AP75."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then report; exit code 1 when a side could not be trained."""
    parser = make_parser("megdet_hvd.lab.compare", (__doc__ or "").split("\n")[0])
    add_config_option(parser)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2"
    )
    parser.add_argument(
        "--processes", type=int, default=2, metavar="N", help="of our side (default %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="for runs and results"
    )
    arguments = parse(parser, argv)
    record = arguments.out / "results.json"
    results: Results = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    given = [] if arguments.config is None else ["--config", str(arguments.config)]
    for seed in arguments.seeds:
        for side in SIDES:
            name = f"{side}-{seed}"
            if name in results:
                continue
            stamp = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
            words = [f"output={arguments.out}", f"name={stamp}", f"seed={seed}"]
            command = side_command(side, arguments.processes)
            if subprocess.run([*command, *given, *arguments.overrides, *words]).returncode:
                print(f"error: {name} could not be trained", file=sys.stderr)
                return 1
            results[name] = evaluations(arguments.out / stamp / "metrics.jsonl")
            record.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for line in table(results, arguments.seeds):
        print(line)
    draw(results, arguments.out / "curves.png")
    return 0


def side_command(side: str, processes: int) -> list[str]:
    """The words that train one side, before its settings."""
    if side == "torchvision":
        return [sys.executable, "-m", "megdet_hvd.lab.peer"]
    launcher = str(Path(sys.executable).with_name("horovodrun"))
    return [launcher, "-np", str(processes), sys.executable, "-m", "megdet_hvd.train"]


def evaluations(metrics: Path) -> list[dict[str, Any]]:
    """Epoch and AP of each evaluation of a run."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    kept = ("epoch", "AP", "AP50", "AP75")
    return [{key: r[key] for key in kept} for r in records if r["kind"] == "eval"]


def table(results: Mapping[str, list[dict[str, Any]]], seeds: Sequence[int]) -> list[str]:
    """The last evaluation of every run, and the mean of each side, as a Markdown table."""
    lines = ["| | seed | AP@.5 | mmAP | AP@.75 |", "|---|---|---|---|---|"]
    means: dict[str, float] = {}
    for side in SIDES:
        ends = [results[f"{side}-{seed}"][-1] for seed in seeds]
        for seed, end in zip(seeds, ends, strict=True):
            lines.append(
                f"| {side} | {seed} | {end['AP50']:.3f} | {end['AP']:.3f} | {end['AP75']:.3f} |"
            )
        mean = {key: statistics.mean(end[key] for end in ends) for key in ("AP50", "AP", "AP75")}
        means[side] = mean["AP50"]
        lines.append(
            f"| **{side}** | **mean** | **{mean['AP50']:.3f}** | **{mean['AP']:.3f}** "
            f"| **{mean['AP75']:.3f}** |"
        )
    points = 100 * (means["ours"] - means["torchvision"])
    return [*lines, "", f"AP@.5, mean of ours less mean of torchvision's: {points:+.1f} points"]


def draw(results: Mapping[str, list[dict[str, Any]]], out: Path) -> None:
    """AP@.5 and mmAP over the epochs, a line for each run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, key, title in zip(
        figure.subplots(1, 2), ("AP50", "AP"), ("AP@.5", "mmAP (AP@[.50:.95])"), strict=True
    ):
        named = set()
        for name, points in results.items():
            side = name.rpartition("-")[0]
            axes.plot(
                [point["epoch"] for point in points],
                [point[key] for point in points],
                color=COLOURS[side],
                marker=".",
                alpha=0.8,
                label=None if side in named else side,
            )
            named.add(side)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(out)


if __name__ == "__main__":
    leave(main)
