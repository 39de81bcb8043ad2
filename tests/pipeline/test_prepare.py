"""Pictures checked and scaled down once; what has not changed is left alone."""

import json
from pathlib import Path

import pytest
from PIL import Image

from megdet_hvd.comm.meeting import Alone
from megdet_hvd.comm.world import World
from megdet_hvd.config.load import override
from megdet_hvd.config.schema import Config
from megdet_hvd.data.factory import open_datasets
from megdet_hvd.errors import UserError
from megdet_hvd.pipeline.picture import kept_size, scaled_name
from megdet_hvd.pipeline.prepare import prepare_data
from tests.data.made import box, image, write_set

WORLD = World(rank=0, size=1, machines=((0,),))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Pictures of 40×30, 200×100 and 90×270 pixels; training reads up to 100."""
    images = [
        image(1, "a/1.png"),
        image(2, "wide.jpg", 200, 100),
        image(3, "high.bmp", 90, 270),
    ]
    boxes = [
        box(1, 1, [4, 5, 6, 7]),
        box(2, 2, [20, 30, 100, 60], area=5000, segmentation=[[1, 2, 3, 4]]),
        box(3, 3, [9, 27, 45, 135], 3),
    ]
    source = write_set(tmp_path / "train", images, boxes)
    val = write_set(tmp_path / "val", images, boxes)
    text = [
        "data.kind=coco",
        f"data.train=[{json.dumps(source.model_dump())}]",
        f"data.val=[{json.dumps(val.model_dump())}]",
        "data.max_size=90",
        "data.min_sizes=[60]",
        "pipeline.max_side=100",
        f"output={tmp_path / 'runs'}",
    ]
    return override(Config(), text)


def prepare(config: Config, caplog: pytest.LogCaptureFixture) -> tuple[Config, str]:
    caplog.clear()
    with caplog.at_level("INFO", "megdet_hvd"):
        changed = prepare_data(config, Alone(), WORLD)
    return changed, caplog.text


def test_large_pictures_are_scaled_once(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed, said = prepare(config, caplog)
    assert "6 pictures read, 0 unchanged since last time, 2 scaled down" in said
    assert changed.data.val == config.data.val, "AP is measured on the pictures as they are"
    data = open_datasets(changed.data, is_main=True, wait=lambda: None)
    train = data.train
    sizes = [(int(w), int(h)) for w, h in zip(train.widths, train.heights, strict=True)]
    assert sizes == [(40, 30), (100, 50), (33, 100)]
    for position, size in enumerate(sizes):
        with Image.open(train.file(position)) as picture:
            assert picture.size == size and (picture.format == "JPEG") == (position == 1)
    assert train.raw_boxes[0].tolist() == [4, 5, 6, 7]
    assert train.raw_boxes[1].tolist() == [10, 15, 50, 30]
    assert train.raw_boxes[2].tolist() == pytest.approx([3.3, 10, 16.5, 50])
    assert train.areas[1] == 1250
    assert "segmentation" not in train.annotation_files[0].read_text()

    again, said = prepare(config, caplog)
    assert again == changed and "0 pictures read, 6 unchanged" in said
    # What is trained on is itself small enough: preparing a run that is carried on changes nothing.
    carried_on, said = prepare(changed, caplog)
    assert carried_on.data.train == changed.data.train and "0 scaled down" in said

    Image.new("RGB", (200, 100)).save(tmp_path / "train" / "pictures" / "wide.jpg")
    _, said = prepare(config, caplog)
    assert "1 pictures read, 5 unchanged" in said
    with Image.open(train.file(1)) as small:
        assert small.convert("RGB").getpixel((50, 25)) == (0, 0, 0)


def test_pictures_that_cannot_be_read(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train" / "pictures" / "wide.jpg").write_bytes(b"no picture")
    (tmp_path / "val" / "pictures" / "high.bmp").unlink()
    with pytest.raises(UserError, match=r"unreadable picture: 1\n.*wide\.jpg") as raised:
        prepare(config, caplog)
    assert getattr(raised.value, "agreed", False), "all ranks raise it"
    _, said = prepare(override(config, ["data.unreadable_images=skip"]), caplog)
    assert "2 unreadable" in said


def test_a_limit_below_what_training_reads_is_refused(config: Config) -> None:
    with pytest.raises(UserError, match=r"max_side=80 is below data.max_size=90.*or more"):
        override(config, ["pipeline.max_side=80"])


def test_sizes_and_names() -> None:
    assert kept_size(1000, 600, 500) == (500, 300)
    assert kept_size(600, 1000, 1000) == (600, 1000)
    assert kept_size(600, 1000, None) == (600, 1000)
    assert kept_size(3000, 1, 100) == (100, 1)
    assert [scaled_name(n) for n in ("a/b.JPEG", "a/b.webp", "c")] == [
        "a/b.JPEG",
        "a/b.png",
        "c.png",
    ]
