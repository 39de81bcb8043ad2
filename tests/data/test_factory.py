"""Training and validation sets opened together."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from megdet_hvd.config.schema import AnnotationSource, DataConfig
from megdet_hvd.data.factory import open_datasets, open_validation
from megdet_hvd.errors import UserError
from tests.data.made import content_of

from .made import CATEGORIES, box, image, save_noise, write_set

ROOT = Path(__file__).parents[2]


def coco(train: AnnotationSource, *val: AnnotationSource, **more: Any) -> DataConfig:
    return DataConfig(kind="coco", train=(train,), val=val, **more)


def test_empty_pictures_are_left_out_of_training_only(tmp_path: Path) -> None:
    source = write_set(tmp_path, [image(1), image(2)], [box(1, 2, [0, 0, 5, 5])])
    wait = Mock()
    sets = open_datasets(coco(source, source), is_main=True, wait=wait)
    wait.assert_called_once_with()
    assert sets.val is not None
    assert (len(sets.train), len(sets.val)) == (1, 2)
    kept = open_datasets(coco(source, keep_empty=True), is_main=False, wait=wait)
    assert (len(kept.train), kept.val) == (2, None)
    assert len(open_validation(coco(source, source), is_main=True, wait=wait)) == 2
    with pytest.raises(UserError, match=r"give data\.val"):
        open_validation(coco(source), is_main=True, wait=wait)


def test_validation_must_have_the_same_categories(tmp_path: Path) -> None:
    train = write_set(tmp_path / "a", [image(1)], [box(1, 1, [0, 0, 5, 5])])
    other = [*CATEGORIES[:1], {"id": 3, "name": "hound"}]
    val = write_set(tmp_path / "b", [image(1)], [], other)
    with pytest.raises(UserError) as error:
        open_datasets(coco(train, val), is_main=True, wait=Mock())
    text = str(error.value)
    assert f"training file {tmp_path / 'a' / 'set.json'} (3)" in text
    assert f"validation file {tmp_path / 'b' / 'set.json'} (2)" in text
    assert "category 3: 'dog' against 'hound'" in text
    assert "category 90: 'cup' against missing" in text


def test_reading_and_ordering_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from megdet_hvd.data import __main__, check, coco, factory, layout, sampler\n"
        "from megdet_hvd.data import transforms\n"
        "from megdet_hvd.data.fetch import run\n"
        "from megdet_hvd.report import ground_truth\n"
        "print(sorted({'torch', 'torchvision', 'horovod', 'mpi4py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_heading_that_training_uses_is_kept_in_validation(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "fish", "supercategory": "none"},
        {"id": 1, "name": "trap", "supercategory": "fish"},
    ]
    used, empty = ([box(1, 1, [0, 0, 5, 5], k), box(2, 1, [0, 0, 9, 9], 1)] for k in (0, 1))
    train = write_set(tmp_path / "a", [image(1)], used, categories)
    val = write_set(tmp_path / "b", [image(1)], empty, categories)
    sets = open_datasets(coco(train, val), is_main=True, wait=Mock())
    assert sets.val is not None
    assert sets.train.categories == sets.val.categories == ("fish", "trap")
    assert sets.val.labels.tolist() == [2, 2]
    assert open_datasets(coco(val, val), is_main=True, wait=Mock()).train.categories == ("trap",)
    with pytest.raises(UserError, match="category 0: missing against 'fish'"):
        open_datasets(coco(val, train), is_main=True, wait=Mock())


def test_a_checkpoints_classes_are_measured_as_in_its_training(tmp_path: Path) -> None:
    """By other processes, which don't read the training files."""
    train = write_set(tmp_path / "a", [image(1)], [box(1, 1, [0, 0, 5, 5])])
    val = write_set(tmp_path / "b", [image(1)], [box(1, 1, [0, 0, 9, 9], 3)], CATEGORIES[1:2])
    along = open_datasets(coco(train, val), is_main=True, wait=Mock())
    assert along.val is not None
    used = dict(zip(along.train.category_ids, along.train.categories, strict=True))
    alone = open_validation(coco(train, val), is_main=True, wait=Mock(), known=(used, "it"))
    assert alone.categories == along.val.categories and len(alone.categories) == 3
    assert alone.labels.tolist() == along.val.labels.tolist()
    assert open_validation(coco(train, val), is_main=True, wait=Mock()).categories == ("dog",)
    with pytest.raises(UserError, match="category 3: 'wolf' against 'dog'"):
        open_validation(
            coco(train, val), is_main=True, wait=Mock(), known=({**used, 3: "wolf"}, "it")
        )


