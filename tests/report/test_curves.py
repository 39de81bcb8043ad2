import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.report.curves import draw_curves
from megdet_hvd.report.metrics_file import read_metrics, series


def train_line(iteration: int, loss: float = 1.0) -> dict[str, Any]:
    parts = {"rpn_class": 0.3, "rpn_box": 0.1, "class": 0.4, "box": loss - 0.8}
    rest = {"epoch": iteration / 10, "rate": 0.01, "images_per_s": 20.0}
    return {"kind": "train", "iteration": iteration, "loss": loss, **parts, **rest}


def eval_line(iteration: int, ap: float | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {"AP": ap, "AP50": ap, "AP75": None, "per_class": {}}
    return {"kind": "eval", "iteration": iteration, "epoch": iteration / 10, **numbers}


def write(file: Path, *lines: dict[str, Any], end: str = "") -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return file


def colours(file: Path) -> np.ndarray:
    return np.unique(np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3), axis=0)


def has(file: Path, colour: tuple[int, int, int]) -> bool:
    """Or nearly so: lines are smoothed against what is behind them."""
    return bool((abs(colours(file).astype(int) - colour) < 25).all(axis=1).any())


RED, BLUE, PURPLE = (214, 39, 40), (31, 119, 180), (148, 103, 189)  # matplotlib's tab: colours


def test_curves_of_a_run(tmp_path: Path) -> None:
    lines = [train_line(20 * k, 3 - k / 5) for k in range(1, 11)]
    metrics = write(tmp_path / "metrics.jsonl", eval_line(0, 0.01), *lines, eval_line(200, 0.6))
    out = tmp_path / "curves.png"
    draw_curves(read_metrics(metrics), out, title="a run")
    assert Image.open(out).size == (1100, 700)
    assert has(out, RED) and has(out, BLUE) and has(out, PURPLE)
    before = out.read_bytes()
    write(metrics, *lines, eval_line(200, 0.7))
    draw_curves(read_metrics(metrics), out)
    assert out.read_bytes() != before
    assert sorted(os.listdir(tmp_path)) == ["curves.png", "metrics.jsonl"]


def test_where_the_time_goes_is_drawn_once_two_lines_say_it(tmp_path: Path) -> None:
    out, orange, green = tmp_path / "curves.png", (255, 127, 14), (44, 160, 44)
    names = ("step", "compute", "bn", "gradients", "waiting", "data")
    split = {
        f"split_{name}_s": value for name, value in zip(names, (9, 4, 1, 2, 1, 1), strict=True)
    }
    lines = [{**train_line(20 * k), **split} for k in (1, 2)]

    def filled(*drawn: dict[str, Any]) -> list[float]:
        draw_curves(read_metrics(write(tmp_path / "metrics.jsonl", *drawn)), out)
        panel = np.asarray(Image.open(out).convert("RGB"))[380:, 770:].astype(int)
        return [float((abs(panel - one) < 25).all(axis=2).mean()) for one in (green, orange)]

    assert filled(lines[0]) == [0.0, 0.0]
    shares = filled(*lines)
    assert shares[0] > 0.05 and 1.5 < shares[0] / shares[1] < 2.5, (
        "4 s of computing, 2 of gradients"
    )


@pytest.mark.parametrize("lines", [[], [train_line(20)], [eval_line(0, None)], [eval_line(0, 0.0)]])
def test_curves_of_a_run_that_has_hardly_begun(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    metrics = write(tmp_path / "metrics.jsonl", *lines)
    draw_curves(read_metrics(metrics), tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (1100, 700)
    assert not has(tmp_path / "curves.png", PURPLE) or lines[0]["kind"] == "train"


def test_no_global_state_of_matplotlib_is_touched(tmp_path: Path) -> None:
    draw_curves(read_metrics(tmp_path / "none.jsonl"), tmp_path / "curves.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_what_a_resumed_run_wrote_twice_counts_once(tmp_path: Path) -> None:
    metrics = write(
        tmp_path / "metrics.jsonl",
        train_line(20, 3),
        train_line(40, 2),
        train_line(60, 9),
        eval_line(60, 0.1),
        train_line(40, 2.5),
        train_line(60, 1.5),
        end='{"kind": "train", "iteration": 80, "lo',
    )
    found = read_metrics(metrics)
    assert series(found.train, "iteration", "loss") == ([20, 40, 60], [3, 2.5, 1.5])
    assert series(found.eval, "iteration", "AP") == ([60], [0.1])
    assert series(found.eval, "iteration", "AP75") == ([], [])


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        draw_curves(read_metrics(tmp_path / "none.jsonl"), tmp_path / "file" / "curves.png")
