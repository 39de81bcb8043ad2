"""Annotation files in other tools' dress: the same values as pycocotools, or a reason."""

import errno
import gzip
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.annotations import read_annotation_file
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.transforms import flip_boxes, scale_boxes
from megdet_hvd.errors import StorageError, UserError
from tests.data.made import content_of, read_coco, records

from .made import box, image, save_noise, write_set

Content = dict[str, list[dict[str, Any]]]
CATEGORIES = [{"id": 1, "name": "cell"}, {"id": 2, "name": "rod"}]


def plain() -> Content:
    return {
        "images": [image(k) for k in (1, 2, 10)],
        "annotations": [
            box(1, 1, [1, 2, 10, 11], 1, area=60, iscrowd=0),
            box(2, 10, [3, 4, 12.5, 13], 2, area=70.5, iscrowd=0),
            box(3, 10, [0, 0, 20, 20], 1, area=300, iscrowd=1),
            box(4, 2, [5, 6, 7, 8], 1, area=50, iscrowd=0),
        ],
        "categories": [dict(one) for one in CATEGORIES],
    }


def written(folder: Path, content: Any, images: str = "pictures") -> AnnotationSource:
    """The content as a file beside three pictures of 40×30."""
    for k in (1, 2, 10):
        save_noise(folder / "pictures" / f"{k}.png", 40, 30, seed=k)
    (folder / "set.json").write_text(json.dumps(content))
    return AnnotationSource(annotations=str(folder / "set.json"), images=str(folder / images))


def val(source: AnnotationSource, invalid: Any = "stop") -> ImageIndex:
    return read_coco([source], keep_empty=True, invalid_boxes=invalid, purpose="val")


def train(source: AnnotationSource, invalid: Any = "stop", keep_empty: bool = False) -> ImageIndex:
    return read_coco([source], keep_empty=keep_empty, invalid_boxes=invalid)


def same_as_pycocotools(source: AnnotationSource) -> ImageIndex:
    """The index, compared with pycocotools' picture by picture."""
    with redirect_stdout(io.StringIO()):
        coco = COCO(source.annotations)
    index = val(source)
    truth = content_of(index)["annotations"]
    assert [index.original_id(k) for k in range(len(index))] == list(coco.imgs)
    order = np.argsort(index.image_ids, kind="stable")
    assert [index.original_id(int(k)) for k in order] == sorted(coco.imgs)
    assert list(index.category_ids) == sorted(coco.cats)
    for position, number in enumerate(coco.imgs):
        theirs = coco.loadAnns(coco.getAnnIds([number], catIds=sorted(coco.cats)))
        ours = [a for a in truth if a["image_id"] == index.image_ids[position]]
        assert [a["bbox"] for a in ours] == [[float(v) for v in a["bbox"]] for a in theirs]
        assert [a["area"] for a in ours] == [a["area"] for a in theirs]
        assert [a["category_id"] for a in ours] == [a["category_id"] for a in theirs]
        assert [bool(a["iscrowd"]) for a in ours] == [bool(a["iscrowd"]) for a in theirs]
        assert index.file_names[position] == coco.imgs[number]["file_name"]
    return index


@pytest.mark.parametrize(
    "dress",
    [
        str,
        float,
        lambda v: f"frame_{v:04}",
        lambda v: -v,
        lambda v: v - 1,
        lambda v: v + 0.5,
        lambda v: 2**63 + v,
        lambda v: 212176064080114571335986519928043708319 + v,
        lambda v: 9223372036854775807 - v,
    ],
    ids=["text", "float", "name", "negative", "zero", "half", "2^63", "uuid", "int64"],
)
@pytest.mark.parametrize("what", ["image", "category", "annotation"])
def test_ids_are_whatever_json_has(tmp_path: Path, what: str, dress: Callable[[int], Any]) -> None:
    content = plain()
    lists = {"image": "images", "category": "categories", "annotation": "annotations"}
    for entry in content[lists[what]]:
        entry["id"] = dress(entry["id"])
    for entry in content["annotations"] if what != "annotation" else []:
        entry[f"{what}_id"] = dress(entry[f"{what}_id"])
    source = written(tmp_path, content)
    index = same_as_pycocotools(source)
    assert len(train(source).boxes) == 4
    assert len({int(number) for number in index.image_ids}) == 3  # draws are by number


