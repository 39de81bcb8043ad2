"""A made-up annotation file as large as COCO's, with a file for each picture."""

import json
from pathlib import Path

import numpy as np

from megdet_hvd.data.source import PictureSource

CATEGORIES = 80
CORNERS = 16
"""Of an outline, as many as make an entry as long as COCO's in the mean."""
_PIECE = 10_000


def make_set(folder: Path, images: int, boxes: int) -> PictureSource:
    """Write ``set.json`` and an empty file for each picture. Seeded.

    Args:
        folder: is there.
        images: pictures, of 640×480 pixels.
        boxes: each with an outline, as COCO's instances have it.
    """
    random = np.random.default_rng(0)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(1, images + 1):
        (pictures / _name(number)).touch()
    file = folder / "set.json"
    with file.open("w", encoding="utf-8") as out:
        categories = [
            {"supercategory": f"kind {k % 12}", "id": k, "name": f"class {k}"}
            for k in range(1, CATEGORIES + 1)
        ]
        out.write(
            f'{{"info": {{"year": 2017}}, "categories": {json.dumps(categories)}, "images": ['
        )
        out.write(", ".join(_image(number) for number in range(1, images + 1)))
        out.write('], "annotations": [')
        for first in range(0, boxes, _PIECE):
            count = min(_PIECE, boxes - first)
            owners = random.integers(1, images + 1, count).tolist()
            labels = random.integers(1, CATEGORIES + 1, count).tolist()
            corners = random.uniform(0, 300, (count, 2)).round(2).tolist()
            sizes = random.uniform(2, 180, (count, 2)).round(2).tolist()
            outlines = random.uniform(0, 480, (count, 2 * CORNERS)).round(2).tolist()
            entries = (
                f'{{"segmentation": [{outlines[k]}], "area": {sizes[k][0] * sizes[k][1]:.4f}, '
                f'"iscrowd": {int(k % 97 == 0)}, "image_id": {owners[k]}, '
                f'"bbox": {[*corners[k], *sizes[k]]}, "category_id": {labels[k]}, '
                f'"id": {first + k + 1}}}'
                for k in range(count)
            )
            out.write((", " if first else "") + ", ".join(entries))
        out.write("]}")
    return PictureSource(file, pictures)


def _name(number: int) -> str:
    return f"{number:012d}.jpg"


def _image(number: int) -> str:
    return json.dumps(
        {
            "license": 3,
            "file_name": _name(number),
            "coco_url": f"http://images.cocodataset.org/train2017/{_name(number)}",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": f"http://farm7.staticflickr.com/6116/{number:010d}_e4b5a1b1a2_z.jpg",
            "id": number,
        }
    )
