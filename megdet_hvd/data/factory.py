"""From the configuration to the training and validation pictures."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from megdet_hvd.config.schema import AnnotationSource, DataConfig
from megdet_hvd.data.annotated_sizes import other_sizes
from megdet_hvd.data.coco import lacking, require_known_categories
from megdet_hvd.data.ids import Id
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.index_cache.cache import HowToRead, is_worth_it, read_kept
from megdet_hvd.data.own import DataSetFactory, Split, read_own
from megdet_hvd.data.scenes.cache import ScenesSet, ensure_scenes
from megdet_hvd.data.source import PictureSource, expand_source
from megdet_hvd.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class DataSets:
    """What a run trains on and what it is measured on."""

    train: ImageIndex
    """Training pictures."""
    val: ImageIndex | None
    """Validation pictures; None where no validation file is configured."""


def open_datasets(
    config: DataConfig,
    *,
    is_main: bool,
    wait: Callable[[], None],
    own: DataSetFactory | None = None,
) -> DataSets:
    """Open the configured pictures; every rank must call this together.

    Args:
        config: which pictures.
        is_main: whether this process renders the scenes, or reads annotation files and keeps their
            index, where these aren't there yet (one per machine).
        wait: called once by every process; returns when all have called it. Also called where
            this process is about to raise, so that nobody is left waiting.
        own: opens the data set of the user's own that ``data.dataset`` names.

    Raises:
        UserError: whatever is wrong with files, categories or pictures.
    """
    if config.kind == "own":
        return _own_datasets(config, is_main, wait, own)
    if config.kind == "scenes":
        scenes = _scenes(config, is_main, wait)
        return _datasets(config, [scenes.train], [scenes.val], is_main)

    def read() -> DataSets:
        return _datasets(config, _expanded(config.train), _expanded(config.val), is_main)

    return _read_files(read, config, (config.train, config.val), is_main, wait)


def _datasets(
    config: DataConfig,
    train_sources: Sequence[PictureSource],
    val_sources: Sequence[PictureSource],
    is_main: bool,
) -> DataSets:
    """What annotation files say."""
    how = HowToRead(config.keep_empty, config.invalid_boxes)
    train = read_kept(train_sources, how, config.index_cache, makes=is_main)
    train = replace(_looked_at(train, config), value_range=config.value_range)
    if not val_sources:
        return DataSets(train, None)
    val = _validation(config, val_sources, is_main, train.category_ids)
    return DataSets(train, _with_classes(val, *_classes_of(train)))


def _classes_of(train: ImageIndex) -> tuple[dict[Id, str], str]:
    """The classes by id, and who says so."""
    known = dict(zip(train.category_ids, train.categories, strict=True))
    return known, f"training file {train.annotation_files[0]}"


def _with_classes(val: ImageIndex, known: Mapping[Id, str], source: str) -> ImageIndex:
    """``val`` with the labels of classes that are known from ``source``.

    Raises:
        UserError: it has other ones.
    """
    require_known_categories(
        known,
        source,
        dict(zip(val.category_ids, val.categories, strict=True)),
        f"validation file {val.annotation_files[0]}",
    )
    return _with_categories(val, known)


def _own_datasets(
    config: DataConfig, is_main: bool, wait: Callable[[], None], own: DataSetFactory | None
) -> DataSets:
    def read() -> tuple[ImageIndex | None, ...]:
        return _own(config, "train", own), _own(config, "val", own)

    train, val = _first_alone(read, is_main, wait)
    assert train is not None, "there is always one to train on"
    return DataSets(train, None if val is None else _with_classes(val, *_classes_of(train)))


def _own(config: DataConfig, split: Split, own: DataSetFactory | None) -> ImageIndex | None:
    """A data set of the user's own."""
    if own is None:
        raise UserError(
            f"data.dataset={config.dataset} is code of your own, which this command does not run; "
            "name annotation files instead (data.kind=coco)"
        )
    keep_empty = config.keep_empty or split == "val"
    found = read_own(own, config, split, purpose=split, keep_empty=keep_empty)
    if found is None:
        return None
    return replace(_looked_at(found, config), value_range=config.value_range)


def _first_alone(read: Callable[[], T], is_main: bool, wait: Callable[[], None]) -> T:
    """``read`` by one process of a machine before the others, which then find what it has made."""
    found: T | None = None
    try:
        if is_main:
            found = read()
    finally:
        wait()
    return read() if found is None else found


