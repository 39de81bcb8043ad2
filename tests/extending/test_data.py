"""A data set of the user's own: as an annotation file says it, and what is told before training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import DataConfig
from megdet_hvd.data.batch import Batch
from megdet_hvd.data.factory import DataSets, open_datasets, open_validation
from megdet_hvd.data.loader import TrainLoader
from megdet_hvd.data.own import OwnSample
from megdet_hvd.data.transforms import UnreadablePicture
from megdet_hvd.engine.fingerprints import boxes_digest, order_of_pictures
from megdet_hvd.errors import StorageError, UserError
from tests.extending.parts import Noise, noise, noises, scenes

NAME = "tests.extending.parts:noises"


def config_of(*more: str) -> DataConfig:
    words = ["data.kind=own", f"data.dataset={NAME}", "data.min_sizes=[30]", *more]
    return load_config(None, words).data


def opened(config: DataConfig, own: Any = noises) -> DataSets:
    return open_datasets(config, is_main=True, wait=Mock(), own=own)


def test_it_is_what_an_annotation_file_of_the_same_would_be(tmp_path: Path) -> None:
    cache = [f"data.scenes.cache={tmp_path}", "data.scenes.train_images=20", "data.scenes.size=64"]
    files = load_config(None, [*cache, "data.scenes.val_images=5"]).data
    own = files.model_copy(update={"kind": "own", "dataset": "tests.extending.parts:scenes"})
    one, other = opened(files), opened(own, scenes)
    assert one.val is not None and other.val is not None
    for as_file, as_own in ((one.train, other.train), (one.val, other.val)):
        assert as_own.categories == as_file.categories and as_own.pictures is None
        assert order_of_pictures(as_own) == order_of_pictures(as_file)
        assert boxes_digest(as_own) == boxes_digest(as_file) and len(as_own) == len(as_file)
        assert np.array_equal(as_own.areas, as_file.areas)
        assert [as_own.file(k) for k in range(3)] == [as_file.file(k) for k in range(3)]
    assert len(other.train) < 20 and len(other.val) == 5  # those without boxes


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_a_function_opens(workers: int) -> None:
    """In a thread, and in a loader process, which imports the module by itself."""
    config = config_of(f"data.workers={workers}", "data.flip_probability=0")
    sets = opened(config)
    assert len(sets.train) == 6 and sets.val is not None and len(sets.val) == 6
    assert sets.train.original_id(0) == 1, "the first has no boxes, and the positions are its own"
    loader = TrainLoader(
        sets.train,
        config,
        seed=1,
        global_batch=3,
        accumulation=1,
        rank=0,
        world_size=1,
        start_iteration=0,
        end_iteration=2,
    )
    batches: list[Batch] = [batch for (batch,) in loader]
    seen = {info.image_id for batch in batches for info in batch.infos}
    assert seen == {1, 2, 4, 5, 7, 8}
    for batch in batches:
        assert not batch.unreadable
        for picture, info, target in zip(batch.images, batch.infos, batch.targets, strict=True):
            whole = noise(info.image_id)
            pixels = np.asarray(whole if info.image_id % 3 != 1 else whole.permute(1, 2, 0))
            assert np.array_equal(picture[:, :30, :40].permute(1, 2, 0).numpy(), pixels)
            assert len(target.boxes) == info.image_id % 3


def test_sizes_are_read_from_pictures_where_they_are_not_given(tmp_path: Path) -> None:
    Image.new("RGB", (50, 20)).save(tmp_path / "a.png")
    path = Noise(4, size=None, picture=tmp_path / "a.png")
    for own, size in ((Noise(4, size=None), (40, 30)), (path, (50, 20))):
        index = opened(config_of(), lambda split, data, own=own: own).train
        assert {(w, h) for w, h in zip(index.widths, index.heights, strict=True)} == {size}


def test_a_picture_that_is_another_one_or_can_not_be_opened() -> None:
    def broken() -> Any:
        raise OSError("cut off")

    def gone() -> Any:
        raise OSError(116, "Stale file handle")

    def decoded(**more: Any) -> Image.Image:
        index = opened(config_of("data.workers=0"), lambda *_: Noise(4, **more)).train
        assert index.pictures is not None
        return index.pictures.decode(0, (40, 30), "auto")

    assert decoded().size == (40, 30)
    with pytest.raises(UnreadablePicture, match="it is 40×30 pixels, but annotated as 44×30"):
        index = opened(config_of(), lambda *_: Noise(4, size=(44, 30))).train
        assert index.pictures is not None
        index.pictures.decode(0, (44, 30), "auto")
    with pytest.raises(UnreadablePicture, match="OSError: cut off"):
        decoded(picture=broken)
    with pytest.raises(StorageError, match=r"data\.dataset"):
        decoded(picture=gone)
    with pytest.raises(TypeError, match=r"uint8 RGB.*this one is float64 \(30, 40, 3\)"):
        decoded(picture=lambda: np.zeros((30, 40, 3)))
    with pytest.raises(ZeroDivisionError):
        decoded(picture=lambda: 1 / 0)


def one_box(**more: Any) -> Noise:
    return Noise(3, **{"boxes": [[0, 0, 9, 9]], "labels": [1], **more})


class Named(Noise):
    """Has categories of whatever kind."""

    def __init__(self, categories: Any) -> None:
        super().__init__(3)
        self.categories = categories


@pytest.mark.parametrize("crowds", [[1, 0], [True, False], np.array([True, False]), [1.0, 0.0]])
def test_crowds_and_areas_are_as_given(crowds: Any) -> None:
    boxes, areas = [[0, 0, 9, 9], [1, 1, 5, 5]], [50.0, None]
    made = Noise(1, boxes=boxes, labels=[1, 2], crowds=crowds, areas=areas)
    index = opened(config_of("data.workers=0"), lambda *_: made).train
    assert index.crowds.tolist() == [True, False] and index.learnable.tolist() == [False, True]
    assert index.areas.tolist() == [50.0, 16.0]


def test_numbers_may_be_numpys() -> None:
    whole = np.int64(7)
    made = Noise(
        1,
        size=np.array([40, 30]),
        image_id=whole,
        boxes=[[0, 0, 9, 9]],
        labels=np.ones(1, np.uint8),
    )
    index = opened(config_of("data.workers=0"), lambda *_: made).train
    assert index.original_id(0) == 7 and (index.widths[0], index.heights[0]) == (40, 30)


class Without(Noise):
    """No categories."""

    categories = ()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: None, "gives a NoneType for 'train'; return an object with len()"),
        (lambda: Without(3), "has the categories [] for 'train'; give it an attribute"),
        (lambda: [1], "has the categories [] for 'train'"),
        (lambda: Noise(3, labels=[0]), "item 0 of 'train' has boxes of shape (0, 4) and labels of"),
        (lambda: Noise(3, boxes=[[1, 2, 3]], labels=[1]), "boxes of shape (1, 3)"),
        (lambda: Noise(3, boxes=[[1, 2, 3, 4]], labels=[3]), "the label 3; it must be a whole"),
        (lambda: Noise(3, boxes=[[1, 2, 3, 4]], labels=[1.5]), "the label 1.5; it must"),
        (lambda: Noise(3, boxes="x"), "has boxes that are no array of numbers"),
        (lambda: Noise(3, image_id=7), "item 1 of 'train' has the image_id 7 of item 0; give each"),
        (lambda: Named("person"), "has the categories ['person'] for 'train'; give it an attrib"),
        (lambda: Named(len), "; give it an attribute categories, a list"),
        (lambda: Noise(3, size=(40, 30, 3)), "item 0 of 'train' has the size (40, 30, 3); give (w"),
        (lambda: Noise(3, size=(-40, 30)), "has the size (-40, 30); give"),
        (lambda: Noise(3, size=(40.5, 30)), "has the size (40.5, 30); give"),
        (lambda: Noise(3, size=(0, 0)), "has the size (0, 0); give"),
        (lambda: Noise(3, size="40"), "has the size '40'; give"),
        (lambda: Noise(3, size=(float("nan"), 3)), "has the size (nan, 3); give"),
        (lambda: Noise(3, picture=noise(2)), "has a Image for its picture; give its file, or a fu"),
        (lambda: Noise(3, picture=None), "has a NoneType for its picture; give"),
        (lambda: one_box(crowds=[float("nan")]), "has the crowds value nan; give true or false"),
        (lambda: one_box(crowds=[0.5]), "has the crowds value 0.5; give true or false"),
        (lambda: one_box(crowds=["yes"]), "has the crowds value 'yes'; give true or false"),
        (lambda: one_box(crowds=[None]), "has the crowds value None; give true or false"),
        (
            lambda: one_box(boxes=torch.ones(1, 4, requires_grad=True)),
            "has boxes that are no array of numbers (Can't call numpy() on Tensor that requires",
        ),
        (lambda: Noise(1, image_id=()), "the image_id (); give a number or text"),
        (lambda: Noise(3, crowds=[1, 1, 1]), "has crowds of shape (3,) for 0 boxes; give one"),
        (lambda: Noise(3, boxes=[[9, 9, 3, 4]], labels=[1]), "invalid box"),
        (lambda: Noise(3, boxes=[], labels=[]), "no picture with boxes is left of"),
        (lambda: Noise(3, picture="no/such.png"), "no/such.png (the folder no does not exist"),
    ],
)
def test_what_is_wrong_with_it_is_told(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(config_of(), lambda split, data: make())
    assert told in str(caught.value)
    assert NAME in str(caught.value)


def test_items_must_be_samples() -> None:
    class Rows(Noise):
        def __getitem__(self, position: int) -> Any:
            return [1, 2]

    with pytest.raises(UserError, match=r"item 0 of 'train' is a list; return a megdet_hvd"):
        opened(config_of(), lambda *_: Rows(3))


def test_what_loader_processes_can_not_be_given_is_told_before() -> None:
    with Path(__file__).open() as file:
        held: Any = Noise(3)
        held.file = file
        with pytest.raises(UserError, match=r"can't be handed to loader processes .TypeError"):
            opened(config_of("data.workers=2"), lambda *_: held)
        assert len(opened(config_of("data.workers=0"), lambda *_: held).train) == 2


def test_validation_of_ones_own() -> None:
    config = config_of()
    index = open_validation(config, is_main=False, wait=Mock(), own=noises)
    assert len(index) == 6
    none = lambda split, data: Noise(9) if split == "train" else None  # noqa: E731
    assert opened(config, none).val is None
    with pytest.raises(UserError, match="gives no pictures for 'val'"):
        open_validation(config, is_main=True, wait=Mock(), own=none)
    with pytest.raises(UserError, match="which this command does not run"):
        open_validation(config, is_main=True, wait=Mock())
    other = Noise(6)
    other.categories = ("cat", "cow")
    with pytest.raises(UserError, match="category 2: 'dog' against 'cow'"):
        opened(config, lambda split, data: Noise(9) if split == "train" else other)


def test_the_first_process_of_a_machine_opens_it_alone() -> None:
    told: list[str] = []

    def own(split: str, data: DataConfig) -> Noise:
        told.append(split)
        return Noise(9)

    for is_main, expected in ((True, ["train", "val", "wait"]), (False, ["wait", "train", "val"])):
        told.clear()
        open_datasets(config_of(), is_main=is_main, wait=lambda: told.append("wait"), own=own)
        assert told == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.kind=own"], "data.kind=own needs data.dataset"),
        (["data.dataset=a:b"], "data.dataset=a:b belongs to data.kind=own, not to data.kind=scen"),
        (["data.kind=own", "data.dataset=a:b", "pipeline.max_side=2000"], "are not prepared"),
    ],
)
def test_settings_that_belong_together(words: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, words)
    assert told in str(caught.value)


def test_samples_are_plain() -> None:
    sample = OwnSample("a.png", [], [])
    assert replace(sample, size=(1, 2)).size == (1, 2)
