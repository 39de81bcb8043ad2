"""Where things lie in a COCO-format folder."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megdet_hvd.data.source import Source
from megdet_hvd.errors import UserError
from megdet_hvd.storage import retried


def find_sources(paths: Sequence[Path], images: Sequence[Path]) -> list[Source]:
    """Annotation files and picture folders behind what a user names.

    Args:
        paths: annotation files, or folders: ``annotations/instances_*.json``, else any JSON in
            ``annotations/`` or beside, else ``*/_annotations.coco.json``.
        images: one picture folder for all, or one per annotation file, or none: then the
            folder is looked for near the annotation file, under the usual names.

    Raises:
        UserError: nothing there, or the picture folders cannot be found or paired.
    """
    files = [file for path in paths for file in _annotation_files(path)]
    if len(images) not in (0, 1, len(files)):
        raise UserError(
            f"--images was given {len(images)} times for {len(files)} annotation files; give it "
            f"once for all, or once per file in the same order"
        )
    for folder in images:
        if not folder.is_dir():
            raise UserError(f"--images {folder} is not a folder")
    if images:
        folders = list(images) * (len(files) if len(images) == 1 else 1)
    else:
        folders = [_picture_folder(file) for file in files]
    return [Source(a, b) for a, b in zip(files, folders, strict=True)]


def _annotation_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise UserError(f"{path} does not exist; give annotation files or a COCO-format folder")
    for pattern in (
        "annotations/instances_*.json",
        "annotations/*.json",
        "*.json",
        "*/_annotations.coco.json",
    ):
        found = sorted(file for file in path.glob(pattern) if file.is_file())
        if found:
            return found
    raise UserError(
        f"no annotation file in {path}; looked for annotations/*.json, *.json and "
        f"*/_annotations.coco.json; name the file itself"
    )


def _picture_folder(file: Path) -> Path:
    """The folder in which an annotation file's first picture lies."""
    first = _first_picture(file)
    split = file.stem.split("_", 1)[-1]  # instances_train2017 -> train2017
    tried = []
    for root in (file.parent.parent, file.parent):
        for name in (split, f"images/{split}", file.stem, f"images/{file.stem}", "images", "."):
            folder = Path(os.path.normpath(root / name))
            if first is None:
                if folder.is_dir():
                    return folder
            elif (folder / first).is_file():
                return folder
            tried.append(str(folder))
    raise UserError(
        f"the picture folder of {file} was not found: {first or 'no picture'} is in none of "
        f"{', '.join(tried[:6])}; give it with --images FOLDER"
    )


def _first_picture(file: Path) -> str | None:
    try:
        content: Any = json.loads(retried(file.read_bytes))
        return str(content["images"][0]["file_name"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # what is wrong with the file is for its reader to say
