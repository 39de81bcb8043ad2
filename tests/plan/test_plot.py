"""The pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from megdet_hvd.errors import UserError
from megdet_hvd.plan.plot import DPI, MOST_TICKS, PARTS, SIZE_INCHES, draw_plan, plan_figure
from megdet_hvd.plan.prediction import Prediction, predict, predict_all
from tests.plan.asked import question


def kept(images: int = 2) -> list[Prediction]:
    rows = predict_all(question(images_per_gpu=images), (8, 16, 128))
    return [row for row in rows if isinstance(row, Prediction)]


def test_png_and_svg_are_drawn(tmp_path: Path) -> None:
    files = draw_plan(question(), kept(), tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["plan.png", "plan.svg"]
    with Image.open(files[0]) as picture:
        assert picture.size == tuple(round(side * DPI) for side in SIZE_INCHES)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    text = files[1].read_text(encoding="utf-8")
    assert "<svg" in text and text.rstrip().endswith("</svg>")
    again = draw_plan(question(), kept(), tmp_path)
    assert again[1].read_text(encoding="utf-8") == text


def test_what_is_drawn_is_the_table() -> None:
    rows = kept()
    hours, speed, parts = plan_figure(question(), rows).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in hours.lines}
    assert lines["predicted"] == [[row.gpus, row.hours] for row in rows]
    assert lines["paper (abstract)"] == [[8, 33], [128, 4]]
    ups = speed.lines[0].get_ydata()
    assert ups[0] == 8 and ups[-1] == pytest.approx(128 * rows[-1].efficiency)
    assert len(parts.patches) == len(PARTS) * len(rows)
    tops = [0.0] * len(rows)
    for at, bar in enumerate(parts.patches):
        tops[at % len(rows)] += bar.get_height()
    assert tops == pytest.approx([1e3 * row.step.total for row in rows])


def test_the_papers_times_stand_beside_the_papers_batches_only() -> None:
    hours = plan_figure(question(images_per_gpu=4), kept(4)).axes[0]
    assert [line.get_label() for line in hours.lines] == ["predicted"]


@pytest.mark.parametrize("setting", ["learning.policy=long", "learning.max_iterations=100"])
def test_nor_beside_another_length_of_run(setting: str) -> None:
    rows = [predict(question(setting), gpus) for gpus in (8, 128)]
    hours = plan_figure(question(setting), rows).axes[0]
    assert [line.get_label() for line in hours.lines] == ["predicted"]


def test_any_name_and_any_number_of_rows_can_be_drawn(tmp_path: Path) -> None:
    asked = question()
    asked = replace(asked, profile=replace(asked.profile, name="x$y_{$ \\frac{"))
    rows = [predict(asked, gpus) for gpus in (60, *range(1, 60))]
    (png, svg) = draw_plan(asked, rows, tmp_path)
    assert png.is_file() and "x$y_{$" in svg.read_text(encoding="utf-8")
    rows.sort(key=lambda row: row.gpus)
    hours, speed, parts = plan_figure(asked, rows).axes
    for axes in (hours, speed, parts):
        assert 5 < len(axes.get_xticks()) <= MOST_TICKS + 1
    assert [*speed.get_xticks()] == [*speed.get_yticks()] and speed.get_xticks()[0] == 1


def test_rows_are_drawn_by_gpus(tmp_path: Path) -> None:
    rows = kept()
    straight = draw_plan(question(), rows, tmp_path / "a")[1].read_text(encoding="utf-8")
    crooked = draw_plan(question(), rows[::-1], tmp_path / "b")[1].read_text(encoding="utf-8")
    assert straight == crooked


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--plot .*file: can't be written"):
        draw_plan(question(), kept(), tmp_path / "file")
