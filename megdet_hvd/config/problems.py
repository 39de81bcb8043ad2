"""pydantic's complaints in the words of a user's YAML: key, value, rule, fix."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from megdet_hvd.config.keys import SettingPlace, as_section, choices, describe, locate, nearest_keys
from megdet_hvd.config.yaml_text import parse_yaml
from megdet_hvd.errors import UserError

_YES_NO = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def as_user_error(
    error: ValidationError, origin: str, defaults: Mapping[str, Any] | None = None
) -> UserError:
    """One error that lists every wrong setting once.

    Args:
        error: what pydantic says.
        origin: where they were read.
        defaults: of settings that have another one there than in the schema, as a tree.
    """
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        place = locate(detail["loc"])
        lines.setdefault(place.path or detail["msg"], _line(detail, place, defaults or {}))
    head = "1 setting is" if len(lines) == 1 else f"{len(lines)} settings are"
    return UserError("\n".join([f"{origin}: {head} wrong", *(f"  {x}" for x in lines.values())]))


def _line(detail: ErrorDetails, place: SettingPlace, defaults: Mapping[str, Any]) -> str:
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return unknown_key(place.path)
    if section := as_section(place.kind):
        return (
            f"{place.path}={shown(detail['input'])}: must be a group of settings; "
            f"its keys are {', '.join(section.model_fields)}"
        )
    rule = re.sub(r"^(whole |number|list)", r"a \1", describe(place.annotation))
    if detail["type"] == "missing":
        return f"{place.path} is missing: give {rule}"
    fix = _fix(detail["input"], place, defaults)
    return f"{place.path}={shown(detail['input'])}: must be {rule}; {fix}"


def unknown_key(path: str) -> str:
    """The line for a key that is not there."""
    return f"{path}: no such key; nearest: {', '.join(nearest_keys(path))}"


def shown(value: Any) -> str:
    """A value as YAML would have it on one line, shortened."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _fix(value: Any, place: SettingPlace, defaults: Mapping[str, Any]) -> str:
    words = choices(place.annotation)
    if isinstance(value, str):
        near = difflib.get_close_matches(value.lower(), words, n=1, cutoff=0.5)
        if near:
            return f"try {near[0]}"
        if place.kind is bool and value.lower() in _YES_NO:
            return f"try {_YES_NO[value.lower()]}"
        if isinstance(parse_yaml(value), int | float):
            return f"take the quotes away: {value}"
    if (
        isinstance(value, float)
        and value.is_integer()
        and "whole number" in describe(place.annotation)
    ):
        return f"try {int(value)}"
    if place.kind is str:
        return f'put it in quotes: "{shown(value)}"'
    default = _at(defaults, place.path)
    default = place.default if default is None else default
    if default is not ...:
        return f"the default is {shown(default)}"
    return "change it or take it out"


def _at(tree: Mapping[str, Any], path: str) -> Any:
    """The value at ``section.key``; None: there is none."""
    found: Any = tree
    for word in path.split("."):
        found = found.get(word) if isinstance(found, Mapping) else None
    return found
