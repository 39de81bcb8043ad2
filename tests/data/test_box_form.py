"""Boxes in another form than x y w h are doubted; right ones never are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdet_hvd.data.__main__ import main
from tests.data.made import read_coco

from .made import box, image, write_set

WIDTH, HEIGHT = 96, 64
Box = Sequence[float]


def right_boxes(count: int, seed: int = 0) -> list[list[float]]:
    draw = np.random.default_rng(seed)
    boxes = []
    for _ in range(count):
        w, h = draw.uniform(3, 60), draw.uniform(3, 40)
        x, y = draw.uniform(0, WIDTH - w), draw.uniform(0, HEIGHT - h)
        boxes.append([round(float(v), 1) for v in (x, y, w, h)])
    return boxes


def corners(b: Box) -> Box:
    return [b[0], b[1], b[0] + b[2], b[1] + b[3]]


def fractions(b: Box) -> Box:
    return [b[0] / WIDTH, b[1] / HEIGHT, b[2] / WIDTH, b[3] / HEIGHT]


def centres(b: Box) -> Box:
    return fractions([b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]])


def doubts(folder: Path, boxes: Sequence[Box], areas: Sequence[float | None]) -> tuple[str, ...]:
    annotations = [
        box(k, 1, list(b), area=area)
        for k, (b, area) in enumerate(zip(boxes, areas, strict=True), start=1)
    ]
    source = write_set(folder, [image(1, width=WIDTH, height=HEIGHT)], annotations)
    found = {
        read_coco([source], keep_empty=True, invalid_boxes="drop", purpose=purpose).doubts
        for purpose in _PURPOSES
    }
    assert len(found) == 1
    return found.pop()


_PURPOSES: tuple[Any, ...] = ("train", "val")


@pytest.mark.parametrize(
    ("form", "said"),
    [(corners, "like x1 y1 x2 y2"), (fractions, "like fractions"), (centres, "like fractions")],
)
@pytest.mark.parametrize("with_area", ["right", "none", "outline", "wrong"])
def test_other_forms_are_doubted(
    tmp_path: Path, form: Callable[[Box], Box], said: str, with_area: str
) -> None:
    right = right_boxes(40)
    wrong = [form(b) for b in right]
    areas: dict[str, list[Any]] = {
        "right": [b[2] * b[3] for b in right],
        "none": [None] * 40,
        "outline": [b[2] * b[3] * (0.5 + k / 100) for k, b in enumerate(right)],
        "wrong": [b[2] * b[3] for b in wrong],
    }
    (doubt,) = doubts(tmp_path, wrong, areas[with_area])
    assert said in doubt
    assert str(tmp_path / "set.json") in doubt


@pytest.mark.parametrize(
    "boxes",
    [
        right_boxes(40),
        [[8, 8, 80, 50]] * 30,  # one large thing in the middle of each
        [[0, 0, WIDTH, HEIGHT]] * 10,
        [[0, 0, 10, 20]] * 10,  # x y is 0 0: both forms have the same area
        [[k, k, 1.0, 1.0] for k in range(10)],
        [[80, 50, 30, 30], [-9, -9, 30, 30], *right_boxes(30)],  # two reach outside
        [[30, 20, 70, 50]],  # a single one proves nothing
        [[0, 0, float("nan"), 4]],
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.6, None])
def test_right_boxes_are_not(tmp_path: Path, boxes: list[Box], share: float | None) -> None:
    areas = [None if share is None else b[2] * b[3] * share for b in boxes]
    if any(b != b for one in boxes for b in one):
        boxes, areas = [*boxes, [1, 1, 9, 9]], [*areas, 81]
        source = write_set(
            tmp_path,
            [image(1, width=WIDTH, height=HEIGHT)],
            [box(k, 1, list(b), area=a) for k, (b, a) in enumerate(zip(boxes, areas, strict=True))],
        )
        assert read_coco([source], keep_empty=True, invalid_boxes="drop").doubts == ()
        return
    assert doubts(tmp_path, boxes, areas) == ()


@pytest.mark.parametrize(("form", "said"), [(corners, "x1 y1 x2 y2"), (fractions, "fractions")])
def test_the_checker_calls_it_a_problem_and_training_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: Callable[[Box], Box], said: str
) -> None:
    wrong = [box(k, 1, list(form(b))) for k, b in enumerate(right_boxes(20), start=1)]
    write_set(tmp_path, [image(1, width=WIDTH, height=HEIGHT)], wrong)
    assert main(["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]) == 1
    out = capsys.readouterr().out
    assert f"boxes look like {said}" in out
    assert "\n1 problem\n" in out
    assert "would go on all the same, with a warning" in out
