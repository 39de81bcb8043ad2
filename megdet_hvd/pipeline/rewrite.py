"""An annotation file for pictures of which some were scaled down."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megdet_hvd.data.source import Source
from megdet_hvd.pipeline.index import Entry
from megdet_hvd.pipeline.picture import scaled_name
from megdet_hvd.storage import retried, temporary_beside


def rewrite(source: Source, entries: Mapping[str, Entry], out: Path) -> None:
    """Write ``source``'s annotations to ``out``, boxes and areas of scaled pictures scaled too.

    A picture that was left as it is keeps its file, named by its whole path. Masks are left out:
    the detector has no use for them, and they would no longer fit.

    Raises:
        OSError: the file can't be written.
    """
    content: dict[str, Any] = json.loads(retried(source.annotations.read_bytes))
    factors: dict[Any, tuple[float, float]] = {}
    for image in content["images"]:
        entry = entries.get(str(image.get("file_name")))
        if entry is None or not entry.scaled:
            image["file_name"] = str((source.images / str(image["file_name"])).absolute())
            continue
        image["file_name"] = scaled_name(image["file_name"])
        factors[image["id"]] = entry.kept_width / entry.width, entry.kept_height / entry.height
        image["width"], image["height"] = entry.kept_width, entry.kept_height
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
        x, y = factors.get(annotation.get("image_id"), (1.0, 1.0))
        if (x, y) != (1.0, 1.0):
            left, top, width, height = annotation["bbox"]
            annotation["bbox"] = [left * x, top * y, width * x, height * y]
            if isinstance(annotation.get("area"), int | float):
                annotation["area"] *= x * y
    temporary = temporary_beside(out)
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(out)
