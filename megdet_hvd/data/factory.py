"""From the configuration to the training and validation pictures."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from megdet_hvd.config.schema import DataConfig
from megdet_hvd.data.annotated_sizes import other_sizes
from megdet_hvd.data.coco import lacking, read_sources, require_known_categories
from megdet_hvd.data.ids import Id
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.scenes.cache import ScenesSet, ensure_scenes
from megdet_hvd.data.source import PictureSource, expand_source
from megdet_hvd.errors import UserError


@dataclass(frozen=True)
class DataSets:
    """What a run trains on and what it is measured on."""

    train: ImageIndex
    """Training pictures."""
    val: ImageIndex | None
    """Validation pictures; None where no validation file is configured."""


def open_datasets(config: DataConfig, *, is_main: bool, wait: Callable[[], None]) -> DataSets:
    """Open the configured pictures; every rank must call this together.

    Args:
        config: which pictures.
        is_main: whether this process renders the scenes where they aren't there yet (one per
            machine).
        wait: called once by every process; returns when all have called it. Also called where
            this process is about to raise, so that nobody is left waiting.

    Raises:
        UserError: whatever is wrong with files, categories or pictures.
    """
    train_sources, val_sources = _sources(config, is_main, wait)
    train = read_sources(
        train_sources, keep_empty=config.keep_empty, invalid_boxes=config.invalid_boxes
    )
    train = replace(_looked_at(train, config), value_range=config.value_range)
    if not val_sources:
        return DataSets(train, None)
    known = dict(zip(train.category_ids, train.categories, strict=True))
    own = f"training file {train.annotation_files[0]}"
    return DataSets(train, _known_validation(config, val_sources, known, own))


def _known_validation(
    config: DataConfig, sources: list[PictureSource], known: Mapping[Id, str], own: str
) -> ImageIndex:
    """Validation pictures of classes that are known from ``own``, with the labels of those."""
    val = _validation(config, sources, known)
    require_known_categories(
        known,
        own,
        dict(zip(val.category_ids, val.categories, strict=True)),
        f"validation file {val.annotation_files[0]}",
    )
    return _with_categories(val, known)


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
) -> ImageIndex:
    """Open the validation pictures alone, for evaluating a checkpoint; see `open_datasets`.

    ``known``: the classes that it is measured on, by id, and who says so; None: those that the
    files declare.

    Raises:
        UserError: as there, and where no validation file is configured.
    """
    val_sources = _val_sources(config, is_main, wait)
    if not val_sources:
        raise UserError(
            "no validation pictures are configured; give data.val: a list of "
            "{annotations: FILE, images: FOLDER}"
        )
    if known is not None:
        return _known_validation(config, val_sources, *known)
    return _validation(config, val_sources)


def _validation(
    config: DataConfig, sources: list[PictureSource], categories: Collection[Id] = ()
) -> ImageIndex:
    # Pictures without boxes always count in evaluation: a detection there is a false one.
    val = read_sources(
        sources,
        keep_empty=True,
        invalid_boxes=config.invalid_boxes,
        purpose="val",
        categories=categories,
    )
    return replace(_looked_at(val, config), value_range=config.value_range)


def _looked_at(index: ImageIndex, config: DataConfig) -> ImageIndex:
    """The set, with a doubt where pictures would be skipped for their sizes.

    Raises:
        UserError: pictures have other sizes than annotated, at which the run would stop.
    """
    if config.kind != "coco":
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


def _sources(
    config: DataConfig, is_main: bool, wait: Callable[[], None]
) -> tuple[list[PictureSource], list[PictureSource]]:
    if config.kind == "coco":
        wait()
        return [expand_source(s) for s in config.train], [expand_source(s) for s in config.val]
    scenes = _scenes(config, is_main, wait)
    return [scenes.train], [scenes.val]


def _val_sources(
    config: DataConfig, is_main: bool, wait: Callable[[], None]
) -> list[PictureSource]:
    """Those of validation alone: what training was done on needn't be there any more."""
    if config.kind == "coco":
        wait()
        return [expand_source(s) for s in config.val]
    return [_scenes(config, is_main, wait).val]


def _scenes(config: DataConfig, is_main: bool, wait: Callable[[], None]) -> ScenesSet:
    try:
        scenes = ensure_scenes(config.scenes) if is_main else None
    finally:
        wait()
    return scenes or ensure_scenes(config.scenes, render=False)
