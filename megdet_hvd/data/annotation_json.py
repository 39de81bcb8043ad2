"""An annotation file's JSON: read, lightened, and told from the other files people give for one."""

import codecs
import json
from pathlib import Path
from typing import Any

from megdet_hvd.data.formats import LFS_POINTER
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, is_transient, retried

LISTS = ("images", "annotations", "categories")
_HEAVY = ("segmentation", "keypoints", "caption")
_PACKED = ((b"\x1f\x8b", "gzip", "gunzip"), (b"PK\x03\x04", "zip", "unzip"))


def annotation_bytes(path: Path) -> bytes:
    """The bytes of an annotation file.

    Raises:
        UserError: it is missing, or can't be read.
        StorageError: it can't be read at the moment.
    """
    try:
        return retried(path.read_bytes)
    except FileNotFoundError:
        raise UserError(
            f"annotation file {path} does not exist; give the path of a COCO-format JSON file "
            f"(data.train / data.val, key annotations)"
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"annotation file {path} is a folder; give the path of the JSON file in it"
        ) from None
    except OSError as error:
        if is_transient(error):
            raise cannot_read(f"annotation file {path}", error) from error
        raise UserError(
            f"annotation file {path} cannot be read: {error.strerror or error}"
        ) from None


def content_of(text: bytes, path: Path) -> dict[str, Any]:
    """A file's content with lists of objects under ``images``, ``annotations``, ``categories``.

    Without ``annotations``, as test sets are published, that list is absent. Outlines, keypoints
    and captions of the entries are replaced by True, since they are nine tenths of the file.

    Args:
        text: of the file.
        path: for messages.

    Raises:
        UserError: it is not JSON, or not COCO format.
    """
    content = _parse(path, text)
    if not isinstance(content, dict):
        raise UserError(
            f"annotation file {path} is not COCO format: its top level is {_top_level(content)}, "
            f"and must be an object with the keys {', '.join(LISTS)}"
        )
    missing = [key for key in LISTS if key not in content and key != "annotations"]
    if missing:
        found = ", ".join(sorted(content)) or "none"
        raise UserError(
            f"annotation file {path} is not COCO format: missing "
            f"{', '.join(key for key in LISTS if key not in content)} "
            f"(keys found: {found}){_other_kind(content)}; it needs {', '.join(LISTS)}"
        )
    for key in LISTS:
        entries = content.get(key, [])
        if not isinstance(entries, list) or any(not isinstance(e, dict) for e in entries):
            raise UserError(
                f"annotation file {path} is not COCO format: {key} must be a list of objects"
            )
    other = _other_kind(content)
    if other:
        raise UserError(f"annotation file {path} has no boxes{other}; give the instances file")
    if not content["categories"]:
        raise UserError(f"annotation file {path} declares no categories; at least one is needed")
    return content


def is_annotations(path: Path) -> bool:
    """Whether a JSON file beside others is meant as annotations of boxes.

    A file that can't be read or parsed counts, so that its reader can say what is wrong with it.
    """
    try:
        content = _parse(path, annotation_bytes(path))
    except UserError:
        return True
    return isinstance(content, dict) and "images" in content and not _other_kind(content)


def _lighten(entry: dict[str, Any]) -> dict[str, Any]:
    # Letting go of each outline as it is parsed keeps the peak near the size of the text.
    for key in _HEAVY:
        if key in entry:
            entry[key] = entry[key] is not None
    return entry


def _parse(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text, object_hook=_lighten)
    except RecursionError:
        problem = "it is nested too deeply"
    except UnicodeDecodeError as error:
        problem = _packed(text) or f"its text is not UTF-8 ({error}); save it as UTF-8"
    except ValueError as error:
        problem = _packed(text) or str(error)
        if "Extra data" in problem and _is_lines(text):
            problem = f"it has one JSON value a line (JSON Lines): {problem}"
    raise UserError(
        f"annotation file {path} is not JSON: {problem}; a COCO-format JSON file is needed"
    ) from None


def _packed(text: bytes) -> str | None:
    """What a file is that isn't JSON, where its beginning says so."""
    for mark, name, tool in _PACKED:
        if text.startswith(mark):
            return f"it is packed with {name}; unpack it first ({tool})"
    if text.startswith(LFS_POINTER):
        return "it is a git-LFS pointer, not the file itself; fetch that with `git lfs pull`"
    start = text.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        return "it is empty"
    if start.startswith(b"<"):
        return "it is a web page or XML"
    return None


def _is_lines(text: bytes) -> bool:
    try:
        first, second = text.strip().split(b"\n", 2)[:2]
        return all(isinstance(json.loads(line), dict | list) for line in (first, second))
    except (ValueError, RecursionError):
        return False


def _top_level(content: Any) -> str:
    if not isinstance(content, list):
        return type(content).__name__
    first = content[0] if content and isinstance(content[0], dict) else {}
    if "score" in first and "image_id" in first:
        return "a list (of detections: a results file)"
    return "a list"


def _other_kind(content: dict[str, Any]) -> str:
    """What kind of file it is, where its annotations show another than boxes; else empty."""
    annotations = content.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    if not isinstance(first, dict) or "bbox" in first:
        return ""
    if "segments_info" in first:
        return ": it is a panoptic file"
    if "caption" in first:
        return ": it is a captions file"
    return ""
