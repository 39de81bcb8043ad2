"""The COCO reader: what it reads, against pycocotools and by hand; what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.errors import UserError
from tests.data.made import content_of, read_coco, records

from .made import CATEGORIES, box, image, real_data, save_noise, write_set


def read(*sources: AnnotationSource, keep_empty: bool = False, invalid: Any = "stop") -> Any:
    return read_coco(sources, keep_empty=keep_empty, invalid_boxes=invalid)


def test_reads_real_coco_as_pycocotools_does() -> None:
    folder = real_data("coco_tiny", "reading COCO against pycocotools")
    file = folder / "annotations" / "instances_train2017.json"
    source = AnnotationSource(annotations=str(file), images=str(folder / "train2017"))
    index = read(source, keep_empty=True)
    coco = COCO(str(file))
    assert list(index.image_ids) == list(coco.imgs)
    assert list(index.category_ids) == sorted(coco.cats)
    assert list(index.categories) == [coco.cats[i]["name"] for i in sorted(coco.cats)]
    assert index.crowds.sum() == 5
    for record in records(index):
        entry = coco.imgs[record.image_id]
        assert record.file == folder / "train2017" / entry["file_name"]
        assert (record.width, record.height) == (entry["width"], entry["height"])
        wanted = coco.loadAnns(coco.getAnnIds(record.image_id, iscrowd=False))
        expected = [
            [x, y, min(x + w, record.width), min(y + h, record.height)]
            for x, y, w, h in (a["bbox"] for a in wanted)
        ]
        np.testing.assert_allclose(record.boxes, np.reshape(expected, (-1, 4)), rtol=0, atol=1e-4)
        assert [index.category_ids[k - 1] for k in record.labels] == [
            a["category_id"] for a in wanted
        ]
    ours = COCO()
    ours.dataset = content_of(index)
    ours.createIndex()
    for image_id in index.image_ids:
        for mine, theirs in zip(
            ours.loadAnns(ours.getAnnIds(int(image_id))),
            coco.loadAnns(coco.getAnnIds(int(image_id))),
            strict=True,
        ):
            for key in ("bbox", "area", "iscrowd", "category_id"):
                assert mine[key] == theirs[key]


def test_labels_follow_ids_and_crowds_stand_apart(tmp_path: Path) -> None:
    source = write_set(
        tmp_path,
        [image(5), image(2), image(9), image(4)],
        [
            box(1, 2, [1, 2, 3, 4], 90),
            box(2, 5, [0, 0, 10, 10], 3),
            box(3, 2, [5, 5, 5, 5], 7),
            box(4, 2, [0, 0, 40, 30], 7, iscrowd=1, area=77.5),
            box(5, 4, [0, 0, 4, 4], 7, iscrowd=1),
        ],
    )
    index = read(source)
    assert index.category_ids == (3, 7, 90)
    assert index.categories == ("dog", "cat", "cup")
    assert list(index.image_ids) == [5, 2]  # 9 has no box, 4 only a crowd
    first, second = records(index)
    assert first.labels.tolist() == [1]
    assert second.boxes.tolist() == [[1, 2, 4, 6], [5, 5, 10, 10]]
    assert second.labels.tolist() == [3, 2]
    truth = [a for a in content_of(index)["annotations"] if a["image_id"] == 2]
    assert [a["iscrowd"] for a in truth] == [0, 0, 1]
    assert truth[2]["area"] == 77.5
    assert truth[0]["area"] == 12
    assert "left out 2 pictures" in " ".join(index.summary())
    assert list(read(source, keep_empty=True).image_ids) == [5, 2, 9, 4]


def test_several_files_are_one_set(tmp_path: Path) -> None:
    one = write_set(tmp_path / "a b", [image(1), image(2)], [box(1, 2, [0, 0, 5, 5])])
    boxes = [box(1, 8, [1, 1, 5, 5]), box(2, 1, [2, 2, 5, 5], 90)]
    two = write_set(tmp_path / "c", [image(1), image(8)], boxes)
    index = read(one, two)
    assert [(r.source, r.image_id) for r in records(index)] == [(0, 2), (1, 1), (1, 8)]
    assert [r.file.parent.parent.name for r in records(index)] == ["a b", "c", "c"]
    assert [r.boxes[0, 0] for r in records(index)] == [0, 2, 1]
    ids = [a["id"] for a in content_of(index)["annotations"]]
    assert ids == [1, 2, 3]


def test_boxes_are_clipped_and_invalid_ones_counted(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    bad: list[list[Any]] = [[0, 0, nan, 5], [0, 0, 0, 5], [0, 0, 5, -1], [40, 0, 5, 5]]
    bad += [[-9, 2, 9, 3], [0, 0, inf, 5], [None, 0, 5, 5]]
    annotations = [box(k, 1, values) for k, values in enumerate(bad, start=10)]
    annotations += [box(1, 1, [-5, 20, 100, 100]), box(2, 1, [39.5, 0, 5, 5])]
    source = write_set(tmp_path, [image(1), image(2)], annotations)
    with pytest.raises(UserError) as stopped:
        read(source)
    text = str(stopped.value)
    assert f"{tmp_path / 'set.json'}, annotation 10 (image 1)" in text
    assert f"outside its picture): {len(bad)}" in text
    assert "data.invalid_boxes=drop" in text
    index = read(source, invalid="drop")
    assert index.record(0).boxes.tolist() == [[0, 20, 40, 30], [39.5, 0, 40, 5]]
    truth = content_of(index)["annotations"]
    assert [a["bbox"] for a in truth[-2:]] == [[-5, 20, 100, 100], [39.5, 0, 5, 5]]
    assert len(truth) == len(annotations)  # truth is what the file has
    assert f"dropped {len(bad)} invalid boxes" in " ".join(index.summary())


@pytest.mark.parametrize(
    ("images", "annotations", "expected"),
    [
        ([image(1), image(1, "b.png")], [box(1, 1, [0, 0, 5, 5])], "duplicate image id"),
        ([image(1)], [box(1, 1, [0, 0, 5, 5])] * 2, "duplicate annotation id"),
        ([image(1)], [{"id": 4, "category_id": 7, "bbox": [0, 0, 5, 5]}], "no usable image_id"),
        ([image(1)], [{"id": 4, "image_id": 1, "bbox": [0, 0, 5, 5]}], "no usable category_id"),
        ([image(1)], [{"id": 4, "image_id": 1, "category_id": 7}], "bbox of four numbers"),
        ([image(1)], [box(4, 1, "0 0 5 5")], "bbox of four numbers"),
        ([{**image(1), "width": None}], [], "missing picture file"),
        ([{**image(1), "id": None}], [], "image needs an id"),
        ([{**image(1), "id": [1]}], [], "image needs an id"),
        ([{**image(1), "file_name": 5}], [], "image needs a file_name"),
        ([image(1)], [box(4, 1, [0, 0, 5, 5], iscrowd="maybe")], "iscrowd must be 0 or 1"),
    ],
)
def test_wrong_entries_are_named(
    tmp_path: Path, images: Any, annotations: Any, expected: str
) -> None:
    source = write_set(tmp_path, images, annotations, pictures=False)
    for invalid in (
        "stop",
        "drop",
    ):  # dropping is for boxes alone
        with pytest.raises(UserError, match=str(tmp_path)) as error:
            read(source, keep_empty=True, invalid=invalid)
        assert expected in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is not JSON"),
        ('{"images": [}', "is not JSON"),
        ("[1, 2]", "top level is a list"),
        ('{"images": [], "info": 1}', "missing annotations, categories (keys found: images, info)"),
        ('{"images": {}, "annotations": [], "categories": []}', "images must be a list"),
        ('{"images": [], "annotations": [3], "categories": []}', "annotations must be a list"),
        ('{"images": [], "annotations": [], "categories": []}', "declares no categories"),
    ],
)
def test_files_that_are_not_coco(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "odd name.json"
    file.write_text(content)
    with pytest.raises(UserError) as error:
        read(AnnotationSource(annotations=str(file), images=str(tmp_path)))
    assert expected in str(error.value)
    assert str(file) in str(error.value)


def test_missing_annotation_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json does not exist"):
        read(AnnotationSource(annotations=str(tmp_path / "none.json"), images=str(tmp_path)))


def test_missing_pictures_are_found_before_training(tmp_path: Path) -> None:
    images = [image(1), image(2, "deep/er/2.png"), image(3, "gone/3.png"), image(4)]
    source = write_set(tmp_path, images, [box(1, 1, [0, 0, 5, 5])])
    read(source)
    (tmp_path / "pictures" / "4.png").unlink()
    (tmp_path / "pictures" / "gone" / "3.png").unlink()
    (tmp_path / "pictures" / "gone").rmdir()
    with pytest.raises(UserError) as error:
        read(source)
    text = str(error.value)
    assert f"missing picture file: 2, the first: {tmp_path / 'set.json'}, image 3" in text
    assert f"the folder {tmp_path / 'pictures' / 'gone'} does not exist" in text
    assert text.count("missing picture file") == 1  # one line a kind
    save_noise(tmp_path / "pictures" / "gone" / "3.png", 40, 30)
    with pytest.raises(UserError, match=r"missing picture file: 1: .*pictures/4\.png"):
        read(source)


def test_differing_categories_are_named(tmp_path: Path) -> None:
    one = write_set(tmp_path / "a", [image(1)], [box(1, 1, [0, 0, 5, 5])])
    other = [{"id": 7, "name": "cat"}, {"id": 3, "name": "hound"}, {"id": 91, "name": "cup"}]
    two = write_set(tmp_path / "b", [image(1)], [box(1, 1, [0, 0, 5, 5])], other)
    with pytest.raises(UserError) as error:
        read(one, two)
    for line in (
        "category 3: 'dog' against 'hound'",
        "category 90: 'cup' against missing",
        "category 91: missing against 'cup'",
    ):
        assert line in str(error.value)
    same = write_set(tmp_path / "c", [image(1)], [box(1, 1, [0, 0, 5, 5])], CATEGORIES[::-1])
    assert len(read(one, same)) == 2


def test_nothing_left_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture with boxes is left"):
        read(write_set(tmp_path, [image(1)], []))


def test_paths_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "my set", [image(1)], [box(1, 1, [0, 0, 5, 5])])
    source = AnnotationSource(annotations="${PLACE}/my set/set.json", images="~/my set/pictures")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PLACE", raising=False)
    with pytest.raises(UserError, match="PLACE is not set"):
        read(source)
    monkeypatch.setenv("PLACE", str(tmp_path))
    assert read(source).record(0).file == tmp_path / "my set" / "pictures" / "1.png"


def test_segmentations_do_not_matter(tmp_path: Path) -> None:
    polygon: dict[str, Any] = {"segmentation": [[0.0, 1.0] * 3], "attributes": {"occluded": False}}
    source = write_set(tmp_path, [image(1)], [box(1, 1, [0, 0, 5, 5], **polygon)])
    text = json.loads(Path(source.annotations).read_text())
    assert "segmentation" in text["annotations"][0]
    assert read(source).record(0).boxes.tolist() == [[0, 0, 5, 5]]


def test_a_file_may_lack_classes_that_others_have(tmp_path: Path) -> None:
    """Tools write the classes that occur; the labels are those of all files together."""
    one = write_set(tmp_path / "a", [image(1)], [box(1, 1, [0, 0, 5, 5])], CATEGORIES[:1])
    all_ = write_set(tmp_path / "b", [image(1)], [box(1, 1, [0, 0, 5, 5], 90)])
    for sources in ((one, all_), (all_, one)):
        index = read(*sources)
        assert index.category_ids == (3, 7, 90)
        assert sorted(index.labels.tolist()) == [2, 3]
        (note,) = [note for note in index.notes if "declares no category" in note]
        assert f"{one.annotations} declares no category 3 'dog', 90 'cup'" in note
    third = write_set(tmp_path / "c", [image(1)], [box(1, 1, [0, 0, 5, 5], 90)], CATEGORIES[2:])
    with pytest.raises(UserError, match="category 90: missing against 'cup'"):
        read(one, third)  # what is no class in the one may be anywhere in its pictures
