"""`python -m megdet_hvd.data check`: what it finds, what it counts, what it draws."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.__main__ import main
from megdet_hvd.data.check import is_lfs_pointer
from megdet_hvd.data.picture_size import picture_sizes
from megdet_hvd.errors import UserError
from megdet_hvd.report.colours import class_colour
from tests.data.made import read_coco

from .made import CATEGORIES, box, image, real_data, save_noise, write_set


def test_a_clean_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [image(1), image(2, width=64, height=100), image(3)]
    boxes = [box(1, 1, [0, 0, 10, 10]), box(2, 2, [0, 0, 33, 33], 90), box(3, 2, [1, 1, 9, 9])]
    boxes.append(box(4, 2, [0, 0, 64, 100], 3, iscrowd=1))
    write_set(tmp_path, images, boxes)
    assert main(["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]) == 0
    out = capsys.readouterr().out
    assert "3 pictures, 3 boxes of 3 classes, 1 crowd, 1 picture without any" in out
    assert "width 40 to 64 (median 40), height 30 to 100 (median 30) pixels" in out
    assert "2 small, 1 medium, 0 large" in out
    assert "3 decoded" in out
    assert "nothing wrong was found" in out
    counts = {line.split()[1]: line.split()[2] for line in out.splitlines() if line[:5] == "     "}
    assert counts == {"cat": "2", "dog": "0", "cup": "1"}


def test_everything_wrong_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [image(k) for k in range(1, 7)] + [image(6, "5.png")]
    boxes = [box(k, 1, [0, 0, 0, 5]) for k in range(20, 29)]
    boxes += [box(1, 99, [0, 0, 5, 5]), box(2, 1, [0, 0, 5, 5], 55), box(3, 1, [30, 20, 30, 30])]
    write_set(tmp_path, images, boxes)
    (tmp_path / "pictures" / "2.png").write_bytes(b"<html>")
    save_noise(tmp_path / "pictures" / "3.png", 41, 30)
    (tmp_path / "pictures" / "4.png").unlink()
    arguments = ["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]
    assert main([*arguments, "--first", "2"]) == 1
    out = capsys.readouterr().out
    file = tmp_path / "set.json"
    for line in (
        "13 problems",
        "duplicate image id (one id for two pictures): 1",
        "note: 1 annotations of pictures that the file doesn't list are left out, the first: "
        "annotation 1 (image 99)",
        "note: 1 annotations of categories that it doesn't list are left out, the first: "
        "annotation 2 (image 1)",
        "outside its picture): 9",
        f"  {file}, annotation 20 (image 1): bbox [0.0, 0.0, 0.0, 5.0], picture 40×30",
        "  … and 7 more",
        f"  {file}, image 4: {tmp_path / 'pictures' / '4.png'}",
        "unreadable picture: 1",
        "picture of another size than annotated: 1",
        f"  {tmp_path / 'pictures' / '3.png'}, image 3: it is 41×30 pixels, but annotated as 40×30",
        "note: 1 box partly outside the picture (clipped), the first: annotation 3",
    ):
        assert line in out, line
    assert "annotation 22" not in out
    assert main([*arguments, "--no-decode"]) == 1
    out = capsys.readouterr().out
    assert "unreadable" not in out
    assert "pictures not opened" in out
    assert "11 problems" in out


def test_layouts_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = tmp_path / "coco like"
    for split in ("train2017", "val2017"):
        source = write_set(tmp_path / split, [image(1)], [box(1, 1, [0, 0, 5, 5])], pictures=False)
        target = coco / "annotations" / f"instances_{split}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(source.annotations).rename(target)
        save_noise(coco / split / "1.png", 40, 30)
    (coco / "annotations" / "captions_val2017.json").write_text("{}")
    exported = tmp_path / "exported"
    write_set(exported / "train", [image(1)], [box(1, 1, [0, 0, 5, 5])])
    (exported / "train" / "set.json").rename(exported / "train" / "_annotations.coco.json")
    (exported / "train" / "pictures" / "1.png").rename(exported / "train" / "1.png")
    assert main(["check", str(coco), str(exported)]) == 0
    out = capsys.readouterr().out
    assert out.count("1 picture, 1 box of") == 3
    assert f"pictures in {coco / 'val2017'}" in out
    assert f"pictures in {exported / 'train'}" in out


def test_pictures_beside_the_folder_that_the_check_is_started_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "annotations", [image(1)], [box(1, 1, [0, 0, 5, 5])], pictures=False)
    monkeypatch.chdir(tmp_path / "annotations")
    assert main(["check", "set.json"]) == 2
    assert "1.png is in none of ../set, ../images/set, ../images, .., set," in (
        capsys.readouterr().err
    )
    save_noise(tmp_path / "set" / "1.png", 40, 30)
    assert main(["check", "set.json"]) == 0
    assert f"pictures in {Path('..', 'set')}" in capsys.readouterr().out


def test_categories_that_differ_between_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name, categories in [("a", [{"id": 7, "name": "x"}]), ("b", [{"id": 7, "name": "y"}])]:
        source = write_set(tmp_path / name, [image(1)], [box(1, 1, [0, 0, 5, 5])], categories)
        files += [source.annotations]
    arguments = ["check", *files, "--images", str(tmp_path / "a" / "pictures")]
    assert main([*arguments, "--images", str(tmp_path / "b" / "pictures")]) == 1
    assert "category 7: 'x' against 'y'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "{}/none"], "none does not exist"),
        (["check", "{}"], "no annotation file in"),
        (["check", "{}/set/set.json", "--images", "{}/none"], "is not a folder"),
        (["check", "{}/set/set.json", "--images", "{}", "--images", "{}"], "given 2 times for 1"),
        (["check", "{}/alone.json"], "give it with --images"),
        (["check", "${{NO_SUCH_PLACE}}/x"], "NO_SUCH_PLACE is not set"),
    ],
)
def test_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    write_set(tmp_path / "set", [image(1)], [])
    if "alone" in arguments[1]:
        content = (tmp_path / "set" / "set.json").read_text()
        (tmp_path / "alone.json").write_text(content)
    assert main([word.format(tmp_path) for word in arguments]) == 2
    assert expected in capsys.readouterr().err


def test_a_file_that_is_not_coco_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text('{"images": []}')
    assert main(["check", str(tmp_path / "x.json"), "--images", str(tmp_path)]) == 1
    assert "missing annotations, categories" in capsys.readouterr().out


def test_drawing_shows_boxes_where_they_are(tmp_path: Path) -> None:
    write_set(tmp_path, [image(1, width=320, height=240)], [box(1, 1, [40, 60, 100, 80], 3)])
    Image.new("RGB", (320, 240), (10, 10, 10)).save(tmp_path / "pictures" / "1.png")
    out = tmp_path / "drawn.png"
    arguments = ["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]
    assert main([*arguments, "--draw", "4", "--out", str(out)]) == 0
    pixels = np.asarray(Image.open(out))[2:242, 2:322]
    ys, xs = np.nonzero((pixels == class_colour(1)).all(axis=2))
    assert (xs.min(), xs.max(), ys.max()) == (40, 139, 139)
    below = ys[ys >= 60]
    assert below.min() == 60
    assert main([*arguments, "--draw", "1", "--out", str(tmp_path / "no" / "x.png")]) == 2


def test_real_sets_are_clean() -> None:
    for name in ("bccd", "coco_tiny"):
        folder = real_data(name, "the checker on real pictures")
        done = subprocess.run(
            [sys.executable, "-m", "megdet_hvd.data", "check", str(folder)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for file in (folder / "annotations").iterdir():
            content = json.loads(file.read_text())
            boxes = sum(not a["iscrowd"] for a in content["annotations"])
            assert f"{len(content['images'])} pictures, {boxes} boxes" in done.stdout
            assert f"{len(content['images'])} decoded" in done.stdout


def coco_folder(folder: Path, content: dict[str, Any]) -> None:
    write_set(folder, [image(1), image(2)], [box(1, 1, [0, 0, 5, 5])])
    (folder / "set.json").write_text(json.dumps(content))


def _content(**changes: Any) -> dict[str, Any]:
    images, boxes = [image(1), image(2)], [box(1, 1, [0, 0, 5, 5]), box(2, 2, [3, 3, 9, 9])]
    return {"images": images, "annotations": boxes, "categories": CATEGORIES, **changes}


@pytest.mark.parametrize(
    ("content", "stops"),
    [
        (_content(), False),
        (_content(annotations=[box(1, 1, [0, 0, 5, 5], iscrowd=1)]), True),
        (_content(annotations=[box(1, 1, [0, 0, 5, 5], ignore=1)]), True),
        (_content(annotations=[]), True),
        (_content(annotations=[box(1, 1, [0, 0, 5, 5], 8)]), True),
        (_content(annotations=[box(1, "1", ["0", 0.0, 5, 5], 7.0)]), False),
        (_content(images=[{**image(1), "width": None}, image(2)]), False),
        (_content(images=[image(1, "none.png"), image(2)]), True),
        (_content(images=[image(1, "1.PNG"), image(2)]), False),
        (_content(categories=[{"id": 7, "name": "a"}, {"id": 9, "name": "a"}]), False),
        (_content(categories=[]), True),
    ],
)
def test_the_checkers_verdict_is_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], stops: bool
) -> None:
    coco_folder(tmp_path, content)
    source = AnnotationSource(
        annotations=str(tmp_path / "set.json"), images=str(tmp_path / "pictures")
    )
    code = main(["check", source.annotations, "--images", source.images])
    out = capsys.readouterr().out
    assert code == int(stops)
    if stops:
        with pytest.raises(UserError) as stopped:
            read_coco([source], keep_empty=False, invalid_boxes="stop")
        assert re.split(": 1|;", str(stopped.value))[0] in out  # in the same words
    else:
        read_coco([source], keep_empty=False, invalid_boxes="stop")


def test_by_the_rules_of_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = _content(annotations=[box(1, 1, [0, 0, 0, 5])])
    coco_folder(tmp_path, content)
    arguments = ["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]
    assert main(arguments) == 1
    assert main([*arguments, "--val"]) == 0
    assert "1 boxes of the truth have no area" in capsys.readouterr().out
    for annotations, said in (
        ([box(1, 1, [0, 0, 9, 5], iscrowd=1)], "all 1 boxes are crowds (iscrowd)"),
        ([], "it has no boxes"),
    ):
        content["annotations"] = annotations
        (tmp_path / "set.json").write_text(json.dumps(content))
        assert main([*arguments, "--val"]) == 0
        assert f"no ground truth to measure against: {said}" in capsys.readouterr().out
    del content["annotations"]
    (tmp_path / "set.json").write_text(json.dumps(content))
    assert main([*arguments, "--val"]) == 0
    assert "note: the file has no annotations" in capsys.readouterr().out


def test_drawing_leaves_out_what_has_no_size(tmp_path: Path) -> None:
    bare = {"id": 1, "file_name": "gone.png"}
    coco_folder(tmp_path, _content(images=[bare, image(2)]))
    arguments = ["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]
    assert main([*arguments, "--draw", "2", "--out", str(tmp_path / "drawn.png")]) == 1
    assert Image.open(tmp_path / "drawn.png").size == (324, 324)


def test_other_json_files_in_a_folder_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_folder(tmp_path, _content())
    for picture in (tmp_path / "pictures").iterdir():
        picture.rename(tmp_path / picture.name)
    (tmp_path / "label_studio.json").write_text('[{"id": 1, "data": {}, "annotations": []}]')
    (tmp_path / "results.json").write_text('[{"image_id": 1, "score": 1.0}]')
    (tmp_path / "captions.json").write_text(
        json.dumps({"images": [image(1)], "annotations": [{"caption": "a cat"}]})
    )
    assert main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name in ("label_studio", "results", "captions"):
        assert f"note: {tmp_path / name}.json holds no boxes in COCO format and is left out" in out
    (tmp_path / "torn.json").write_text('{"images": [')  # it may be meant: its reader says why not
    assert main(["check", str(tmp_path)]) == 1
    assert "torn.json is not JSON" in capsys.readouterr().out
    for name in ("torn", "set"):
        (tmp_path / f"{name}.json").unlink()
    assert main(["check", str(tmp_path), "--images", str(tmp_path)]) == 1  # none is meant: all are


def test_folders_are_found_by_names_that_are_spelt_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_folder(tmp_path, _content(images=[image(1, "gone.png"), image(2, "pictures\\2.PNG")]))
    assert main(["check", str(tmp_path / "set.json"), "--no-decode"]) == 1
    out = capsys.readouterr().out
    assert f"pictures in {tmp_path}" in out
    assert "missing picture file: 1" in out


def test_lfs_pointers_are_one_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_folder(tmp_path, _content())
    for name in ("1.png", "2.png"):
        (tmp_path / "pictures" / name).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        )
    arguments = ["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]
    assert main([*arguments, "--first", "1"]) == 1
    out = capsys.readouterr().out
    assert "pictures 0 decoded" in out
    lines = [line for line in out.splitlines() if "git lfs pull" in line]
    assert len(lines) == 1
    assert ": 2, the first: " in lines[0]


def test_what_a_mac_puts_beside_a_file_is_no_annotation_file(tmp_path: Path) -> None:
    coco_folder(tmp_path, _content())
    (tmp_path / "._set.json").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    assert main(["check", str(tmp_path), "--images", str(tmp_path / "pictures")]) == 0


def test_a_pipe_in_place_of_a_picture_is_not_waited_for(tmp_path: Path) -> None:
    coco_folder(tmp_path, _content())
    picture = next((tmp_path / "pictures").iterdir())
    picture.unlink()
    os.mkfifo(picture)
    assert picture_sizes(picture) is None and not is_lfs_pointer(picture)
    assert main(["check", str(tmp_path / "set.json"), "--images", str(tmp_path / "pictures")]) == 1
