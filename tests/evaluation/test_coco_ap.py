"""AP against pycocotools called directly on the same JSON."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.batch import Detections
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.coco_ap import STATS, CocoResult, in_short, score
from megdet_hvd.evaluation.coco_eval import _library
from megdet_hvd.evaluation.numbering import Numbering
from megdet_hvd.evaluation.results_json import coco_results, result_files, write_results
from tests.data.made import read_coco, records
from tests.evaluation.sets import CATEGORY_IDS, NAMES, imperfect, open_set, perfect, write_set

DATA = Path(os.environ.get("MEGDET_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))

LIBRARIES = {True: "faster_coco_eval", False: "pycocotools"}
same = partial(pytest.approx, rel=0, abs=1e-12)


def evaluate(index: ImageIndex, found: dict[int, Detections]) -> CocoResult:
    numbering = Numbering.of(index, range(len(index)))
    return score(numbering.ground_truth(), numbering.found_boxes(found))


def directly(annotations: Path, results: Path) -> tuple[list[float], dict[str, float]]:
    """The 12 numbers and AP per class by COCO's own recipe, -1 where it says -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        per_class = {}
        for category in evaluation.params.catIds:
            single = COCOeval(truth, evaluation.cocoDt, "bbox")
            single.params.catIds = [category]
            single.evaluate()
            single.accumulate()
            single.summarize()
            per_class[truth.cats[category]["name"]] = float(single.stats[0])
    return [float(v) for v in evaluation.stats], per_class


def without_id_zero(source: AnnotationSource, folder: Path) -> Path:
    """COCOeval takes an annotation with id 0 for 'no match': count from 1 for the comparison."""
    content = json.loads(Path(source.annotations).read_text())
    for annotation in content["annotations"]:
        annotation["id"] += 1
    out = folder / "from_one.json"
    out.write_text(json.dumps(content))
    return out


def as_coco(result: CocoResult) -> list[float]:
    return [-1.0 if v is None else v for v in result.stats.values()]


def test_pycocotools_evaluates_where_the_quick_library_can_not_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "faster_coco_eval", raising=False)
    broken = tmp_path / "faster_coco_eval.py"
    broken.write_text("raise ValueError('numpy.dtype size changed')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert _library()[0].__module__.partition(".")[0] == LIBRARIES[False]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("quick", [True, False])
def test_the_numbers_are_those_of_pycocotools_on_the_written_json(
    tmp_path: Path, seed: int, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not quick:
        monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert _library()[0].__module__.partition(".")[0] == LIBRARIES[quick]
    ids = [900, 5, 77, 12, 3, 450, 8, 31, 44, 10, 2]  # not in order, to see ties fall alike
    source = write_set(tmp_path, ids, seed=seed, sizes=((120, 90), (300, 400)))
    index = open_set(source)
    found = imperfect(index, seed)
    result = evaluate(index, found)
    numbering = Numbering.of(index, range(len(index)))
    out = tmp_path / "results.json"
    written = write_results(out, numbering, numbering.found_boxes(found))
    assert written == [(Path(source.annotations), out)]
    stats, per_class = directly(without_id_zero(source, tmp_path), out)
    assert tuple(result.stats) == STATS
    assert as_coco(result) == (same(stats) if quick else stats)
    found_per_class = {n: -1.0 if v is None else v for n, v in result.per_class.items()}
    assert found_per_class == (same(per_class) if quick else per_class)
    assert result.ap is not None and 0.05 < result.ap < 0.95
    assert {entry["category_id"] for entry in json.loads(out.read_text())} == set(CATEGORY_IDS)


def test_perfect_detections_score_one(tmp_path: Path) -> None:
    index = open_set(write_set(tmp_path, range(1, 12), sizes=((120, 90), (300, 400))))
    result = evaluate(index, perfect(index))
    assert result.ap == pytest.approx(1.0, abs=1e-6)
    assert result.ap50 == pytest.approx(1.0, abs=1e-6)
    assert all(v == pytest.approx(1.0, abs=1e-6) for v in result.per_class.values())
    assert result.images == 11


def one_box(tmp_path: Path, **extra: Any) -> ImageIndex:
    annotation = {"id": 1, "image_id": 9, "category_id": 17, "bbox": [10, 10, 100, 100], **extra}
    file = tmp_path / "one.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 9, "file_name": "a.png", "width": 200, "height": 200}],
                "categories": [
                    {"id": i, "name": n} for i, n in zip(CATEGORY_IDS, NAMES, strict=True)
                ],
                "annotations": [annotation],
            }
        )
    )
    (tmp_path / "a.png").touch()
    return open_set(AnnotationSource(annotations=str(file), images=str(tmp_path)))


