"""YAML as people expect it: plain text to plain values and back.

PyYAML speaks YAML 1.1, where ``1e-4`` is text, ``on`` and ``no`` are booleans, ``010`` is 8,
``1:30`` is 90 and ``2026-01-01`` is a date. Here plain words mean what YAML 1.2 says: ``true``
and ``false`` are the booleans and ``1e-4`` is a number. A key given twice is an error, where
PyYAML takes the last.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_PLAIN_TYPES: tuple[tuple[str, str, str], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|None|", "~nN"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
)


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader with the plain types above and no repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is not a name", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key_node.value!r} stands here twice, first in line "
                    f"{seen[key_node.value].line + 1}; keep one",
                    key_node.start_mark,
                )
            seen[key_node.value] = key_node.start_mark
        return super().construct_mapping(node, deep)

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        return int(node.value)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes text which the loader would take for a number or null."""


_UniqueKeyLoader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _name, _pattern, _first in _PLAIN_TYPES:
    for _class in (_UniqueKeyLoader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), [*_first, ""]
        )
_UniqueKeyLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _UniqueKeyLoader.construct_decimal)


def parse_yaml(text: str) -> Any:
    """Plain values: mappings with text keys, lists, text, numbers, booleans, None.

    Raises:
        yaml.YAMLError: ``text`` is not YAML, repeats a key, or asks for Python objects.
    """
    return yaml.load(text, _UniqueKeyLoader)


def dump_yaml(value: Any) -> str:
    """YAML text that ``parse_yaml`` reads back to the same value, keys in the order given."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def yaml_problem(error: yaml.YAMLError) -> str:
    """One line: what is wrong, and in which line and column."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)
