"""Which settings, and which data, make an mmAP another one."""

import json
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.config.load import load_config, override
from megdet_hvd.config.resume_rules import RULES
from megdet_hvd.data.coco import read_sources
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.source import PictureSource
from megdet_hvd.engine.fingerprints import boxes_digest, measure, order_of_pictures

CONFIG = load_config(None)
OTHERWISE = {
    "data.max_size": 300,
    "data.value_range": "[0,4095]",
    "data.resize": "pillow",
    "data.eval_min_size": 60,
    "data.min_sizes": "[50]",
    "model.rpn.pre_nms_test": 7,
    "model.rpn.post_nms_test": 7,
    "model.rpn.nms_iou": 0.1,
    "model.roi.score_threshold": 0.5,
    "model.roi.nms_iou": 0.1,
    "model.roi.detections_per_image": 7,
    "evaluation.max_images": 7,
}
BY_DATA = {"data.kind", "data.val", "data.dataset", "data.invalid_boxes", "data.scenes.val_images"}


def index(folder: Path, images: list[int], box: list[float], name: str = "cat") -> ImageIndex:
    sizes: list[dict[str, Any]] = [
        {"id": i, "file_name": f"{i}.png", "width": 20, "height": 20} for i in images
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 9, "iscrowd": 0}
        for i in images
    ]
    tree = {"images": sizes, "annotations": boxes, "categories": [{"id": 1, "name": name}]}
    folder.mkdir()
    for picture in images:
        (folder / f"{picture}.png").touch()
    (folder / "a.json").write_text(json.dumps(tree))
    return read_sources(
        [PictureSource(folder / "a.json", folder)], keep_empty=True, invalid_boxes="stop"
    )


@pytest.fixture
def pictures(tmp_path: Path) -> ImageIndex:
    return index(tmp_path / "one", [1, 2, 3], [1, 1, 5, 5])


def test_settings_that_mmap_depends_on_are_those_that_the_rules_name(pictures: ImageIndex) -> None:
    assert {key for key, rule in RULES.items() if rule.measures} == BY_DATA | set(OTHERWISE)
    own = measure(CONFIG, pictures)
    assert own == measure(override(CONFIG, ["learning.momentum=0.1"]), pictures)
    for key, value in OTHERWISE.items():
        assert measure(override(CONFIG, [f"{key}={value}"]), pictures) != own, key
    smaller = override(CONFIG, ["data.min_sizes=[50]", f"data.eval_min_size={MIN_SIZE}"])
    assert measure(smaller, pictures) != measure(smaller, None) is None


MIN_SIZE = max(CONFIG.data.min_sizes)


def test_the_same_pictures_elsewhere_are_the_same(tmp_path: Path, pictures: ImageIndex) -> None:
    moved = index(tmp_path / "two", [1, 2, 3], [1, 1, 5, 5])
    assert order_of_pictures(moved) == order_of_pictures(pictures)
    assert measure(CONFIG, moved) == measure(CONFIG, pictures)


def test_other_boxes_and_classes_are_another_measure(tmp_path: Path, pictures: ImageIndex) -> None:
    boxes = index(tmp_path / "boxes", [1, 2, 3], [1, 1, 5, 6])
    classes = index(tmp_path / "classes", [1, 2, 3], [1, 1, 5, 5], "dog")
    others = index(tmp_path / "others", [3, 2, 1], [1, 1, 5, 5])
    assert len({measure(CONFIG, one) for one in (pictures, boxes, classes, others)}) == 4
    assert order_of_pictures(boxes) == order_of_pictures(classes) == order_of_pictures(pictures)
    assert order_of_pictures(others) != order_of_pictures(pictures)


def test_other_boxes_to_learn_from_are_noticed(tmp_path: Path) -> None:
    """The annotation file was corrected between a run's end and its resume."""
    one = index(tmp_path / "one", [1, 2, 3], [1, 1, 5, 5])
    assert boxes_digest(one) == boxes_digest(index(tmp_path / "elsewhere", [1, 2, 3], [1, 1, 5, 5]))
    corrected = index(tmp_path / "corrected", [1, 2, 3], [1, 1, 5, 6])
    assert order_of_pictures(corrected) == order_of_pictures(one)
    assert boxes_digest(corrected) != boxes_digest(one)