def _read_files(
    read: Callable[[], T],
    config: DataConfig,
    sets: Sequence[Sequence[AnnotationSource]],
    is_main: bool,
    wait: Callable[[], None],
) -> T:
    """``read``, where an index of the files is kept by one process of a machine for all."""

    def kept() -> bool:
        try:
            return any(is_worth_it(_expanded(sources)) for sources in sets)
        except UserError:  # told when they are read
            return False

    if config.index_cache != "off" and kept():
        return _first_alone(read, is_main, wait)
    wait()
    return read()


def _expanded(sources: Sequence[AnnotationSource]) -> list[PictureSource]:
    return [expand_source(source) for source in sources]


def _with_categories(val: ImageIndex, known: Mapping[Id, str]) -> ImageIndex:
    """The set with the labels of training, of whose classes its files may lack some."""
    absent = lacking(known, val.category_ids)
    if absent is None:
        return val
    label_of = {number: label for label, number in enumerate(known, start=1)}
    table = np.asarray([0, *(label_of[number] for number in val.category_ids)], np.int64)
    return replace(
        val,
        categories=tuple(known.values()),
        category_ids=tuple(known),
        labels=table[val.labels],
        notes=(*val.notes, f"it declares no category {absent}: it is not measured"),
    )


def open_validation(
    config: DataConfig,
    *,
    is_main: bool,
    wait: Callable[[], None],
    known: tuple[Mapping[Id, str], str] | None = None,
    own: DataSetFactory | None = None,
) -> ImageIndex:
    """Open the validation pictures alone, for evaluating a checkpoint; see `open_datasets`.

    ``known``: the classes that it is measured on, by id, and who says so; None: those that the
    files declare.

    Raises:
        UserError: as there, and where no validation file is configured.
    """
    if config.kind == "own":
        val = _first_alone(lambda: _own(config, "val", own), is_main, wait)
        if val is None:
            raise UserError(
                f"data.dataset={config.dataset} gives no pictures for 'val'; return a data set, or "
                "evaluate on annotation files (data.kind=coco)"
            )
        return val if known is None else _with_classes(val, *known)
    categories = () if known is None else known[0]
    if config.kind == "scenes":
        scenes = _scenes(config, is_main, wait)
        val = _validation(config, [scenes.val], is_main, categories)
    else:  # what training was done on needn't be there any more

        def read() -> ImageIndex:
            return _validation(config, _expanded(config.val), is_main, categories)

        val = _read_files(read, config, (config.val,), is_main, wait)
    return val if known is None else _with_classes(val, *known)


def _validation(
    config: DataConfig,
    sources: Sequence[PictureSource],
    is_main: bool,
    categories: Collection[Id] = (),
) -> ImageIndex:
    if not sources:
        raise UserError(
            "no validation pictures are configured; give data.val: a list of "
            "{annotations: FILE, images: FOLDER}"
        )
    # Pictures without boxes always count in evaluation: a detection there is a false one.
    how = HowToRead(True, config.invalid_boxes, "val", tuple(categories))
    val = read_kept(sources, how, config.index_cache, makes=is_main)
    return replace(_looked_at(val, config), value_range=config.value_range)


def _looked_at(index: ImageIndex, config: DataConfig) -> ImageIndex:
    """The set, with a doubt where pictures would be skipped for their sizes.

    Raises:
        UserError: pictures have other sizes than annotated, at which the run would stop.
    """
    if config.kind == "scenes" or index.pictures is not None:
        return index
    told = other_sizes(index)
    if told is None:
        return index
    if config.unreadable_images == "skip":
        return replace(index, doubts=(*index.doubts, f"{told}; such pictures are skipped"))
    raise UserError(
        f"{told}. Were the boxes drawn on the pictures as they are? Then correct width and height "
        "in the annotation file, or leave both out, and they are read from the pictures; else take "
        "the pictures that the boxes were drawn on. `python -m megdet_hvd.data check` lists them "
        "all; data.unreadable_images=skip goes on without them"
    )


def _scenes(config: DataConfig, is_main: bool, wait: Callable[[], None]) -> ScenesSet:
    try:
        scenes = ensure_scenes(config.scenes) if is_main else None
    finally:
        wait()
    return scenes or ensure_scenes(config.scenes, render=False)
