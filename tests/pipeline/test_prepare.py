"""Pictures checked and scaled down once, into sets that are named by what is in them."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.config.load import override
from megdet_hvd.config.schema import Config
from megdet_hvd.data.factory import open_datasets
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.scenes.cache import ensure_scenes
from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.job.agree import is_agreed
from megdet_hvd.job.meeting import SingleMemberMeeting
from megdet_hvd.job.session import machine_key
from megdet_hvd.job.world import World
from megdet_hvd.pipeline.picture import copy_name, kept_size
from megdet_hvd.pipeline.place import unfinished_set
from megdet_hvd.pipeline.prepare import prepare_data
from tests.data.made import box, image, write_set

WORLD = World(rank=0, size=1, machines=((0,),))
SAVE = "megdet_hvd.pipeline.picture._save"


def digests(folder: Path, but: Path) -> dict[str, str]:
    """Of every file below ``folder`` that is not below ``but``."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_relative_to(but)]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


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
    return config_of(tmp_path, images, boxes)


def config_of(folder: Path, images: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> Config:
    source = write_set(folder / "train", images, boxes)
    val = write_set(folder / "val", images, boxes)
    return override(
        Config(),
        [
            "data.kind=coco",
            f"data.train=[{json.dumps(source.model_dump())}]",
            f"data.val=[{json.dumps(val.model_dump())}]",
            "data.max_size=90",
            "data.min_sizes=[60]",
            "pipeline.max_side=100",
            f"output={folder / 'runs'}",
        ],
    )


def prepare(config: Config, caplog: pytest.LogCaptureFixture) -> tuple[Config, str]:
    caplog.clear()
    with caplog.at_level("INFO", "megdet_hvd"):
        changed = prepare_data(config, SingleMemberMeeting(), WORLD)
    return changed, caplog.text


@pytest.fixture
def train(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[Config, ImageIndex]]:
    """Prepared once; whatever is done then, no original picture is touched."""
    before = digests(tmp_path, tmp_path / "runs")
    changed, _ = prepare(config, caplog)
    yield changed, trained_on(changed)
    after = digests(tmp_path, tmp_path / "runs")
    assert before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before if not name.endswith(".json"))


def trained_on(config: Config) -> ImageIndex:
    return open_datasets(config.data, is_main=True, wait=lambda: None).train


def sets(config: Config) -> list[Path]:
    return sorted((Path(config.output) / "prepared").iterdir())


def annotations(config: Config) -> Any:
    return json.loads(Path(config.data.train[0].annotations).read_text())


def rewrite_annotations(config: Config, content: Any) -> None:
    Path(config.data.train[0].annotations).write_text(json.dumps(content))


