"""COCO sets and pictures made on the fly, and where real ones lie."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.coco import Purpose, read_sources
from megdet_hvd.data.index import ImageIndex, ImageRecord
from megdet_hvd.data.source import expand_source
from megdet_hvd.pipeline.rewrite import rewritten

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 90, "name": "cup"}]
REAL = Path(os.environ.get("MEGDET_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def real_data(name: str, unchecked: str) -> Path:
    """A folder of real pictures, or a skip that says what was not checked."""
    if not (REAL / name).is_dir():
        pytest.skip(f"no real pictures at {REAL / name} (MEGDET_TEST_DATA): {unchecked}")
    return REAL / name


def image(number: int, name: str = "", width: int = 40, height: int = 30) -> dict[str, Any]:
    """An image entry."""
    return {"id": number, "file_name": name or f"{number}.png", "width": width, "height": height}


def box(number: Any, image_id: Any, xywh: Sequence[Any], category: Any = 7, **more: Any) -> Any:
    """An annotation entry."""
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": xywh, **more}


def write_set(
    folder: Path,
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]] = CATEGORIES,
    *,
    pictures: bool = True,
) -> AnnotationSource:
    """An annotation file with its pictures, noise of the annotated sizes."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "set.json").write_text(json.dumps(content))
    if pictures:
        for entry in images:
            save_noise(
                folder / "pictures" / entry["file_name"],
                entry["width"],
                entry["height"],
                seed=entry["id"],
            )
    return AnnotationSource(annotations=str(folder / "set.json"), images=str(folder / "pictures"))


def save_noise(file: Path, width: int, height: int, seed: int = 0) -> None:
    """A picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(file)


def read_coco(
    sources: Sequence[AnnotationSource],
    *,
    keep_empty: bool,
    invalid_boxes: Literal["stop", "drop"],
    purpose: Purpose = "train",
) -> ImageIndex:
    """Configured annotation files as one data set."""
    return read_sources(
        [expand_source(source) for source in sources],
        keep_empty=keep_empty,
        invalid_boxes=invalid_boxes,
        purpose=purpose,
    )


def records(index: ImageIndex) -> list[ImageRecord]:
    """The pictures one by one."""
    return [index.record(position) for position in range(len(index))]


def content_of(index: ImageIndex) -> dict[str, Any]:
    """The set as a COCO dictionary, as the pipeline writes it for pictures left as they are."""
    content: dict[str, Any] = json.loads(rewritten(index, [None] * len(index)))
    return content
