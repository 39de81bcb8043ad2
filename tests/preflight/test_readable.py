"""A rank's share of the pictures, opened before training."""

import json
from pathlib import Path

import pytest
from PIL import Image

from megdet_hvd.config.schema import AnnotationSource, DataConfig
from megdet_hvd.data.first_names import first_names
from megdet_hvd.preflight.readable import describe_unreadable, read_share


def data_set(folder: Path, names: list[str], order: str = "images") -> DataConfig:
    lists = {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)]}
    empty: dict[str, list[object]] = {"annotations": [], "categories": []}
    content = {**lists, **empty} if order == "images" else {**empty, **lists}
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / name)
    source = AnnotationSource(annotations=str(folder / "a.json"), images=str(folder))
    return DataConfig(kind="coco", train=(source,))


@pytest.mark.parametrize("order", ["images", "annotations"])
def test_names_are_found_without_parsing(tmp_path: Path, order: str) -> None:
    names = ["a.png", 'b "quoted" \\ é.png', "c.png"]
    data_set(tmp_path, names, order)
    assert first_names(tmp_path / "a.json", 9) == names
    assert first_names(tmp_path / "a.json", 1) == names[:1]


def test_ranks_read_pictures_of_their_own(tmp_path: Path) -> None:
    config = data_set(tmp_path, [f"{i}.png" for i in range(12)])
    assert [read_share(config, rank, 3) for rank in range(3)] == [(2, None)] * 3
    (tmp_path / "4.png").unlink()  # of rank 1: 1, 4, 7, 10
    (tmp_path / "1.png").unlink()
    assert read_share(config, 0, 3) == (2, None)
    assert read_share(config, 1, 3) == (0, f"{tmp_path / '1.png'}: no such file")
    assert [read_share(config, rank, 64)[0] for rank in (2, 41)] == [1, 1]  # more ranks than files


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = data_set(tmp_path, ["x.png"])
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    assert str(tmp_path / "x.png") in str(read_share(config, 0, 1)[1])
    (tmp_path / "a.json").write_text("")
    assert "no picture is named in it" in str(read_share(config, 0, 1)[1])
    (tmp_path / "a.json").write_text("[]")
    assert "top level is a list" in str(read_share(config, 0, 1)[1])
    (tmp_path / "a.json").unlink()
    assert read_share(config, 0, 1) == (0, f"{tmp_path / 'a.json'}: No such file or directory")
    assert read_share(DataConfig(), 0, 1) == (0, None)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_and_spellings_are_read_as_training_does(
    tmp_path: Path, encoding: str
) -> None:
    content = {
        "images": [{"id": 1, "file_name": "sub\\A.PNG"}, {"id": 2, "file_name": "b%20é.png"}],
        "categories": [{"id": 1, "name": "x"}],
    }
    (tmp_path / "a.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.png", "b é.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    assert first_names(tmp_path / "a.json", 9) == ["sub\\A.PNG", "b%20é.png"]
    source = AnnotationSource(annotations=str(tmp_path / "a.json"), images=str(tmp_path))
    assert read_share(DataConfig(kind="coco", train=(source,)), 0, 1) == (2, None)


def test_web_addresses_stand_in_for_names(tmp_path: Path) -> None:
    images = [{"id": 1, "coco_url": "http://images.cocodataset.org/train2017/1.png"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images}))
    (tmp_path / "train2017").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "train2017" / "1.png")
    source = AnnotationSource(annotations=str(tmp_path / "a.json"), images=str(tmp_path))
    assert read_share(DataConfig(kind="coco", train=(source,)), 0, 1) == (1, None)


def test_machines_are_named_with_what_they_lack() -> None:
    text = describe_unreadable({"n2": ["/data/a.json: no such file", "/data/b.png: no such file"]})
    assert "  n2: /data/a.json: no such file (and 1 more)" in text
