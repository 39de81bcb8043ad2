"""Files read quickly say what they say read the usual way: values, notes, problems and errors."""

import dataclasses
import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdet_hvd.bench.index_set import make_set
from megdet_hvd.data import annotations, plain_annotations
from megdet_hvd.data.annotations import AnnotationFile, read_annotation_file
from megdet_hvd.data.plain_annotations import read_plain
from megdet_hvd.errors import UserError
from tests.data.made import CATEGORIES, REAL, box, image, real_data

pytest.importorskip("msgspec", reason="no msgspec: quick reading was not checked")


def plain_content() -> dict[str, Any]:
    boxes = [box(k, k % 2 + 1, [1, 2.5, 3, 4.0], 7, area=9.5 * k, iscrowd=k % 2) for k in (1, 2)]
    boxes.append(box(5, 2, [0, 0, 1e-3, 12], 3, segmentation=[[1, 2, 3]]))
    return {
        "info": {"deep": [{"x": [1, None, "é"]}]},
        "images": [image(1, "a b/ä.png"), image(2), image(3)],
        "annotations": boxes,
        "categories": [dict(one) for one in CATEGORIES],
    }


def by(path: Path) -> AnnotationFile | str:
    try:
        return read_annotation_file(path)
    except UserError as error:
        return str(error)