def test_large_pictures_are_scaled_once(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    originals = digests(tmp_path, tmp_path / "runs")
    changed, said = prepare(config, caplog)
    assert "6 pictures read, 0 unchanged since last time, 2 scaled down" in said
    assert changed.data.val == config.data.val, "AP is measured on the pictures as they are"
    train = trained_on(changed)
    sizes = [(int(w), int(h)) for w, h in zip(train.widths, train.heights, strict=True)]
    assert sizes == [(40, 30), (100, 50), (33, 100)]
    for position, size in enumerate(sizes):
        with Image.open(train.file(position)) as picture:
            assert picture.size == size and (picture.format == "JPEG") == (position == 1)
    assert train.raw_boxes[0].tolist() == [4, 5, 6, 7]
    assert train.raw_boxes[1].tolist() == [10, 15, 50, 30]
    assert train.raw_boxes[2].tolist() == pytest.approx([3.3, 10, 16.5, 50])
    assert train.areas[1] == 1250 and train.labels.tolist() == trained_on(config).labels.tolist()
    assert train.image_ids.tolist() == [1, 2, 3] and train.categories == ("dog", "cat", "cup")
    assert "segmentation" not in train.annotation_files[0].read_text()

    again, said = prepare(config, caplog)
    assert again == changed and "0 pictures read, 6 unchanged" in said
    assert digests(tmp_path, tmp_path / "runs") == originals
    assert len(sets(config)) == 2, "one of the training pictures, one of those for validation"
    without = override(config, ["pipeline.max_side=null"])
    assert prepare(without, caplog)[0] == without


def test_what_is_prepared_is_prepared_again_from_its_originals(
    config: Config, train: tuple[Config, ImageIndex], caplog: pytest.LogCaptureFixture
) -> None:
    """A former version's runs kept the prepared files in their configuration."""
    changed, index = train
    assert prepare(changed, caplog)[0] == changed, "nothing is scaled twice"
    smaller = override(changed, ["pipeline.max_side=90"])
    less, said = prepare(smaller, caplog)
    assert "2 scaled down" in said and trained_on(less).widths.tolist() == [40, 90, 30]
    assert trained_on(changed).widths.tolist() == [40, 100, 33], "the other stays as it was"
    for position in range(3):
        with Image.open(index.file(position)) as picture:
            assert picture.size == (index.widths[position], index.heights[position])
    assert prepare(override(changed, ["pipeline.max_side=null"]), caplog)[0].data == config.data


def test_corrected_annotations_are_trained_on(
    config: Config, train: tuple[Config, ImageIndex], caplog: pytest.LogCaptureFixture
) -> None:
    _, before = train
    content = annotations(config)
    content["annotations"][1]["bbox"] = [40, 40, 20, 20]
    content["annotations"][0]["category_id"] = 3
    content["annotations"].append(box(4, 3, [0, 0, 90, 90], 90))
    rewrite_annotations(config, content)
    changed, said = prepare(config, caplog)
    assert "0 pictures read, 6 unchanged" in said, "copies are shared"
    found = trained_on(changed)
    assert found.raw_boxes[1].tolist() == [20, 20, 10, 10] and len(found.boxes) == 4
    names = [found.categories[label - 1] for label in found.labels]
    assert names == ["dog", "cat", "dog", "cup"]
    assert len(before.boxes) == 3 and before.annotation_files[0].exists(), "a run may read it"

    del content["images"][1], content["annotations"][1]
    rewrite_annotations(config, content)
    found = trained_on(prepare(config, caplog)[0])
    assert found.image_ids.tolist() == [1, 3] and found.widths.tolist() == [40, 33]
    with Image.open(found.file(1)) as picture:
        assert picture.size == (33, 100), "its copy has another number now"


def test_changed_pictures_are_seen(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = trained_on(prepare(config, caplog)[0])
    old = before.file(1).read_bytes()
    Image.new("RGB", (200, 100)).save(tmp_path / "train" / "pictures" / "wide.jpg")
    changed, said = prepare(config, caplog)
    assert "1 pictures read, 5 unchanged" in said
    with Image.open(trained_on(changed).file(1)) as small:
        assert small.convert("RGB").getpixel((50, 25)) == (0, 0, 0)
    assert before.file(1).read_bytes() == old, "a run may be reading it"


def test_no_name_of_a_data_set_leads_out_of_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Absolute names, names that climb, names that differ in their ending only, equal names."""
    pictures = tmp_path / "train" / "pictures"
    outside = tmp_path / "elsewhere" / "absolute.jpg"
    outside.parent.mkdir()
    names = [
        str(outside),
        "../beside.png",
        "same.bmp",
        "same.png",
        "same.tif",
        "deep/../same.jpg",
        "index.jsonl.png",
        f"{'long' * 55}.png",
    ]
    images = [image(k, name, 200, 100) for k, name in enumerate(names, 1)]
    images.append(image(9, "same.bmp", 200, 100))
    (pictures / "deep").mkdir(parents=True)
    boxes = [box(k, k, [20, 20, 100, 60]) for k in range(1, 10)]
    config = config_of(tmp_path, images, boxes)
    grey = {name: 20 * k for k, name in enumerate(dict.fromkeys(names), 1)}
    for name, value in grey.items():
        Image.new("RGB", (200, 100), (value,) * 3).save(pictures / name)
    before = digests(tmp_path, tmp_path / "runs")
    changed, said = prepare(config, caplog)
    assert "9 scaled down" in said
    assert digests(tmp_path, tmp_path / "runs") == before, "nothing is written anywhere else"
    found = trained_on(changed)
    copies = [found.file(position) for position in range(9)]
    assert len(set(copies)) == 9
    assert {path.parent.parent.parent for path in copies} == {tmp_path / "runs" / "prepared"}
    for position, copy in enumerate(copies):
        with Image.open(copy) as picture:
            assert picture.size == (100, 50)
            shown = np.asarray(picture)[25, 50]
        assert np.abs(shown - float(grey[images[position]["file_name"]])).max() <= 2


def test_a_broken_off_preparation_leaves_nothing_half(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    originals = digests(tmp_path, tmp_path / "runs")
    for error, kind, said in (
        (OSError(errno.ENOSPC, "No space left on device"), StorageError, "No space left"),
        (OSError(errno.EIO, "Input/output error"), StorageError, "fails for the moment"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ):
        with mock.patch(SAVE, side_effect=error), pytest.raises(kind, match=said or None) as raised:
            prepare(config, caplog)
        assert is_agreed(raised.value) or kind is KeyboardInterrupt
        assert sets(config) == []
    with (
        mock.patch("megdet_hvd.pipeline.place.Path.rename", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        prepare(config, caplog)
    assert sets(config) == []
    prepare(config, caplog)
    assert len(sets(config)) == 2 and digests(tmp_path, tmp_path / "runs") == originals


def test_what_a_killed_preparation_left_goes_and_nothing_else(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(config.output) / "prepared"
    with unfinished_set(root) as at_work:
        killed, elsewhere, mine, ancient = (root / f".preparing-{k}" for k in range(4))
        for folder, owner in (
            (killed, [*machine_key()]),
            (elsewhere, ["another", "machine"]),
            (ancient, ["another", "machine"]),
        ):
            (folder / "images").mkdir(parents=True)
            (folder / "owner.json").write_text(json.dumps(owner))
        mine.mkdir()
        (mine / "holiday.jpg").write_text("not ours")
        for path in (ancient, ancient / "images"):
            os.utime(path, (1, 1))
        prepare(config, caplog)
        assert [p.exists() for p in (at_work, killed, elsewhere, mine, ancient)] == [
            True,
            False,
            True,
            True,
            False,
        ]
    assert not at_work.exists()


def test_two_at_once_both_end_right(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    other = override(config, ["pipeline.max_side=90"])
    with ThreadPoolExecutor(8) as pool:
        work = [
            pool.submit(prepare_data, c, SingleMemberMeeting(), WORLD) for c in [config, other] * 4
        ]
        found = [one.result(timeout=60) for one in work]
    assert found == [found[0], found[1]] * 4 and found[0] != found[1]
    for one, width in zip(found[:2], (100, 90), strict=True):
        with Image.open(trained_on(one).file(1)) as picture:
            assert picture.width == width
    assert len(sets(config)) == 3, "one a size, and that of validation; nothing unfinished"


def test_a_set_that_was_robbed_of_files_is_mended(
    config: Config, train: tuple[Config, ImageIndex], caplog: pytest.LogCaptureFixture
) -> None:
    """Scratch file systems delete what has not been read for a while."""
    changed, index = train
    for rob, read in (
        (lambda: index.file(1).unlink(), 1),
        (lambda: index.file(2).write_bytes(b"half"), 1),
        (lambda: index.annotation_files[0].unlink(), 0),
        (lambda: index.annotation_files[0].with_name("index.jsonl").write_text("{"), 3),
        (lambda: index.annotation_files[0].with_name("index.jsonl").unlink(), 3),
    ):
        rob()
        again, said = prepare(config, caplog)
        assert again == changed and f"{read} pictures read" in said
        for position, size in enumerate([(40, 30), (100, 50), (33, 100)]):
            with Image.open(trained_on(again).file(position)) as picture:
                assert picture.size == size
        assert "0 pictures read" in prepare(config, caplog)[1]


def test_pictures_that_cannot_be_read(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train" / "pictures" / "wide.jpg").write_bytes(b"no picture")
    (tmp_path / "val" / "pictures" / "high.bmp").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"unreadable picture: 1\n.*wide\.jpg") as raised:
        prepare(config, caplog)
    assert is_agreed(raised.value), "all ranks raise it"
    assert sets(config) == []
    skipping = override(config, ["data.unreadable_images=skip"])
    for _ in range(2):
        changed, said = prepare(skipping, caplog)
        assert "2 unreadable" in said
        assert trained_on(changed).file(1) == tmp_path / "train" / "pictures" / "wide.jpg"
    with pytest.raises(UserError, match="unreadable picture"):
        prepare(config, caplog)
    (tmp_path / "val" / "pictures" / "high.bmp").unlink()
    with pytest.raises(UserError, match=r"(?s)missing picture file: 1.*high\.bmp") as raised:
        prepare(skipping, caplog)
    assert is_agreed(raised.value)


def test_storage_that_fails_for_the_moment_is_no_mistake_of_the_user(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    stale = OSError(errno.ESTALE, "Stale file handle")
    with (
        mock.patch("megdet_hvd.storage.time.sleep"),
        mock.patch("megdet_hvd.pipeline.picture.retried", side_effect=stale),
        pytest.raises(StorageError, match="Stale file handle") as raised,
    ):
        prepare(config, caplog)
    assert is_agreed(raised.value)


def test_a_limit_below_what_training_reads_is_refused(config: Config) -> None:
    with pytest.raises(UserError, match=r"max_side=80 is below data.max_size=90.*or more"):
        override(config, ["pipeline.max_side=80"])


def test_sizes_and_names() -> None:
    assert kept_size(1000, 600, 500) == (500, 300)
    assert kept_size(600, 1000, 1000) == (600, 1000)
    assert kept_size(600, 1000, None) == (600, 1000)
    assert kept_size(3000, 1, 100) == (100, 1)
    assert [copy_name(7, Path(n)) for n in ("a/b.JPEG", "../b.webp", "/c")] == [
        "00000007.jpg",
        "00000007.png",
        "00000007.png",
    ]


def test_other_tools_files_are_prepared_as_they_are_read(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids that are names, names that are spelt otherwise, sizes of the pictures, marked boxes."""
    for source in (*config.data.train, *config.data.val):
        file = Path(source.annotations)
        content = json.loads(file.read_text())
        for entry in content["images"]:
            entry["id"] = f"frame_{entry['id']}"
            entry["file_name"] = entry["file_name"].upper().replace("/", "\\")
            del entry["width"], entry["height"]
        for entry in content["annotations"]:
            entry["image_id"] = f"frame_{entry['image_id']}"
        content["annotations"] += [box(8, "frame_2", [20, 30, 100, 60], ignore=1)]
        file.write_text(json.dumps(content))
    read = open_datasets(config.data, is_main=True, wait=lambda: None).train
    prepared, _ = prepare(config, caplog)
    again = open_datasets(prepared.data, is_main=True, wait=lambda: None).train
    assert again.image_ids.tolist() == read.image_ids.tolist()  # draws are by them
    assert again.learnable.tolist() == read.learnable.tolist() == [True, True, False, True]
    assert (again.widths.tolist(), again.heights.tolist()) == ([40, 100, 33], [30, 50, 100])
    assert again.record(1).boxes.tolist() == [[10, 15, 60, 45]]


def test_truth_without_area_stops_no_preparation(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(config.data.val[0].annotations)
    content = json.loads(file.read_text())
    content["annotations"] += [box(8, 2, [1, 1, 0, 5])]
    file.write_text(json.dumps(content))
    prepare(config, caplog)
    Path(config.data.train[0].annotations).write_text(json.dumps(content))
    with pytest.raises(UserError, match="invalid box"):
        prepare(config, caplog)


def test_scenes_are_rendered_and_prepared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = override(
        Config(),
        [
            "data.kind=scenes",
            "data.scenes.train_images=3",
            "data.scenes.val_images=2",
            "data.scenes.size=64",
            f"data.scenes.cache={tmp_path / 'cache'}",
            "data.min_sizes=[48]",
            "data.max_size=48",
            "pipeline.max_side=48",
            f"output={tmp_path / 'runs'}",
        ],
    )
    changed, said = prepare(config, caplog)
    assert "5 pictures read, 0 unchanged since last time, 3 scaled down" in said
    train = trained_on(changed)
    assert len(train) > 0 and max(*train.widths, *train.heights) == 48
    found = ensure_scenes(config.data.scenes)
    stale = StorageError("train.json: Stale file handle")
    with (
        mock.patch("megdet_hvd.pipeline.prepare.ensure_scenes", side_effect=[found, stale]),
        pytest.raises(StorageError, match="Stale") as raised,
    ):
        prepare(config, caplog)
    assert is_agreed(raised.value), "a machine that can't see them tells the others"


def test_an_annotation_file_that_fails_once_is_read_again(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    digest = "megdet_hvd.pipeline.prepare.content_digest"
    stale = OSError(errno.ESTALE, "Stale file handle")
    with mock.patch(digest, side_effect=[stale, "train", "val"]):
        prepare(config, caplog)
    with (
        mock.patch(digest, side_effect=stale),
        pytest.raises(StorageError, match=r"cannot be read .Stale") as raised,
    ):
        prepare(config, caplog)
    assert is_agreed(raised.value)