def test_evaluation_asks_nothing_of_trainings_files(tmp_path: Path) -> None:
    val = write_set(tmp_path, [image(1)], [box(1, 1, [0, 0, 5, 5])])
    gone = AnnotationSource(annotations="${NO_SUCH_ROOT}/a.json", images="${NO_SUCH_ROOT}")
    assert len(open_validation(coco(gone, val), is_main=True, wait=Mock())) == 1


@pytest.mark.parametrize("invalid", ["stop", "drop"])
def test_what_training_drops_stays_in_the_truth(tmp_path: Path, invalid: Any) -> None:
    boxes = [box(1, 1, [0, 0, 5, 5]), box(2, 1, [2, 2, 0, 5])]
    train = write_set(tmp_path / "a", [image(1)], boxes[:1])
    val = write_set(tmp_path / "b", [image(1)], boxes)
    sets = open_datasets(coco(train, val, invalid_boxes=invalid), is_main=True, wait=Mock())
    assert sets.val is not None
    assert len(content_of(sets.val)["annotations"]) == 2
    assert "1 boxes of the truth have no area" in " ".join(sets.val.summary())


def test_pictures_of_other_sizes_than_annotated_are_told_of_before_training(tmp_path: Path) -> None:
    boxes = [box(k, k, [0, 0, 5, 5]) for k in (1, 2, 3)]
    source = write_set(tmp_path, [image(k) for k in (1, 2, 3)], boxes)
    good = open_datasets(coco(source), is_main=True, wait=Mock())
    assert not good.train.doubts
    save_noise(tmp_path / "pictures" / "2.png", 30, 40)
    with pytest.raises(UserError, match=r"1 of 3 .*swapped.*2\.png, image 2: it is 30×40") as found:
        open_datasets(coco(source), is_main=True, wait=Mock())
    assert "leave both out" in str(found.value)
    with pytest.raises(UserError, match="annotated as 40×30"):
        open_validation(coco(source, source), is_main=True, wait=Mock())
    skipping = coco(source, unreadable_images="skip")
    (doubt,) = open_datasets(skipping, is_main=True, wait=Mock()).train.doubts
    assert "such pictures are skipped" in doubt
    save_noise(tmp_path / "pictures" / "2.png", 41, 30)
    with pytest.raises(UserError, match="1 of 3") as found:
        open_datasets(coco(source), is_main=True, wait=Mock())
    assert "swapped" not in str(found.value)


def test_validation_may_lack_classes(tmp_path: Path) -> None:
    train = write_set(tmp_path / "a", [image(1)], [box(1, 1, [0, 0, 5, 5])])
    val = write_set(tmp_path / "b", [image(1)], [box(1, 1, [0, 0, 5, 5])], CATEGORIES[:1])
    sets = open_datasets(coco(train, val), is_main=True, wait=lambda: None)
    assert sets.val is not None
    assert sets.val.categories == sets.train.categories == ("dog", "cat", "cup")
    assert sets.val.labels.tolist() == sets.train.labels.tolist() == [2]
    assert "it declares no category 3 'dog', 90 'cup': it is not measured" in sets.val.notes
    with pytest.raises(UserError, match="category 3: missing against 'dog'"):
        open_datasets(coco(val, train), is_main=True, wait=lambda: None)


@pytest.mark.parametrize("lacks", [1, 2, 3])
def test_validation_may_lack_any_of_the_classes_of_one_name(tmp_path: Path, lacks: int) -> None:
    named = [{"id": k, "name": name} for k, name in enumerate(("man", "man", "car"), start=1)]
    declared = [one for one in named if one["id"] != lacks]
    boxes = [box(k, 1, [k, k, 9, 9], one["id"]) for k, one in enumerate(declared)]
    train = write_set(tmp_path / "a", [image(1)], [box(1, 1, [0, 0, 5, 5], 1)], named)
    val = write_set(tmp_path / "b", [image(1)], boxes, declared)
    sets = open_datasets(coco(train, val), is_main=True, wait=Mock())
    known = dict(zip(sets.train.category_ids, sets.train.categories, strict=True))
    assert list(known.values()) == ["man", "man (id 2)", "car"]
    alone = open_validation(coco(train, val), is_main=True, wait=Mock(), known=(known, "it"))
    for index in (sets.val, alone):
        assert index is not None and index.categories == sets.train.categories
        assert index.labels.tolist() == [one["id"] for one in declared]
        assert any(f"no category {lacks} '{known[lacks]}'" in note for note in index.notes)
