"""Small COCO sets and detections made up on the fly."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.batch import Detections
from megdet_hvd.data.index import ImageIndex
from tests.data.made import read_coco, records

CATEGORY_IDS = (3, 17, 44)
"""Not contiguous, as in COCO."""
NAMES = ("cat", "traffic light", "dog")


def write_set(
    folder: Path,
    image_ids: Sequence[int],
    *,
    seed: int = 0,
    sizes: Sequence[tuple[int, int]] = ((120, 90),),
    crowds: bool = True,
    categories: Mapping[Any, str] | None = None,
) -> AnnotationSource:
    """Pictures of noise with 0–4 boxes each; sizes as (width, height), taken in turn."""
    draw = random.Random(seed)
    categories = categories or dict(zip(CATEGORY_IDS, NAMES, strict=True))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for position, image_id in enumerate(image_ids):
        width, height = sizes[position % len(sizes)]
        name = f"picture {image_id}.png"
        noise = np.random.default_rng(image_id).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(folder / "images" / name)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for k in range((position + seed) % 5):
            w, h = draw.uniform(4, width - 4), draw.uniform(4, height - 4)
            x, y = draw.uniform(0, width - w), draw.uniform(0, height - h)
            annotations.append(
                {
                    "id": len(annotations),  # from 0, the id that COCOeval can't match
                    "image_id": image_id,
                    "category_id": draw.choice(list(categories)),
                    "bbox": [round(v, 2) for v in (x, y, w, h)],
                    "area": round(w * h * draw.uniform(0.3, 1.0), 2),
                    "iscrowd": int(crowds and k == 3),
                }
            )
    file = folder / "annotations.json"
    content: dict[str, Any] = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in categories.items()],
    }
    file.write_text(json.dumps(content))
    return AnnotationSource(annotations=str(file), images=str(folder / "images"))


def open_set(*sources: AnnotationSource) -> ImageIndex:
    """The sets as evaluation reads them."""
    return read_coco(sources, keep_empty=True, invalid_boxes="stop", purpose="val")


def perfect(index: ImageIndex) -> dict[int, Detections]:
    """The ground truth as detections, crowds left out."""
    found = {}
    for record in records(index):
        boxes = torch.from_numpy(record.boxes.copy())
        count = len(boxes)
        found[record.index] = Detections(
            boxes, torch.linspace(0.9, 0.5, count), torch.from_numpy(record.labels.copy())
        )
    return found


def imperfect(index: ImageIndex, seed: int) -> dict[int, Detections]:
    """Ground truth shifted, relabelled, missed and doubled, many scores equal; and noise."""
    draw = np.random.default_rng(seed)
    found = {}
    for record in records(index):
        rows = slice(index.offsets[record.index], index.offsets[record.index + 1])
        boxes, labels = index.boxes[rows], index.labels[rows]  # crowds too
        chosen = draw.integers(0, max(len(boxes), 1), len(boxes) * 2)
        boxes = boxes[chosen] + draw.normal(0, 3, (len(chosen), 4)).astype(np.float32)
        labels = np.where(draw.random(len(chosen)) < 0.15, 1 + labels[chosen] % 3, labels[chosen])
        noise = draw.uniform(0, 60, (2, 4)).astype(np.float32)
        noise[:, 2:] += noise[:, :2]
        boxes = np.concatenate([boxes, noise])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = np.concatenate([labels, draw.integers(1, 4, 2)])
        scores = np.sort(np.round(draw.uniform(0.05, 1, len(boxes)), 1))[::-1]
        found[record.index] = Detections(
            torch.from_numpy(boxes.astype(np.float32)),
            torch.from_numpy(scores.astype(np.float32)),
            torch.from_numpy(labels.astype(np.int64)),
        )
    return found