def test_true_is_one_as_it_is_for_a_dictionary(tmp_path: Path) -> None:
    content = plain()
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = True
    content["annotations"][3]["category_id"] = True
    index = val(written(tmp_path, content))
    assert index.image_ids.tolist() == [1, 2, 10]
    assert index.labels.tolist() == [1, 1, 2, 1]


def test_numbers_as_tables_write_them(tmp_path: Path) -> None:
    content = plain()
    for entry in content["images"]:
        entry["width"], entry["height"] = "40", 30.0
    for entry in content["annotations"]:
        entry["bbox"] = [str(float(value)) for value in entry["bbox"]]
        entry["iscrowd"] = float(entry["iscrowd"])
    index = same_as_pycocotools(written(tmp_path, content))
    assert (index.widths.tolist(), index.heights.tolist()) == ([40] * 3, [30] * 3)
    assert not index.notes


def test_references_in_another_dress_are_joined_and_told(tmp_path: Path) -> None:
    content = plain()
    content["annotations"][0]["image_id"] = "1"
    content["annotations"][1]["category_id"] = "2.0"
    index = val(written(tmp_path, content))
    assert len(index.boxes) == 4
    notes = "\n".join(index.notes)
    assert "1 annotations name their image as a text for a number" in notes
    assert "1 annotations name their category as a text for a number" in notes
    assert "pycocotools leaves them out, the first: annotation 1 (image '1')" in notes
    content["images"][1]["id"] = "01"  # "1" is 1, not "01": either might be meant
    del content["annotations"][3]
    index = val(written(tmp_path, content))
    assert len(index.boxes) == 2
    assert "1 annotations of pictures that the file doesn't list are left out" in index.notes[0]


def test_annotations_of_nothing_are_left_out_as_pycocotools_does(tmp_path: Path) -> None:
    content = plain()
    content["annotations"] += [box(7, 99, [0, 0, 5, 5], 1, area=25, iscrowd=0)] * 1
    content["annotations"] += [
        box(k, 1, [0, 0, 5, 5], category, area=25, iscrowd=0)
        for k, category in enumerate((0, None, 55), start=8)
    ]
    index = same_as_pycocotools(written(tmp_path, content))
    assert len(index.boxes) == 4
    assert index.notes == (
        "1 annotations of pictures that the file doesn't list are left out, the first: "
        "annotation 7 (image 99)",
        "3 annotations of categories that it doesn't list are left out, the first: "
        "annotation 8 (image 1)",
    )


def test_one_fault_is_one_line(tmp_path: Path) -> None:
    """What follows from a refused image, its annotations, is no further fault."""
    content = plain()
    content["images"][2]["file_name"] = None
    content["categories"][1]["id"] = None
    content["annotations"] += [
        box(k, 10, [0, 0, 5, 5], 1, area=25, iscrowd=0) for k in range(20, 60)
    ]
    with pytest.raises(UserError) as stopped:
        val(written(tmp_path, content))
    lines = str(stopped.value).splitlines()
    assert len(lines) == 3, lines
    assert lines[0].startswith("category needs an id (a number or a text): 1: ")
    assert lines[1].startswith("image needs a file_name (or a coco_url): 1: ")
    content = plain()
    for entry in content["annotations"]:
        entry["bbox"] = [1, 2, 3]
    with pytest.raises(UserError, match=r"^annotation needs a bbox of four numbers: 4, the first"):
        val(written(tmp_path, content))


@pytest.mark.parametrize(
    ("crowd", "expected"),
    [
        (None, False), (0, False), ("0", False), ("false", False), (False, False), ("", False),
        (float("nan"), False), (1, True), ("1", True), (True, True), (1.0, True), (2, True),
    ],
)  # fmt: skip
def test_crowds_in_any_dress(tmp_path: Path, crowd: Any, expected: bool) -> None:
    content = plain()
    content["annotations"][0]["iscrowd"] = crowd
    index = val(written(tmp_path, content))
    assert bool(index.crowds[0]) is expected
    assert index.learnable[0] != expected
    assert any("iscrowd as a text" in note for note in index.notes) == isinstance(crowd, str)
    del content["annotations"][0]["iscrowd"]
    assert not val(written(tmp_path, content)).crowds[0]


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (0, 0), (-5, -5), (7.25, 7.25), ("60", 60), (None, 110), ("big", 110), ([], 110),
        (float("inf"), float("inf")), (float("nan"), float("nan")), (10**400, float("inf")),
    ],
)  # fmt: skip
def test_the_area_is_the_files_own(tmp_path: Path, area: Any, expected: float) -> None:
    content = plain()
    content["annotations"][0]["area"] = area
    np.testing.assert_equal(val(written(tmp_path, content)).areas[0], expected)


