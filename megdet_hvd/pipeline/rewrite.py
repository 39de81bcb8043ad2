"""An annotation file for pictures of which some were scaled down."""

import json
from collections.abc import Sequence
from typing import Any

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.pipeline.index import Entry


def rewritten(index: ImageIndex, entries: Sequence[Entry | None]) -> bytes:
    """``index`` as COCO-format JSON, boxes and areas of scaled pictures scaled too.

    A picture that was left as it is keeps its file, named by its whole path; the others are named
    by their copy. Image ids stay, since augmentation is drawn by them. Boxes are those of the
    file, not clipped, crowds and ignored ones included: read again, it gives the same boxes to
    learn from and the same classes. Masks are left out: the detector has no use for them, and they
    would no longer fit.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for position, entry in enumerate(entries):
        image_id = int(index.image_ids[position])
        file, scale = str(index.file(position).absolute()), (1.0, 1.0)
        width, height = int(index.widths[position]), int(index.heights[position])
        if entry is not None and entry.scaled:
            file, width, height = entry.copy, entry.kept_width, entry.kept_height
            scale = width / entry.width, height / entry.height
        images.append({"id": image_id, "file_name": file, "width": width, "height": height})
        for row in range(index.offsets[position], index.offsets[position + 1]):
            annotation = _annotation(index, row, scale)
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    content = {"images": images, "annotations": annotations, "categories": _categories(index)}
    return json.dumps(content).encode()


def _annotation(index: ImageIndex, row: int, scale: tuple[float, float]) -> dict[str, Any]:
    left, top, width, height = index.raw_boxes[row].tolist()
    x, y = scale
    annotation: dict[str, Any] = {
        "category_id": index.category_ids[index.labels[row] - 1],
        "bbox": [left * x, top * y, width * x, height * y],
        "area": float(index.areas[row]) * (x * y),
        "iscrowd": int(index.crowds[row]),
    }
    if not (index.learnable[row] or index.crowds[row]):
        annotation["ignore"] = 1
    return annotation


def _categories(index: ImageIndex) -> list[dict[str, Any]]:
    categories: list[dict[str, Any]] = [
        {"id": number, "name": name}
        for number, name in zip(index.category_ids, index.categories, strict=True)
    ]
    for number, name in index.headings.items():
        for category in categories:
            category.setdefault("supercategory", name)
        categories.insert(0, {"id": number, "name": name, "supercategory": "none"})
    return categories