def both(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    quick = by(path)
    with monkeypatch.context() as patch:
        patch.setattr(annotations, "read_plain", lambda text: None)
        return quick, by(path)


def same(quick: AnnotationFile | str, usual: AnnotationFile | str) -> None:
    if isinstance(usual, str) or isinstance(quick, str):
        assert quick == usual
        return
    for field in dataclasses.fields(AnnotationFile):
        a, b = getattr(quick, field.name), getattr(usual, field.name)
        if isinstance(b, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), field.name
        else:
            assert repr(a) == repr(b), field.name


def test_published_sets_are_read_quickly_and_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = real_data("coco_tiny", "whether it is read quickly, and alike")
    files = [*(root / "annotations").glob("*.json"), make_set(tmp_path, 50, 400).annotations]
    for file in files:
        assert read_plain(file.read_bytes()) is not None, file
        same(*both(file, monkeypatch))


def test_odd_sets_are_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    real_data("bccd", "whether odd sets are read alike")
    files = [*(REAL / "bccd" / "annotations").glob("*.json")]
    files += (REAL.parent / "cases").glob("*/ann.json")
    for file in files:
        same(*both(file, monkeypatch))


ODD: tuple[str, ...] = (
    *("null", "true", "false", '"2"', '""', '"a"', "[]", "{}", "[1]", "0", "-0", "1", "2", "3"),
    *("-1", "2.0", "1.5", "1e2", "1E400", "-1e400", "NaN", "Infinity", "-Infinity", "2147483647"),
    *("2147483648", "9007199254740993", "9223372036854775807", "9223372036854775808", "1e11"),
    *("123456789012345678901234567890", '"\\ud800"', '"\\u00e9"', '"NaN"', "[1, 2, 3, 4]"),
    *("[1, 2, 3]", '[1, 2, "3", 4]', "[1, 2, null, 4]", "[1, 2, NaN, 4]", "[true, 2, 3, 4]"),
    *("[1, 2, 3, 4, 5]", "[9007199254740993, 0.1, 1e-400, 4]", "[1, 2, -3, 4]", "01", "1.", "+1"),
    *(
        "[1, 2, 1e200, 1e200]",
        "tru",
        "",
        "'a'",
        '"\\x"',
        '"\x01"',
        '{"a": 1, "a": 2}',
        "[1, 2, 3,]",
    ),
)
KEYS = {
    "images": ("id", "file_name", "width", "height", "coco_url", "neg_category_ids", "x"),
    "annotations": (
        *("id", "image_id", "category_id", "bbox", "iscrowd", "area", "ignore", "difficult"),
        *("segmentation", "keypoints", "caption", "segments_info", "x"),
    ),
    "categories": ("id", "name", "supercategory", "keypoints", "x"),
}
MARK = "@@"


def odd_texts() -> Iterator[tuple[str, str]]:
    """Each field of each kind of entry with each odd value, absent, and twice."""
    for part, keys in KEYS.items():
        for key, entry in itertools.product(keys, (0, -1)):
            content = plain_content()
            content[part][entry][key] = MARK
            marked = json.dumps(content)
            for value in ODD:
                yield f"{part}[{entry}].{key} {value}", marked.replace(f'"{MARK}"', value)
            twice = json.dumps(content).replace(f'"{MARK}"', f'2, "{key}": 1')
            yield f"{part}[{entry}].{key} twice", twice
            content = plain_content()
            content[part][entry].pop(key, None)
            yield f"{part}[{entry}].{key} absent", json.dumps(content)
    for part in KEYS:
        for value in ODD:
            content = plain_content()
            content[part] = MARK
            yield f"{part} {value}", json.dumps(content).replace(f'"{MARK}"', value)
            content = plain_content()
            content[part][-1] = MARK
            yield f"{part}[-1] {value}", json.dumps(content).replace(f'"{MARK}"', value)
        content = plain_content()
        content[part] += content[part][:1]
        yield f"{part} repeated", json.dumps(content)
        content[part] = []
        yield f"{part} empty", json.dumps(content)
        del content[part]
        yield f"no {part}", json.dumps(content)
        whole = json.dumps(plain_content())
        yield f"{part} twice", whole[:-1] + f', "{part}": []}}'


def test_every_field_with_every_odd_value_is_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "set.json"
    quickly = total = 0
    for name, text in odd_texts():
        file.write_text(text, encoding="utf-8")
        quick, usual = both(file, monkeypatch)
        try:
            same(quick, usual)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        total += 1
        quickly += read_plain(text.encode()) is not None
    assert total > 2500 and 200 < quickly < total / 2, (quickly, total)


ENCODED: dict[str, Any] = {
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-32": lambda text: text.encode("utf-32-le"),
    "Latin-1 where it matters not": lambda text: text.encode("utf-8").replace(b"\xc3\xa9", b"\xe9"),
    "Latin-1 in a name": lambda text: text.encode("utf-8").replace(b"\xc3\xa4", b"\xe4"),
    "half a letter": lambda text: text.encode("utf-8").replace(b"\xc3\xa4", b"\xed\xa0\x80"),
    "cut within a letter": lambda text: text.encode("utf-8")[:-1] + b"\xc3",
    "more behind": lambda text: text.encode("utf-8") + b" {}",
    "blanks around": lambda text: b" \n\t" + text.encode("utf-8") + b"\r\n ",
    "zero bytes behind": lambda text: text.encode("utf-8") + b"\0\0",
    "cut off": lambda text: text.encode("utf-8")[:-40],
    "empty": lambda text: b"",
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_every_encoding_is_read_alike(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "set.json"
    text = json.dumps(plain_content(), ensure_ascii=False)
    file.write_bytes(ENCODED[encoding](text))
    same(*both(file, monkeypatch))
    monkeypatch.setattr(plain_annotations, "_PIECE", 1)  # letters across the ends of pieces
    same(*both(file, monkeypatch))


def test_a_file_that_counts_from_0_is_read_quickly_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = plain_content()
    content["images"][0]["id"] = content["categories"][0]["id"] = 0
    for number, entry in enumerate(content["annotations"]):
        entry |= {"id": number, "image_id": 0, "category_id": 0}
    file = tmp_path / "set.json"
    file.write_text(json.dumps(content))
    assert read_plain(file.read_bytes()) is not None
    quick, usual = both(file, monkeypatch)
    same(quick, usual)
    assert quick.truth_notes == [
        "1 annotation has the id 0, which COCOeval never counts as found, the first: "
        "annotation 0 (image 0)"
    ]


def test_lvis_is_read_quickly_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = plain_content()
    for entry in content["images"]:
        name = entry.pop("file_name")
        entry |= {"coco_url": f"http://x/{name}", "neg_category_ids": [3], "license": 1}
    file = tmp_path / "set.json"
    file.write_text(json.dumps(content))
    assert read_plain(file.read_bytes()) is not None
    quick, usual = both(file, monkeypatch)
    same(quick, usual)
    assert quick.file_names[1] == "http://x/2.png" and "LVIS" in quick.truth_notes[0]


@pytest.mark.parametrize("used", [True, False])
def test_a_heading_is_none_where_boxes_use_it(
    used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = plain_content()
    content["categories"] = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "pets"},
        {"id": 7, "name": "dog", "supercategory": "pets"},
    ]
    if used:
        content["annotations"].append(box(9, 1, [0, 0, 5, 5], 0))
    file = tmp_path / "set.json"
    file.write_text(json.dumps(content))
    assert read_plain(file.read_bytes()) is not None
    quick, usual = both(file, monkeypatch)
    same(quick, usual)
    assert quick.roots == (frozenset() if used else {0})


def test_numbers_are_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)

    def number() -> str:
        digits = "".join(draw.choices("0123456789", k=draw.randint(1, 40))).lstrip("0") or "0"
        return draw.choice(
            (digits, f"{digits[0]}.{digits}", f"{digits[0]}.{digits}e-{len(digits)}")
        )

    content = plain_content()
    content["annotations"] = [box(k, 1, MARK) for k in range(1, 3000)]
    pieces = json.dumps(content).split(f'"{MARK}"')
    text = pieces[0]
    for piece in pieces[1:]:
        text += f"[{number()}, {number()}, {draw.random()!r}, {draw.uniform(0, 9)!r}]{piece}"
    file = tmp_path / "set.json"
    file.write_text(text)
    assert read_plain(text.encode()) is not None
    same(*both(file, monkeypatch))


def test_without_the_library_files_are_read_the_usual_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "set.json"
    file.write_text(json.dumps(plain_content()))
    assert read_plain(file.read_bytes()) is not None
    quick = by(file)
    monkeypatch.delitem(sys.modules, "msgspec")
    (tmp_path / "msgspec.py").write_text("raise ValueError('another Python')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_plain(file.read_bytes()) is None
    same(quick, by(file))