@pytest.mark.parametrize("key", ["ignore", "difficult"])
def test_boxes_marked_ignore_are_truth_but_not_learned(tmp_path: Path, key: str) -> None:
    content = plain()
    for k, value in enumerate((1, 0, 0, "true")):
        content["annotations"][k][key] = value
    source = written(tmp_path, content)
    index = train(source)
    assert [len(record.boxes) for record in records(index)] == [1]  # 1 and 2 have nothing else
    assert "2 boxes are marked ignore or difficult" in " ".join(index.summary())
    assert "1 box of 2 classes" in index.counts()
    assert len(same_as_pycocotools(source).boxes) == 4


@pytest.mark.parametrize("invalid", ["stop", "drop"])
def test_truth_is_what_the_file_has_whatever_training_drops(tmp_path: Path, invalid: Any) -> None:
    content = plain()
    content["annotations"] += [
        box(900, 1, [20, 20, 0, 5], 1, area=0, iscrowd=0),
        box(901, 2, [200, 20, 5, 5], 1, area=25, iscrowd=0),
    ]
    source = written(tmp_path, content)
    assert len(same_as_pycocotools(source).boxes) == 6
    index = val(source, invalid)
    assert len(content_of(index)["annotations"]) == 6
    assert "2 boxes of the truth have no area" in index.notes[0]
    assert [len(record.boxes) for record in records(train(source, "drop"))] == [1, 1, 1]
    with pytest.raises(UserError, match=r"invalid box .*: 2, the first"):
        train(source)


def test_truth_of_nan_is_refused(tmp_path: Path) -> None:
    content = plain()
    content["annotations"][0]["bbox"] = [0, 0, float("nan"), 5]
    with pytest.raises(UserError, match=r"box with NaN or infinity, .*: 1: "):
        val(written(tmp_path, content))


@pytest.mark.parametrize(
    "size",
    [{}, {"width": None, "height": None}, {"width": 0, "height": 0}, {"width": 40},
     {"width": "wide", "height": 30}, {"width": 2**40, "height": 2**40},
     {"width": float("nan"), "height": float("nan")}],
)  # fmt: skip
def test_sizes_come_from_the_picture_where_the_file_has_none(
    tmp_path: Path, size: dict[str, Any]
) -> None:
    content = plain()
    content["images"] = [{"id": k, "file_name": f"{k}.png", **size} for k in (1, 2, 10)]
    index = same_as_pycocotools(written(tmp_path, content))
    assert (index.widths.tolist(), index.heights.tolist()) == ([40] * 3, [30] * 3)
    assert index.record(1).boxes.tolist() == [[5, 6, 12, 14]]
    assert "3 pictures have no usable width and height" in index.notes[0]
    (tmp_path / "pictures" / "2.png").write_bytes(b"\x89PNG damaged")
    source = AnnotationSource(
        annotations=str(tmp_path / "set.json"), images=str(tmp_path / "pictures")
    )
    with pytest.raises(UserError, match=r"its picture can't be read: 1: .*image 2"):
        val(source)


def test_a_picture_on_its_side_is_measured_upright(tmp_path: Path) -> None:
    from PIL import Image

    content = plain()
    content["images"] = [{"id": 1, "file_name": "1.jpg"}]
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "pictures" / "1.jpg", exif=exif)
    index = train(written(tmp_path, content))
    assert (index.widths.tolist(), index.heights.tolist()) == ([30], [40])


def test_entries_that_are_there_twice(tmp_path: Path) -> None:
    content = plain()
    content["images"] += [dict(content["images"][0])]
    content["categories"] += [dict(content["categories"][0])]
    index = same_as_pycocotools(written(tmp_path, content))
    assert (len(index), len(index.boxes)) == (3, 4)
    assert "1 pictures are listed twice" in index.notes[0]
    for key, change, kind in (
        ("images", {"file_name": "2.png"}, "duplicate image id"),
        ("images", {"width": 41}, "duplicate image id"),
        ("categories", {"name": "other"}, "duplicate category id"),
        ("annotations", {}, "duplicate annotation id"),
    ):
        wrong = plain()
        wrong[key] += [{**wrong[key][0], **change}]
        with pytest.raises(UserError, match=f"^{kind}"):
            val(written(tmp_path, wrong))


