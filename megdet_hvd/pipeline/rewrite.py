"""An annotation file for pictures of which some were scaled down."""

import json
from collections.abc import Sequence

import numpy as np

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.pipeline.index import Entry


def rewritten(index: ImageIndex, entries: Sequence[Entry | None]) -> bytes:
    """``index`` as COCO-format JSON, boxes and areas of scaled pictures scaled too.

    A picture that was left as it is keeps its file, named by its whole path; the others are named
    by their copy. Image ids stay, since augmentation is drawn by them. Masks are left out: the
    detector has no use for them, and they would no longer fit.
    """
    content = index.ground_truth()  # numbers pictures by position
    factors = np.ones((len(index), 2))
    for position, (image, entry) in enumerate(zip(content["images"], entries, strict=True)):
        image["id"] = int(index.image_ids[position])
        if entry is None or not entry.scaled:
            image["file_name"] = str(index.file(position).absolute())
            continue
        image["file_name"] = entry.copy
        image["width"], image["height"] = entry.kept_width, entry.kept_height
        factors[position] = entry.kept_width / entry.width, entry.kept_height / entry.height
    for annotation in content["annotations"]:
        position = annotation["image_id"]
        annotation["image_id"] = int(index.image_ids[position])
        x, y = factors[position].tolist()
        if (x, y) != (1.0, 1.0):
            left, top, width, height = annotation["bbox"]
            annotation["bbox"] = [left * x, top * y, width * x, height * y]
            annotation["area"] *= x * y
    return json.dumps(content).encode()
