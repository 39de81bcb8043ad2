"""From YAML and ``key.sub=value`` to a checked configuration, and back.

A file may name another one to start from, ``base: coco_base.yaml`` (relative to the file); its
own keys then win, group by group, and lists are replaced whole. The resolved configuration
written into the run folder has no base.
"""

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from megdet_hvd.config.embedded import EMBEDDED
from megdet_hvd.config.keys import is_text, locate
from megdet_hvd.config.problems import as_user_error, unknown_key
from megdet_hvd.config.schema import Config
from megdet_hvd.config.yaml_text import dump_yaml, parse_yaml, yaml_problem
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, is_transient, retried


def load_config(file: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration of ``file`` (None: the embedded default) with ``overrides`` on top.

    Args:
        file: a YAML file; keys it leaves out take the schema's defaults.
        overrides: ``key.sub=value`` each, the value as YAML. ``data.train.0.images=…`` reaches
            into a list, and a group as value (``model={norm: bn}``) is merged. Later ones win.

    Raises:
        UserError: a file that can't be read, or one listing of every wrong setting.
    """
    tree = copy.deepcopy(EMBEDDED) if file is None else _read(file, ())
    own = EMBEDDED if file is None else None
    return _checked(_overridden(tree, overrides), _origin(file, overrides), own)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """``config`` with ``overrides`` on top, checked again. Raises UserError."""
    return _checked(_overridden(config_to_dict(config), overrides), "the command line")


def sets(overrides: Collection[str], key: str, config: Config) -> bool:
    """Whether ``key.sub=value`` words give ``key`` (``section.name``) a value, old or new."""
    tree = config_to_dict(config)
    section, _, name = key.partition(".")
    del tree[section][name]
    return name in _overridden(tree, list(overrides))[section]


def to_yaml(config: Config) -> str:
    """The resolved configuration, every key of it; ``load_config`` reads it back as equal."""
    return dump_yaml(config_to_dict(config))


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain data, as JSON has it."""
    return config.model_dump(mode="json")


def config_from_dict(tree: Mapping[str, Any], origin: str = "the stored configuration") -> Config:
    """The inverse of ``config_to_dict``. ``origin`` begins the message of a UserError."""
    return _checked(dict(tree), origin)


def _checked(
    tree: dict[str, Any], origin: str, defaults: Mapping[str, Any] | None = None
) -> Config:
    # JSON's strict mode is the right strictness for YAML: a list is a tuple and 1 is 1.0, but
    # true is not 1, "16" is not 16 and 16.5 is no whole number.
    try:
        text = json.dumps(tree, default=str)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin}: values contain themselves ({error})") from None
    try:
        return Config.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise as_user_error(error, origin, defaults) from None


def _origin(file: Path | None, overrides: Sequence[str]) -> str:
    source = "the embedded default" if file is None else str(file)
    return f"{source} with {' '.join(overrides)}" if overrides else source


def _read(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The settings of ``file`` merged over those of its bases."""
    tree = _parse_file(file)
    if "base" not in tree:
        return tree
    base = tree.pop("base")
    if not isinstance(base, str) or not base:
        raise UserError(f"{file}: base={base!r} must be the name of a YAML file")
    chain = (*above, file.resolve())
    next_file = file.parent / base
    if next_file.resolve() in chain:
        names = " → ".join(path.name for path in (*chain, next_file))
        raise UserError(f"{file}: the bases go round in a circle ({names}); take one out")
    return _merged(_read(next_file, chain), tree)


def _parse_file(file: Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(retried(lambda: file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{file}: no such configuration file{_neighbours(file)}") from None
    except OSError as error:
        if is_transient(error):
            raise cannot_read(file, error) from None
        raise UserError(f"{file}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a text file (UTF-8); a configuration is YAML") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {yaml_problem(error)}") from None
    if tree is None:
        raise UserError(f"{file}: has no settings; give at least one, such as global_batch: 16")
    if not isinstance(tree, dict):
        raise UserError(
            f"{file}: the top level must be a mapping (key: value), not a {type(tree).__name__}"
        )
    return tree


def _neighbours(file: Path) -> str:
    names = sorted(path.name for path in file.parent.glob("*.yaml")) if file.parent else []
    return f"; {file.parent} has {', '.join(names)}" if names else ""


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``: groups key by key, all else replaced. Changes neither."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        groups = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(old, value) if groups else value  # type: ignore[arg-type]
    return result


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    result = copy.deepcopy(tree)
    problems = []
    for text in overrides:
        try:
            _set(result, text)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return result


def _instead(text: str) -> str:
    """What the user may have meant by a word that is no setting."""
    if text.endswith((".yaml", ".yml")):
        return f"and a configuration file is given by --config {text}"
    if text.startswith("="):
        return "without blanks around ="
    return "such as learning.rate=0.01"


def _set(tree: dict[str, Any], text: str) -> None:
    """Put one ``key.sub=value`` into ``tree``."""
    name, sign, written = text.partition("=")
    name = name.strip()
    if not sign or not name:
        raise UserError(f"{text}: an override is key.sub=value, {_instead(text)}")
    parts = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
    place = locate(parts)
    if place.annotation is None or len(place.path) < len(name):
        raise UserError(unknown_key(name))
    value = _value(name, written, free_text=is_text(place.annotation))
    at: Any = tree
    for depth in range(1, len(parts)):
        at = _step_into(at, parts[:depth], name)
    if isinstance(at, list):
        at[_position(at, parts)] = value
    else:
        old = at.get(parts[-1])
        groups = isinstance(old, dict) and isinstance(value, dict)
        at[parts[-1]] = _merged(old, value) if groups else value


def _step_into(at: Any, parts: tuple[str | int, ...], name: str) -> Any:
    """What ``parts`` leads to, its last step being in ``at``; absent groups are made."""
    if isinstance(at, list):
        inner = at[_position(at, parts)]
    else:
        inner = at.setdefault(parts[-1], locate(parts).default)
    if not isinstance(inner, dict | list):
        path = ".".join(map(str, parts))
        raise UserError(f"{name}: {path} is {inner!r}, which has no settings inside it")
    return inner


def _position(items: list[Any], parts: tuple[str | int, ...]) -> int:
    """The last of ``parts`` as an index into ``items``."""
    position = parts[-1]
    if isinstance(position, int) and position < len(items):
        return position
    path = ".".join(map(str, parts[:-1]))
    raise UserError(
        f"{path}.{position}: {path} has {len(items)} entries, numbered from 0; "
        f"give the whole list: {path}=[…]"
    )


def _value(name: str, written: str, *, free_text: bool) -> Any:
    # Free text stands as written, so that name=007 and output=~ need no quotes.
    words = ("null", "None", "")
    if free_text and written not in words and not written.startswith(('"', "'")):
        return written
    try:
        return parse_yaml(written)
    except (yaml.YAMLError, ValueError) as error:
        problem = yaml_problem(error) if isinstance(error, yaml.YAMLError) else str(error)
        raise UserError(f"{name}={written}: not valid YAML: {problem}") from None