def test_annotations_need_no_id(tmp_path: Path) -> None:
    content = plain()
    for entry, number in zip(content["annotations"], (None, [1], 0, "x"), strict=True):
        entry["id"] = number
    index = val(written(tmp_path, content))
    assert len(index.boxes) == 4
    assert "the id 0, which COCOeval never counts as found" in " ".join(index.notes)
    del content["annotations"][0]["id"]
    assert len(train(written(tmp_path, content)).boxes) == 4


@pytest.mark.parametrize(
    ("names", "expected", "note"),
    [
        (["fish", "fish", "trap"], ("fish", "fish (id 1)", "trap"), "are told apart"),
        ([None, "", 5], ("class 0", "class 1", "5"), "go by their id"),
        (["a\nb", "\ud800", "é"], ("a\\nb", "\\ud800", "é"), ""),
        (["x", "x (id 2)", "x"], ("x", "x (id 2)", "x (id 2)'"), "are told apart"),
    ],
)
def test_names_are_made_to_differ(
    tmp_path: Path, names: list[Any], expected: tuple[str, ...], note: str
) -> None:
    content = plain()
    content["categories"] = [{"id": k, "name": name} for k, name in enumerate(names)]
    index = same_as_pycocotools(written(tmp_path, content))
    assert index.categories == expected
    assert note in " ".join(index.notes)


def roboflow(root: str) -> Content:
    content = plain()
    content["categories"] = [
        {"id": 0, "name": root, "supercategory": "none"},
        {"id": 1, "name": "fish", "supercategory": root},
        {"id": 2, "name": "trap", "supercategory": root},
    ]
    return content


@pytest.mark.parametrize("root", ["fish", "underwater"])
def test_an_empty_heading_is_no_class(tmp_path: Path, root: str) -> None:
    source = written(tmp_path / "a", roboflow(root))
    index = train(source)
    assert (index.categories, index.category_ids) == (("fish", "trap"), (1, 2))
    assert index.labels.tolist() == [1, 1, 2, 1]
    assert f"category 0 {root!r} is a heading without boxes" in " ".join(index.summary())
    used = roboflow(root)
    used["annotations"][0]["category_id"] = 0
    other = written(tmp_path / "b", used)
    assert train(other).category_ids == (0, 1, 2)
    both = read_coco([source, other], keep_empty=False, invalid_boxes="stop")
    assert both.category_ids == (0, 1, 2)  # a class where any of the files uses it
    assert both.labels.max() == 3
    with_none_above = roboflow("none")  # not Roboflow's: all are of the kind "none"
    assert train(written(tmp_path / "c", with_none_above)).category_ids == (0, 1, 2)


@pytest.mark.parametrize("root", ["fish", "underwater"])
def test_what_is_written_again_is_read_the_same(tmp_path: Path, root: str) -> None:
    content = roboflow(root)
    content["annotations"][0]["ignore"] = 1
    content["annotations"] += [box(9, 2, [1, 1, 0, 5], 2, area=0, iscrowd=0)]
    index = train(written(tmp_path / "a", content), "drop", keep_empty=True)
    again = train(written(tmp_path / "b", content_of(index)), "drop", keep_empty=True)
    assert (again.categories, again.category_ids) == (index.categories, index.category_ids)
    assert again.headings == index.headings == {0: "fish (id 0)" if root == "fish" else root}
    for name in ("labels", "crowds", "learnable", "areas", "raw_boxes", "offsets"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))
    assert int(index.learnable.sum()) == 2


