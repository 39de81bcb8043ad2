"""Annotation files damaged and dressed up at random, drawn by a seed."""

import copy
import gzip
import json
import math
import random
from collections.abc import Callable
from typing import Any

Content = dict[str, Any]

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 1.0, 2.0, 2.5, "", "1", "2", "2.0", " 3 ", "x", [], {}, [1, 2],
    {"a": 1}, 2**31, 2**63, 2**64 + 1, -(2**63) - 1, 10**30, 1e308, -0.0, math.nan, math.inf,
    -math.inf, 10**400, "\ud800", "a\0b", "a\nb", "é" * 300, [[1, 2, 3, 4]], "nan", "1e999",
)  # fmt: skip
"""Values that JSON can hold where a number or a name is meant."""

KEYS = {
    "images": ("id", "file_name", "width", "height", "coco_url", "license"),
    "annotations": (
        "id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "difficult",
        "segmentation",
    ),
    "categories": ("id", "name", "supercategory"),
}  # fmt: skip


def plain(draw: random.Random, pictures: list[str], width: int, height: int) -> Content:
    """A right file for pictures of one size, 0–5 boxes each."""
    images = [
        {"id": 10 + 3 * k, "file_name": name, "width": width, "height": height}
        for k, name in enumerate(pictures)
    ]
    annotations: list[Any] = []
    for image in images:
        for _ in range(draw.randrange(6)):
            w, h = draw.uniform(5, width / 2), draw.uniform(5, height / 2)
            x, y = draw.uniform(0, width - w), draw.uniform(0, height - h)
            annotations.append(
                {
                    "id": 100 + len(annotations),
                    "image_id": image["id"],
                    "category_id": draw.choice((1, 4, 6)),
                    "bbox": [round(value, 2) for value in (x, y, w, h)],
                    "area": round(w * h * draw.uniform(0.4, 1), 2),
                    "iscrowd": int(draw.random() < 0.1),
                }
            )
    categories = [{"id": k, "name": f"class {k}", "supercategory": "none"} for k in (1, 4, 6)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _entry(content: Content, draw: random.Random) -> tuple[str, Any]:
    name = draw.choice([key for key in KEYS if content.get(key)] or ["images"])
    entries = content.get(name) or [{}]
    return name, draw.choice(entries)


def _value(content: Content, draw: random.Random) -> None:
    name, entry = _entry(content, draw)
    entry[draw.choice(KEYS[name])] = copy.deepcopy(draw.choice(ODD))


def _everywhere(content: Content, draw: random.Random) -> None:
    name = draw.choice(list(KEYS))
    key, value = draw.choice(KEYS[name]), draw.choice(ODD)
    for entry in content[name]:
        entry[key] = copy.deepcopy(value)


def _missing(content: Content, draw: random.Random) -> None:
    name, entry = _entry(content, draw)
    key = draw.choice(KEYS[name])
    for one in content[name] if draw.random() < 0.5 else [entry]:
        one.pop(key, None)


def _box(content: Content, draw: random.Random) -> None:
    entries = [entry for entry in content["annotations"] if isinstance(entry.get("bbox"), list)]
    if not entries:
        return
    box = draw.choice(entries)["bbox"]
    if draw.random() < 0.2:
        box[:] = [*box, 5] if draw.random() < 0.5 else box[:-1]
    elif box:
        box[draw.randrange(len(box))] = copy.deepcopy(draw.choice([*ODD, "12.5", "7", -3, 500]))


def _dress(content: Content, draw: random.Random) -> None:
    dresses: list[Callable[[Any], Any]] = [
        str,
        float,
        lambda v: f"frame_{v}",
        lambda v: v + 2**63,
        lambda v: v - 1000,
        lambda v: v / 8,
    ]
    dress = draw.choice(dresses)
    what = draw.choice(("image", "category", "annotation", "sizes", "boxes"))
    try:
        if what == "sizes":
            for entry in content["images"]:
                entry["width"], entry["height"] = float(entry["width"]), str(entry["height"])
        elif what == "boxes":
            for entry in content["annotations"]:
                entry["bbox"] = [str(value) for value in entry["bbox"]]
        else:
            key = "images" if what == "image" else f"{what[:-1]}ies" if what == "category" else ""
            for entry in content[key or "annotations"]:
                entry["id"] = dress(entry["id"])
            for entry in content["annotations"] if key else []:
                entry[f"{what}_id"] = dress(entry[f"{what}_id"])
    except (TypeError, ValueError, KeyError, OverflowError):
        pass  # of what was damaged before


def _reference(content: Content, draw: random.Random) -> None:
    entry = draw.choice(content["annotations"] or [{}])
    key = draw.choice(("image_id", "category_id"))
    value = entry.get(key)
    entry[key] = draw.choice([str(value), 77, value])


def _twice(content: Content, draw: random.Random) -> None:
    name, entry = _entry(content, draw)
    again = copy.deepcopy(entry)
    if draw.random() < 0.4:
        again[draw.choice(KEYS[name])] = copy.deepcopy(draw.choice(ODD))
    content[name].append(again)


def _spelling(content: Content, draw: random.Random) -> None:
    spell: Callable[[str], str] = draw.choice(
        [
            str.upper,
            lambda n: f"./{n}",
            lambda n: f"../images/{n}",
            lambda n: f"images\\{n}",
            lambda n: f"http://host/a/{n}?x=1",
            lambda n: f"C:\\data\\images\\{n}",
            lambda n: f" {n} ",
            lambda n: n.replace(".", "%2E"),
            lambda n: f"/nowhere/{n}",
        ]
    )
    for entry in content["images"]:
        if isinstance(entry.get("file_name"), str):
            entry["file_name"] = spell(entry["file_name"])


def _heading(content: Content, draw: random.Random) -> None:
    name = draw.choice(("class 1", "things"))
    for entry in content["categories"]:
        entry["supercategory"] = name
    content["categories"].insert(0, {"id": 0, "name": name, "supercategory": "none"})


def _shape(content: Content, draw: random.Random) -> None:
    name = draw.choice(list(KEYS))
    kind = draw.randrange(4)
    if kind == 0:
        content.pop(name)
    elif kind == 1:
        content[name] = copy.deepcopy(draw.choice(ODD))
    elif kind == 2:
        content[name] = []
    else:
        content[name].append(copy.deepcopy(draw.choice(ODD)))


_MUTATIONS = (
    (_value, 6), (_everywhere, 3), (_missing, 3), (_box, 4), (_dress, 5), (_reference, 3),
    (_twice, 3), (_spelling, 2), (_heading, 1), (_shape, 1),
)  # fmt: skip


def _truncated(text: bytes, draw: random.Random) -> bytes:
    return text[: draw.randrange(len(text))]


def _flipped(text: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(text)
    for _ in range(draw.randrange(1, 4)):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _truncated,
    _flipped,
    _flipped,
    lambda text, _: text.decode().encode("utf-16"),
    lambda text, _: text.decode().encode("utf-8-sig"),
    lambda text, _: text.decode().encode("utf-32-le"),
    lambda text, _: gzip.compress(text),
    lambda text, _: b"[" * 100_000 + text,
    lambda text, _: text + b"\n" + text,
    lambda text, _: b"[" + text + b"]",
)


def mutated(seed: int, pictures: list[str], width: int, height: int) -> bytes:
    """The bytes of a file with one to three faults or oddities."""
    draw = random.Random(seed)
    content = plain(draw, pictures, width, height)
    tools = [tool for tool, _ in _MUTATIONS]
    weights = [weight for _, weight in _MUTATIONS]
    for _ in range(draw.choice((1, 1, 2, 3))):
        try:
            draw.choices(tools, weights)[0](content, draw)
        except (AttributeError, KeyError, TypeError):
            continue  # no place for it after the one before
    text = json.dumps(content).encode()
    return draw.choice(_BYTES)(text, draw) if draw.random() < 0.12 else text
