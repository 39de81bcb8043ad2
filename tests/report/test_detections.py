from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from megdet_hvd.data.batch import Detections
from megdet_hvd.report.boxes import DrawnBox, _label_place, draw_boxes
from megdet_hvd.report.colours import class_colour, text_colour
from megdet_hvd.report.detections import choose_pictures, draw_detections
from megdet_hvd.report.predictions import draw_prediction
from tests.data.made import records
from tests.evaluation.sets import imperfect, open_set, perfect, write_set


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(int)


def test_a_box_is_drawn_where_it_is() -> None:
    colour = class_colour(1)
    drawn = pixels(draw_boxes(Image.new("RGB", (200, 150)), [DrawnBox((50, 40, 120, 100), colour)]))
    assert np.argwhere((drawn == colour).all(axis=2)).min(axis=0).tolist() == [40, 50]
    assert np.argwhere((drawn == colour).all(axis=2)).max(axis=0).tolist() == [99, 119]
    assert drawn[70, 80].tolist() == [0, 0, 0]  # nothing inside
    assert drawn[70, 50].tolist() == list(colour)


def test_labels_stay_in_the_picture_and_off_each_other() -> None:
    picture = Image.new("RGB", (300, 200))
    draw = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for corner in [(0, 0), (290, 0), (0, 190), (290, 190), (100, 80), (102, 82), (104, 84)]:
        box = DrawnBox((*corner, corner[0] + 60, corner[1] + 60), (9, 9, 9), "a long label 0.99")
        left, top, right, bottom = _label_place(draw, box, 12, picture.size, taken)
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200
        for other in taken:
            overlap_x = min(right, other[2]) - max(left, other[0])
            overlap_y = min(bottom, other[3]) - max(top, other[1])
            assert min(overlap_x, overlap_y) <= 0
        taken.append((left, top, right, bottom))


def test_labels_can_be_read_on_every_colour() -> None:
    """WCAG's contrast for large text, 3 : 1, for every class of COCO."""

    def luminance(colour: tuple[int, ...]) -> float:
        linear = [((v / 255 + 0.055) / 1.055) ** 2.4 if v > 10 else v / 3294 for v in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colours = [class_colour(label) for label in range(1, 91)]
    assert len(set(colours)) == 90
    for colour in colours:
        light, dark = sorted((luminance(colour), luminance(text_colour(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3


def test_the_sheet_shows_truth_and_detections_side_by_side(tmp_path: Path) -> None:
    index = open_set(write_set(tmp_path, range(1, 12), sizes=((120, 90), (90, 140))))
    found = perfect(index)
    draw_detections(index, found, tmp_path / "new" / "sheet.png", count=4, heading="AP 1.00")
    sheet = Image.open(tmp_path / "new" / "sheet.png")
    assert 1000 < sheet.width < 1800
    assert 400 < sheet.height < 1400
    # As many pixels in the colours of the classes on both sides: perfect detections. One
    # picture alone, so that left and right are halves; its labels differ by the score.
    one = {p: found[p] for p in [next(p for p in found if len(found[p].scores) == 2)]}
    draw_detections(index, one, tmp_path / "one.png", count=1)
    drawn = pixels(Image.open(tmp_path / "one.png"))[25:-60]
    used = [class_colour(int(label)) for label in next(iter(one.values())).labels]
    counts = [np.argwhere((drawn == colour).all(axis=2))[:, 1] for colour in set(used)]
    columns = np.concatenate(counts)
    middle = drawn.shape[1] / 2 if drawn.shape[1] > 480 else 10 + 400
    left, right = (columns < middle).sum(), (columns >= middle).sum()
    assert left > 500
    assert 0.7 < right / left < 1.8
    # Without detections the right side has none of them.
    none = {p: Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()) for p in one}
    draw_detections(index, none, tmp_path / "none.png", count=1)
    drawn = pixels(Image.open(tmp_path / "none.png"))[25:-60]
    for colour in set(used):
        assert (np.argwhere((drawn == colour).all(axis=2))[:, 1] < middle).all()


def test_the_same_pictures_each_time_those_with_boxes_first(tmp_path: Path) -> None:
    index = open_set(write_set(tmp_path, range(20)))
    everything = list(range(20))
    chosen = choose_pictures(index, everything, 6)
    assert len(set(chosen)) == 6
    assert all(len(records(index)[p].boxes) for p in chosen)
    assert chosen == choose_pictures(index, everything, 6)
    assert chosen[0] < 5 and chosen[-1] > 14  # spread
    assert sorted(choose_pictures(index, everything, 50)) == everything
    assert choose_pictures(index, [0, 5], 6) == [0, 5]  # pictures without boxes, if need be
    assert choose_pictures(index, [], 6) == []


def test_sheets_of_odd_sets_are_drawn(tmp_path: Path) -> None:
    """Nothing evaluated; a picture gone since; a very long one."""
    index = open_set(write_set(tmp_path, range(1, 6), sizes=((400, 20), (20, 400))))
    draw_detections(index, {}, tmp_path / "empty.png")
    index.file(2).unlink()
    draw_detections(index, imperfect(index, 0), tmp_path / "odd.png")
    assert Image.open(tmp_path / "empty.png").width >= 480
    assert Image.open(tmp_path / "odd.png").width >= 480


def test_a_prediction_says_what_it_drew(tmp_path: Path) -> None:
    found = Detections(
        torch.tensor([[10.0, 10, 50, 50], [0, 0, 99, 99], [5, 5, 9, 9]]),
        torch.tensor([0.98, 0.5, 0.49]),
        torch.tensor([2, 1, 1]),
    )
    out = tmp_path / "out.png"
    shown = draw_prediction(Image.new("RGB", (600, 500)), found, ["cat", "dog"], out, score=0.5)
    assert shown == ["dog 0.98", "cat 0.50"]
    drawn = pixels(Image.open(out))
    assert drawn.shape == (500, 600, 3)
    assert drawn[30, 10].tolist() == list(class_colour(2))
    assert drawn[60, 98].tolist() == list(class_colour(1))