def test_a_test_set_has_no_annotations(tmp_path: Path) -> None:
    content: Any = plain()
    del content["annotations"]
    source = written(tmp_path, content)
    index = val(source)
    assert (len(index), len(index.boxes)) == (3, 0)
    assert "there is no ground truth" in index.notes[0]
    with pytest.raises(UserError, match="as a test set: it can only be evaluated on"):
        train(source)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"iscrowd": 1}, "all 4 boxes are crowds"),
        ({"ignore": 1}, "all 4 boxes are marked ignore"),
        ({"image_id": "frame"}, "4 annotations of pictures that the file doesn't list"),
        ({"category_id": 9}, "4 annotations of categories that it doesn't list"),
        ({"bbox": [1, 1, 0, 0]}, "all 4 boxes are invalid and dropped"),
    ],
)
def test_why_nothing_is_left(tmp_path: Path, change: dict[str, Any], cause: str) -> None:
    content = plain()
    for entry in content["annotations"]:
        entry.update(change)
    with pytest.raises(UserError, match=f"no picture with boxes is left of .*{cause}"):
        train(written(tmp_path, content), "drop")
    index = train(written(tmp_path, content), "drop", keep_empty=True)
    assert len(index) == 3
    assert cause in " ".join(index.doubts)  # as asked for, but with a warning


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    content = plain()
    content["categories"][0]["name"] = "Größe 细胞"
    source = written(tmp_path, content)
    text = json.dumps(content, ensure_ascii=False)
    Path(source.annotations).write_bytes(text.encode(encoding))
    assert train(source).categories == ("Größe 细胞", "rod")


PANOPTIC = [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1, "category_id": 1}]}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (gzip.compress(b"{}", mtime=0), "is packed with gzip; unpack it first (gunzip)"),
        (b"PK\x03\x04...", "is packed with zip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"<!DOCTYPE html>", "is a web page or XML"),
        (b"\xef\xbb\xbf  \n", "it is empty"),
        ("Größe".encode("cp1252"), "not UTF-8"),
        (b'{"id": 1}\n{"id": 2}\n', "one JSON value a line (JSON Lines)"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b'[{"image_id": 1, "score": 0.5}]', "a list (of detections: a results file)"),
        (b"3", "top level is int"),
        (json.dumps({**plain(), "annotations": PANOPTIC}).encode(), "it is a panoptic file"),
        (
            json.dumps({"images": [], "annotations": [{"caption": "a cat"}]}).encode(),
            "missing categories (keys found: annotations, images): it is a captions file",
        ),
        (json.dumps({**plain(), "annotations": None}).encode(), "annotations must be a list"),
        (json.dumps({**plain(), "categories": {"1": "a"}}).encode(), "categories must be a list"),
    ],
)
def test_other_files_are_named_for_what_they_are(
    tmp_path: Path, text: bytes, expected: str
) -> None:
    file = tmp_path / "set.json"
    file.write_bytes(text)
    with pytest.raises(UserError) as stopped:
        read_annotation_file(file)
    assert str(file) in str(stopped.value)
    assert expected in str(stopped.value)
    assert "\n" not in str(stopped.value).replace("\\n", "")


def test_outlines_without_boxes_are_told(tmp_path: Path) -> None:
    content = plain()
    for entry in content["annotations"]:
        del entry["bbox"]
        entry["segmentation"] = [[0, 0, 5, 0, 5, 5]]
    with pytest.raises(UserError, match=r"four numbers: 4, the first: .*a segmentation only"):
        train(written(tmp_path, content))


def test_a_folder_and_storage_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read_annotation_file(tmp_path)
    source = written(tmp_path, plain())
    monkeypatch.setattr("megdet_hvd.storage.time.sleep", lambda seconds: None)

    def stale(*_: Any) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", stale)
        with pytest.raises(StorageError, match=r"set\.json: cannot be read"):
            train(source)
    monkeypatch.setattr("os.scandir", stale)
    with pytest.raises(StorageError, match="pictures: cannot be read"):
        train(source)


def test_an_lvis_file(tmp_path: Path) -> None:
    images: list[dict[str, Any]] = []
    for k in (1, 2):
        url = f"http://images.cocodataset.org/train2017/{k}.png"
        images.append({"id": k, "width": 40, "height": 30, "coco_url": url})
        images[-1] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    source = write_set(tmp_path, [], [box(1, 1, [0, 0, 5, 5], 1)], pictures=False)
    content = {**plain(), "images": images}
    Path(source.annotations).write_text(json.dumps(content))
    for k in (1, 2):
        save_noise(tmp_path / "pictures" / "train2017" / f"{k}.png", 40, 30)
    index = val(source)
    assert index.file_names == ["train2017/1.png", "train2017/2.png"]
    assert "an LVIS file" in " ".join(index.notes)
    assert "LVIS" not in " ".join(train(source).notes)


def test_an_unusable_class_says_nothing_of_its_picture(tmp_path: Path) -> None:
    content = plain()
    content["annotations"].append(box(9, 1, [1, 1, 4, 4], [7]))
    source = written(tmp_path, content)
    file = read_annotation_file(Path(source.annotations))
    assert [problem.kind for problem in file.problems] == ["annotation has no usable category_id"]
    assert file.notes == read_annotation_file(Path(written(tmp_path, plain()).annotations)).notes


