"""The configuration's keys as data: names, types in words, defaults, docstrings.

``--help`` lists them, and errors take the rule and the nearest valid key from here, so neither
repeats the schema.
"""

import difflib
import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from megdet_hvd.config.schema import Config, Section
from megdet_hvd.config.sections.section import InWords

_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}

_NAMES_ELSEWHERE = {
    "lr": "learning.base_rate",
    "base_lr": "learning.base_rate",
    "learning_rate": "learning.base_rate",
    "batch": "global_batch",
    "batch_size": "global_batch",
    "ims_per_batch": "global_batch",
    "max_iter": "learning.max_iterations",
    "max_epochs": "learning.epochs",
    "num_epochs": "learning.epochs",
    "num_workers": "data.workers",
    "output_dir": "output",
    "amp": "precision",
    "grad_clip": "learning.gradient_clip",
}
"""What other trainers call our settings."""


@dataclass(frozen=True)
class Key:
    """One setting."""

    path: str
    """Dotted name: ``learning.base_rate``."""
    kind: str
    """Type and limits in words: ``number > 0 or auto``."""
    default: Any
    """The schema's default as plain data; ``...`` where there is none."""
    doc: str
    """Its docstring."""


@dataclass(frozen=True)
class SettingGroup:
    """A section of the configuration with its settings; sections inside it are groups too."""

    path: str
    """Dotted name; empty for the top level."""
    doc: str
    keys: tuple[Key, ...]


@cache
def groups() -> tuple[SettingGroup, ...]:
    """All sections, each after the one that holds it."""
    return tuple(_walk(Config, ""))


@cache
def valid_keys() -> tuple[str, ...]:
    """Every dotted name that takes a value, sections left out."""
    return tuple(key.path for group in groups() for key in group.keys)


def _walk(section: type[Section], prefix: str) -> Iterator[SettingGroup]:
    keys, inner = [], []
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        if child := as_section(field.annotation):
            inner.append((child, f"{path}."))
        else:
            default = plain(field.default) if has_default(field) else ...
            keys.append(Key(path, describe(field), default, field.description or ""))
    yield SettingGroup(prefix[:-1], (section.__doc__ or "").strip(), tuple(keys))
    for child, child_prefix in inner:
        yield from _walk(child, child_prefix)


def has_default(field: FieldInfo) -> bool:
    """Whether the setting may be left out."""
    return field.default is not PydanticUndefined


def plain(value: Any) -> Any:
    """``value`` as JSON-like data: sections become mappings, tuples lists."""
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def as_typed(value: Any) -> str:
    """A setting's plain value as it can be typed behind a command: one word, YAML."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def prose(doc: str) -> str:
    """A setting's docstring on one line, with what YAML calls Python's None."""
    return re.sub(r"\bNone:", "``null``:", " ".join(doc.split()))


def as_section(annotation: Any) -> type[Section] | None:
    """The section class, where ``annotation`` is one."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def describe(annotation: Any) -> str:
    """What a value of this type must be, in words; takes a type or a pydantic field."""
    kind, limits = _unwrap(annotation)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is tuple:
        each = re.sub(r"^(whole )?number", r"\g<0>s", describe(arguments[0]))
        return f"list of {each}{_length(limits)}"
    if kind is type(None):
        return "null"
    if section := as_section(kind):
        names = ", ".join(f"{n}: {describe(f)}" for n, f in section.model_fields.items())
        return f"{{{names}}}"
    if "words" in limits:
        return str(limits["words"])
    bounds = [f"{_SIGNS[name]} {limits[name]:g}" for name in _SIGNS if name in limits]
    return " ".join([_WORDS[kind], " and ".join(bounds)]).strip()


def _unwrap(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """The bare type and its limits by name (gt, ge, lt, le, min_length, max_length, words)."""
    metadata: list[Any] = []
    while True:
        if isinstance(annotation, FieldInfo):
            metadata += annotation.metadata
            annotation = annotation.annotation
        elif get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            for item in more:
                metadata += item.metadata if isinstance(item, FieldInfo) else [item]
        else:
            break
    limits: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, InWords):
            limits["words"] = item.words
        for name in (*_SIGNS, "min_length", "max_length"):
            if getattr(item, name, None) is not None:
                limits[name] = getattr(item, name)
    return annotation, limits


def _length(limits: dict[str, Any]) -> str:
    least, most = limits.get("min_length"), limits.get("max_length")
    if least is not None and least == most:
        return f", {least} of them"
    return f", at least {least}" if least else ""


def is_text(annotation: Any) -> bool:
    """Whether the setting takes free text (``str``, or ``str`` and null)."""
    kind, _ = _unwrap(annotation)
    union = get_origin(kind) in (Union, types.UnionType)
    return kind is str or (union and any(_unwrap(one)[0] is str for one in get_args(kind)))


def choices(annotation: Any) -> list[str]:
    """The words a setting accepts: its literals, also as one branch of a union."""
    kind, _ = _unwrap(annotation)
    if get_origin(kind) is Literal:
        return [str(argument) for argument in get_args(kind)]
    if get_origin(kind) in (Union, types.UnionType):
        return [word for argument in get_args(kind) for word in choices(argument)]
    return []


@dataclass(frozen=True)
class SettingPlace:
    """Where a path of names and list positions leads in the schema."""

    path: str
    """As a user writes it: ``data.train.0.images``."""
    annotation: Any
    """The setting's pydantic field, or the type of a list's items with its limits; None where
    the path leads nowhere."""

    @property
    def kind(self) -> Any:
        """The bare type, without limits."""
        return _unwrap(self.annotation)[0]

    @property
    def default(self) -> Any:
        """The schema's default as plain data; ``...`` where there is none."""
        field = self.annotation
        return plain(field.default) if isinstance(field, FieldInfo) and has_default(field) else ...


def locate(parts: tuple[str | int, ...]) -> SettingPlace:
    """Follow names and list positions from the top of the schema.

    Stops at a setting's own value: pydantic appends the tried branch of a union to its
    locations, which is no key.
    """
    annotation: Any = Config
    walked: list[str] = []
    for position, part in enumerate(parts):
        kind = _unwrap(annotation)[0]
        if section := as_section(kind):
            if part not in section.model_fields:
                unknown = [*walked, *map(str, parts[position:])]
                return SettingPlace(".".join(unknown), None)
            annotation = section.model_fields[str(part)]
        elif get_origin(kind) is tuple and isinstance(part, int):
            annotation = get_args(kind)[0]
        else:
            break
        walked.append(str(part))
    return SettingPlace(".".join(walked), annotation)


def nearest_keys(path: str, count: int = 3) -> list[str]:
    """The valid keys most like ``path``, best first; a right leaf in a wrong section counts."""
    leaf = path.rpartition(".")[2]

    def likeness(valid: str) -> float:
        whole = difflib.SequenceMatcher(None, path, valid).ratio()
        leaves = difflib.SequenceMatcher(None, leaf, valid.rpartition(".")[2]).ratio()
        return max(whole, 0.99 * leaves) + 0.01 * whole

    ranked = sorted(valid_keys(), key=likeness, reverse=True)
    good = [key for key in ranked if likeness(key) >= 0.6] or ranked
    known = _NAMES_ELSEWHERE.get(leaf.lower())
    return ([known] if known else good)[:count]
