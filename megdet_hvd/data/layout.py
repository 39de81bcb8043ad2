"""Where things lie in a COCO-format folder."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from megdet_hvd.data.annotation_json import is_annotations
from megdet_hvd.data.first_names import first_names
from megdet_hvd.data.picture_files import PictureFolder
from megdet_hvd.data.source import PictureSource
from megdet_hvd.errors import UserError

_FIRST = 20
"""Pictures of an annotation file that are looked for; some may be missing."""


def find_sources(
    paths: Sequence[Path],
    images: Sequence[Path],
    say: Callable[[str], None] = lambda line: None,
) -> list[PictureSource]:
    """Annotation files and picture folders behind what a user names.

    Args:
        paths: annotation files, or folders: ``annotations/instances_*.json``, else any JSON in
            ``annotations/`` or beside, else ``*/_annotations.coco.json``. Other JSON files among
            several in a folder (exports of other kinds, results) are left out.
        images: one picture folder for all, or one per annotation file, or none: then the
            folder is looked for near the annotation file, under the usual names.
        say: told what was left out.

    Raises:
        UserError: nothing there, or the picture folders cannot be found or paired.
        StorageError: a file or folder can't be read at the moment.
    """
    files = [file for path in paths for file in _annotation_files(path, say)]
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
    return [PictureSource(a, b) for a, b in zip(files, folders, strict=True)]


def _annotation_files(path: Path, say: Callable[[str], None]) -> list[Path]:
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
        found = sorted(
            file  # a Mac's ._train.json is none
            for file in path.glob(pattern)
            if file.is_file() and not file.name.startswith(".")
        )
        if not found:
            continue
        meant = found if len(found) == 1 else [file for file in found if is_annotations(file)]
        for file in found:
            if meant and file not in meant:
                say(f"{file} holds no boxes in COCO format and is left out")
        return meant or found
    raise UserError(
        f"no annotation file in {path}; looked for annotations/*.json, *.json and "
        f"*/_annotations.coco.json; name the file itself"
    )


def _picture_folder(file: Path) -> Path:
    """The folder in which one of an annotation file's first pictures lies."""
    try:
        names = first_names(file, _FIRST)
    except (OSError, UserError):
        names = []  # what is wrong with the file is for its reader to say
    split = file.stem.split("_", 1)[-1]  # instances_train2017 -> train2017
    below = (split, f"images/{split}", file.stem, f"images/{file.stem}", "images", ".")
    tried = dict.fromkeys(
        os.path.normpath(root / name)
        for root in (file.parent / "..", file.parent)
        for name in below
    )
    for folder in map(Path, tried):
        if folder.is_dir():
            pictures = PictureFolder(folder)
            if not names or any(pictures.find(first) is not None for first in names):
                return folder
    first = names[0] if names else "no picture"
    raise UserError(
        f"the picture folder of {file} was not found: {first} is in none of "
        f"{', '.join(tried)}; give it with --images FOLDER, or correct its file_name"
    )