@pytest.mark.filterwarnings("error")
def test_boxes_near_the_largest_number_are_read_without_a_warning(tmp_path: Path) -> None:
    content = plain()
    content["annotations"][0]["bbox"] = [1e308, 2, 1e308, 8]
    assert val(written(tmp_path, content)).raw_boxes[0].tolist() == [1e308, 2, 1e308, 8]


@pytest.mark.parametrize("xywh", [[0, 2, 1e-13, 11], [1e-6, 2, 2e-6, 11], [0, 0, 1e-30, 1e-30]])
def test_what_rounding_leaves_of_a_box_is_none(tmp_path: Path, xywh: list[float]) -> None:
    """Scaled and mirrored it has no area, and its loss is no number."""
    content = plain()
    content["annotations"][0]["bbox"] = xywh
    source = written(tmp_path, content)
    with pytest.raises(UserError, match=r"invalid box .*: 1: .*annotation 1 "):
        train(source)
    assert not train(source, "drop", keep_empty=True).learnable[0]
    same_as_pycocotools(source)


@pytest.mark.parametrize("width", [1e-4, 0.01, 1])
def test_a_thin_box_keeps_its_area_however_it_is_turned(tmp_path: Path, width: float) -> None:
    content = plain()
    content["annotations"][0]["bbox"] = [0, 2, width, 11]
    index = train(written(tmp_path, content))
    scaled = scale_boxes(index.record(0).boxes, (40, 30), (1333, 1000))
    for boxes in (scaled, flip_boxes(scaled, 1333), flip_boxes(index.record(0).boxes, 40)):
        assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("name", ["1.jpg", "1", "1.png.jpg"])
def test_another_ending_is_pointed_at(tmp_path: Path, name: str) -> None:
    """Not taken for the picture: masks lie beside pictures under such names."""
    content = plain()
    content["images"][0]["file_name"] = name
    source = written(tmp_path, content)
    with pytest.raises(UserError) as raised:
        train(source)
    assert ("there is 1.png; is that it?" in str(raised.value)) is (name != "1.png.jpg")


def test_outlines_without_boxes_are_told_for_what_they_are(tmp_path: Path) -> None:
    content = plain()
    content["annotations"][0] |= {"bbox": [], "segmentation": [[1, 1, 9, 1, 9, 9]]}
    with pytest.raises(UserError, match="a segmentation only"):
        train(written(tmp_path, content))


def test_names_that_are_numbers_are_names(tmp_path: Path) -> None:
    content = plain()
    content["categories"] = [{"id": 1, "name": 50}, {"id": 2, "name": None}]
    index = train(written(tmp_path, content))
    assert index.categories == ("50", "class 2")
    assert "1 categories have no name and go by their id" in index.notes


def test_truth_that_pycocotools_does_not_count_is_told_of(tmp_path: Path) -> None:
    content = plain()
    content["annotations"][0] |= {"id": "0", "area": -1}
    content["annotations"][1]["area"] = 2e10
    index = val(written(tmp_path, content))
    assert any("has the id 0, which COCOeval never counts" in note for note in index.notes)
    assert any(note.startswith("2 annotations have an area below 0 or") for note in index.notes)
    content["annotations"][0] |= {"id": "1", "area": 0}
    content["annotations"][1]["area"] = float("nan")  # in every comparison false: counted
    assert val(written(tmp_path, content)).notes == ()


def test_links_to_nothing_are_missing_pictures(tmp_path: Path) -> None:
    """As those of git-annex are until the data is fetched; links to pictures are pictures."""
    source = written(tmp_path, plain())
    pictures = tmp_path / "pictures"
    (pictures / "1.png").rename(tmp_path / "away.png")
    (pictures / "1.png").symlink_to("../annex/1.png")
    (pictures / "2.png").rename(tmp_path / "here.png")
    (pictures / "2.png").symlink_to("../here.png")
    with pytest.raises(UserError, match=r"missing picture file: 1: .*a link to \.\./annex/1\.png"):
        train(source)
    (tmp_path / "annex").mkdir()
    (tmp_path / "away.png").rename(tmp_path / "annex" / "1.png")
    assert len(train(source, keep_empty=True)) == 3
