"""Detections as standard COCO results JSON, with the data set's own image and category ids."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.checkpoint.atomic import cannot_write, write_bytes
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.boxes import FoundBoxes
from megdet_hvd.evaluation.numbering import Numbering


def coco_results(numbering: Numbering, found: FoundBoxes) -> list[list[dict[str, Any]]]:
    """One list of results per annotation file, since image ids are a file's own.

    Each entry has ``image_id``, ``category_id``, ``bbox`` (x y w h, pixels of the original
    picture) and ``score``; ``COCO(annotations).loadRes`` takes it.
    """
    index = numbering.index
    results: list[list[dict[str, Any]]] = [[] for _ in index.annotation_files]
    columns = zip(found.owners, found.labels, found.boxes, found.scores, strict=True)
    for owner, label, box, score in columns:
        position = numbering.positions[owner]
        results[index.sources[position]].append(
            {
                "image_id": index.original_id(position),
                "category_id": index.category_ids[label - 1],
                "bbox": box.tolist(),
                "score": float(score),
            }
        )
    return results


def result_files(path: Path, files: Sequence[Path]) -> list[Path]:
    """The results file of each annotation file: ``path`` for one, ``…_1``, ``…_2`` for several.

    Raises:
        UserError: one is a folder, can't be written, or is one of the annotation files.
    """
    outs = [path]
    if len(files) > 1:
        outs = [path.with_name(f"{path.stem}_{k + 1}{path.suffix}") for k in range(len(files))]
    truth = {os.path.realpath(file) for file in files}
    for out in outs:
        if os.path.realpath(out) in truth:
            raise UserError(f"{out} is an annotation file; choose another file for the results")
        if out.is_dir():
            raise UserError(f"{out} is a folder; give the file for the results: {out}/results.json")
        above = next(parent for parent in out.absolute().parents if parent.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise UserError(
                f"{out}: {above} is no folder that can be written to; choose another file for the "
                "results"
            )
    return outs


def write_results(path: Path, numbering: Numbering, found: FoundBoxes) -> list[tuple[Path, Path]]:
    """Write the results; see `result_files`.

    Returns:
        (annotation file, its results file) for each.

    Raises:
        UserError: a file can't be written, or as there.
    """
    lists = coco_results(numbering, found)
    files = numbering.index.annotation_files
    outs = result_files(path, files)
    written = []
    for k, (file, out) in enumerate(zip(files, outs, strict=True)):
        try:
            write_bytes(out, json.dumps(lists[k]).encode())
        except OSError as error:
            raise cannot_write(out, error) from error
        written.append((file, out))
    return written