def found_box(*boxes: list[float], label: int = 2) -> dict[int, Detections]:
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return {
        0: Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            scores,
            torch.full((len(boxes),), label),
        )
    }


@pytest.mark.parametrize(("shift", "reached"), [(0, 10), (5, 9), (20, 4), (30, 1), (40, 0)])
def test_a_shifted_box_scores_the_thresholds_it_reaches(
    tmp_path: Path, shift: int, reached: int
) -> None:
    """IoU (100 - s) / (100 + s): 0.905, 0.667, 0.538, 0.429 against 0.50, 0.55, … 0.95."""
    index = one_box(tmp_path)
    result = evaluate(index, found_box([10 + shift, 10, 110 + shift, 110]))
    thresholds = np.arange(0.5, 0.951, 0.05)
    assert reached == sum((100 - shift) / (100 + shift) >= thresholds - 1e-9)
    assert result.ap == pytest.approx(reached / 10)
    assert result.ap50 == pytest.approx(1.0 if reached else 0.0)
    assert result.per_class == {"cat": None, "traffic light": result.ap, "dog": None}
    assert result.stats["APl"] == pytest.approx(reached / 10)
    assert result.stats["APs"] is None
    assert result.stats["APm"] is None


def test_a_class_has_a_hundred_detections_a_picture(tmp_path: Path) -> None:
    truth = [[10.0 * k, 0, 8, 8] for k in range(12)]
    index = one_box(tmp_path, bbox=truth[0], area=64)
    content = json.loads(index.annotation_files[0].read_text())
    one = content["annotations"][0]
    content["annotations"] = [{**one, "id": k + 1, "bbox": box} for k, box in enumerate(truth)]
    index.annotation_files[0].write_text(json.dumps(content))
    index = open_set(
        AnnotationSource(annotations=str(index.annotation_files[0]), images=str(tmp_path))
    )
    result = evaluate(index, found_box(*([x, y, x + w, y + h] for x, y, w, h in truth)))
    assert result.ap == result.per_class["traffic light"] == pytest.approx(1.0)
    assert result.stats["AR10"] == pytest.approx(10 / 12)


def test_no_detections_at_all_are_zeros(tmp_path: Path) -> None:
    index = one_box(tmp_path)
    for found in ({}, found_box()):
        result = evaluate(index, found)
        given = {"APs", "APm", "ARs", "ARm"}
        assert result.stats == {name: None if name in given else 0.0 for name in STATS}
        assert result.per_class == {"cat": None, "traffic light": 0.0, "dog": None}
        assert result.detections == 0


def test_without_ground_truth_there_are_no_numbers(tmp_path: Path) -> None:
    index = open_set(write_set(tmp_path, [1]))
    assert len(index.boxes) == 0
    result = evaluate(index, found_box([1, 1, 20, 20]))
    assert set(result.stats.values()) == {None}
    assert result.ap is None and result.ap50 is None  # 0 would make the first checkpoint the best
    assert in_short(None, None, 3) == "mmAP no ground truth, AP@.5 no ground truth on 3 pictures"


def test_the_annotated_area_decides_what_is_small(tmp_path: Path) -> None:
    index = one_box(tmp_path, area=500.0)
    result = evaluate(index, found_box([10, 10, 110, 110]))
    assert result.stats["APs"] == pytest.approx(1.0)
    assert result.stats["APl"] is None


def test_detections_on_crowds_count_neither_way(tmp_path: Path) -> None:
    file = tmp_path / "crowd.json"
    annotations = [
        {"id": 1, "image_id": 9, "category_id": 3, "bbox": [0, 0, 50, 50], "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 3, "bbox": [100, 100, 90, 90], "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 9, "file_name": "a.png", "width": 200, "height": 200}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": annotations,
    }
    file.write_text(json.dumps(content))
    (tmp_path / "a.png").touch()
    index = open_set(AnnotationSource(annotations=str(file), images=str(tmp_path)))
    on_crowd = [[110.0 + 5 * k, 110, 130 + 5 * k, 140] for k in range(4)]
    result = evaluate(index, found_box(*on_crowd, [0, 0, 50, 50], label=1))
    assert result.ap == pytest.approx(1.0)
    elsewhere = [[110.0 + 5 * k, 0, 130 + 5 * k, 40] for k in range(4)]
    result = evaluate(index, found_box(*elsewhere, [0, 0, 50, 50], label=1))
    assert result.ap == pytest.approx(0.2)  # precision 1 of 5 at every recall


def test_equal_image_ids_of_two_files_stay_apart(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", [1, 2, 3, 4], seed=1)
    two = write_set(tmp_path / "two", [1, 2, 3, 4], seed=2)
    index = open_set(one, two)
    assert len(index) == 8
    assert evaluate(index, perfect(index)).ap == pytest.approx(1.0, abs=1e-6)
    # The same detections as results of each file's own ids: each file alone agrees.
    found = imperfect(index, 3)
    numbering = Numbering.of(index, range(8))
    written = write_results(tmp_path / "out.json", numbering, numbering.found_boxes(found))
    assert [out.name for _, out in written] == ["out_1.json", "out_2.json"]
    truth = Path(one.annotations)
    alone, before = Numbering.of(open_set(one), range(4)), truth.read_bytes()
    for out in (truth, tmp_path / "one" / ".." / "one" / truth.name):
        with pytest.raises(UserError, match="is an annotation file"):
            write_results(out, alone, alone.found_boxes({}))
        assert truth.read_bytes() == before
        with pytest.raises(UserError, match="is an annotation file"):
            result_files(out, [truth])  # before anything is evaluated
    with pytest.raises(UserError, match=r"is a folder; .*results\.json"):
        result_files(tmp_path, [truth])
    with pytest.raises(UserError, match="is no folder that can be written to"):
        result_files(truth / "results.json", [truth])
    for k, (source, (file, out)) in enumerate(zip((one, two), written, strict=True)):
        assert file == Path(source.annotations)
        own = open_set(source)
        result = evaluate(own, {p: found[4 * k + p] for p in range(4)})
        (tmp_path / str(k)).mkdir()
        theirs, _ = directly(without_id_zero(source, tmp_path / str(k)), out)
        assert as_coco(result) == same(theirs)


def test_results_json_has_the_files_own_ids(tmp_path: Path) -> None:
    index = one_box(tmp_path)
    numbering = Numbering.of(index, range(1))
    found = numbering.found_boxes(found_box([10.12345, 20, 30, 45.5]))
    (results,) = coco_results(numbering, found)
    assert results == [
        {
            "image_id": 9,
            "category_id": 17,
            "bbox": [10.123, 20.0, 19.877, 25.5],
            "score": pytest.approx(0.9),
        }
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_detector_gone_astray_scores_what_pycocotools_says(tmp_path: Path, value: float) -> None:
    source = write_set(tmp_path, range(1, 9), seed=1)
    index = open_set(source)
    numbering = Numbering.of(index, range(len(index)))
    for spoiled in ("boxes", "scores"):
        found = imperfect(index, 2)
        for number, one in found.items():
            if number % 2:
                getattr(one, spoiled)[::2] = value
        boxes = numbering.found_boxes(found)
        assert not np.isfinite(getattr(boxes, spoiled)).all()
        write_results(tmp_path / "out.json", numbering, boxes)
        theirs, _ = directly(without_id_zero(source, tmp_path), tmp_path / "out.json")
        assert as_coco(score(numbering.ground_truth(), boxes)) == theirs


@pytest.mark.parametrize("name", ["coco_tiny", "bccd"])
def test_real_annotations(tmp_path: Path, name: str) -> None:
    files = sorted((DATA / name).glob("annotations/*.json"))
    if not files:
        pytest.skip(f"no real data at {DATA / name} (MEGDET_TEST_DATA): AP on it not checked")
    file = files[-1]  # BCCD: the validation file
    images = DATA / name / ("train2017" if name == "coco_tiny" else "images/val")
    index = open_set(AnnotationSource(annotations=str(file), images=str(images)))
    found = {k: v for k, v in imperfect(index, 1).items() if k % 7}
    numbering = Numbering.of(index, range(len(index)))
    out = tmp_path / "results.json"
    write_results(out, numbering, numbering.found_boxes(found))
    result = evaluate(index, found)
    stats, per_class = directly(file, out)
    assert as_coco(result) == same(stats)
    assert {n: -1.0 if v is None else v for n, v in result.per_class.items()} == same(per_class)
    assert len(result.per_class) == {"coco_tiny": 80, "bccd": 3}[name]
    text = "\n".join(result.lines())
    assert f"AP per class ({len(result.per_class)} classes)" in text
    assert f"AP50  IoU 0.50                   {result.ap50:.3f}" in text


def _named(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["id"] = f"frame_{image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"frame_{annotation['image_id']}"


def _hashed(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["id"] += 2**63
    for annotation in content["annotations"]:
        annotation["image_id"] += 2**63


def _tabled(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation["image_id"] = float(annotation["image_id"])
        annotation["category_id"] = float(annotation["category_id"])
        annotation["bbox"] = [str(value) for value in annotation["bbox"]]


def _invalid(content: dict[str, Any]) -> None:
    for k, annotation in enumerate(content["annotations"]):
        if k % 4 == 0:
            annotation["bbox"][2 + k % 8 // 4] = 0
        elif k % 4 == 1:
            annotation["bbox"][0] = 500


def _ignored(content: dict[str, Any]) -> None:
    for annotation in content["annotations"][::2]:
        annotation["ignore"] = 1


def _orphaned(content: dict[str, Any]) -> None:
    content["annotations"][0]["image_id"] = 999
    content["annotations"][1]["category_id"] = 0


def _emptied(content: dict[str, Any]) -> None:
    """As a table's empty cells are written."""
    for annotation in content["annotations"][::2]:
        annotation["area"] = float("nan")


def _headed(content: dict[str, Any]) -> None:
    for category in content["categories"]:
        category["supercategory"] = "things"
    content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})


@pytest.mark.parametrize(
    "change", [_named, _hashed, _tabled, _invalid, _ignored, _orphaned, _headed, _emptied]
)
@pytest.mark.parametrize("invalid", ["stop", "drop"])
def test_other_tools_files_score_what_pycocotools_says(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], invalid: Literal["stop", "drop"]
) -> None:
    source = write_set(tmp_path, [11, 2, 33, 4, 5, 6, 70, 8], seed=3)
    content = json.loads(Path(source.annotations).read_text())
    for annotation in content["annotations"]:
        annotation["id"] += 1
    found = imperfect(open_set(source), 5)  # as ever, whatever becomes of the truth
    change(content)
    Path(source.annotations).write_text(json.dumps(content))
    index = read_coco([source], keep_empty=True, invalid_boxes=invalid, purpose="val")
    assert [record.file.name for record in records(index)][:2] == [
        "picture 11.png",
        "picture 2.png",
    ]
    numbering = Numbering.of(index, range(len(index)))
    ((file, out),) = write_results(tmp_path / "out.json", numbering, numbering.found_boxes(found))
    ours = as_coco(evaluate(index, found))
    theirs, _ = directly(file, out)
    assert ours == same(theirs)
    assert 0 < ours[0] < 1
