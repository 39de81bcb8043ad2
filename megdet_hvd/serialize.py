"""Values as bytes, to travel between processes: JSON and raw numbers, nothing that runs.

``pickle`` runs whatever its sender wants, and a port, a store or a file may have other senders than
ours. Here only plain values are known, arrays, the errors of :mod:`megdet_hvd.errors`, and those
classes of this package that say so themselves (:func:`serializable`). Anything else is an error at
the sender.

The bytes: the length of the JSON (8 bytes, big-endian), the JSON, then the arrays' numbers. What
JSON has no word for stands there as ``{TAG: [...]}``. Classes are named once, in a table.
"""

import base64
import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from megdet_hvd import errors

C = TypeVar("C", bound=type)

_DEEPEST = 100
"""Values within values; a value within itself comes to it too."""
_ALIGNED = 64
"""Arrays begin at multiples of so many bytes."""
_MODULE = re.compile(r"megdet_hvd(\.[a-z][a-z0-9_]*)+")
"""What may be imported to find a class. Importing a module of ours does nothing."""
_TENSORS = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64"),
)
_NUMBERS = "biuf"
"""Kinds of numpy's data types: no objects, no records."""
_ERRORS: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}

_serializable: set[type] = set()


class NotSerializable(TypeError):
    """A value of a type that does not travel; a fault of whoever sends it."""


class Garbled(ValueError):
    """Bytes that :func:`dumps` did not make."""


def serializable(kind: C) -> C:
    """Let instances of a class travel, as their fields: a dataclass, a pydantic model, a class.

    A model's subclasses travel too. No ``__init__`` runs where they arrive.
    """
    _serializable.add(kind)
    return kind


def dumps(value: Any) -> bytes:
    """The bytes of a value.

    Tensors arrive on the CPU, detached; all else as it was.

    Raises:
        NotSerializable: it holds something that does not travel; names the place.
    """
    writer = _Writer()
    body = json.dumps({"value": writer.write(value, ()), "classes": writer.classes()})
    text = body.encode("ascii")
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    return b"".join([len(text).to_bytes(8, "big"), text, *writer.numbers])


def loads(content: bytes | bytearray | memoryview) -> Any:
    """The value of :func:`dumps`. Executes nothing, whoever made the bytes.

    Raises:
        Garbled: these are other bytes, or of another version of this package.
    """
    try:
        view = memoryview(content)
        length = int.from_bytes(view[:8], "big")
        found = json.loads(bytes(view[8 : 8 + length]))
        if len(view) < 8 + length:
            raise ValueError(f"{len(view)} bytes, of {8 + length} or more")
        return _ByteReader(found["classes"], view[8 + length :]).read(found["value"])
    except Exception as error:
        raise Garbled(f"no value of ours: {type(error).__name__}: {str(error)[:200]}") from error


def _fields(value: Any) -> tuple[str, ...]:
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return tuple(vars(value))


def _is_model(kind: type) -> bool:
    return hasattr(kind, "model_validate")


def _main_module() -> str | None:
    """What ``__main__`` is called where it is imported."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return None if spec is None else spec.name


def _name_of(kind: type) -> str:
    module = kind.__module__
    if module == "__main__":
        module = _main_module() or module
    return f"{module}:{kind.__qualname__}"


def _class_of(name: str) -> type:
    module_name, _, qualname = name.partition(":")
    if module_name in ("__main__", _main_module()):
        module = sys.modules["__main__"]
    elif module_name in sys.modules:
        module = sys.modules[module_name]
    elif _MODULE.fullmatch(module_name):
        module = importlib.import_module(module_name)
    else:
        raise ValueError(f"{name} is no class of this package")
    kind = vars(module).get(qualname)
    if not isinstance(kind, type) or not _travels(kind):
        raise ValueError(f"{name} is no class that travels")
    return kind


def _travels(kind: type) -> bool:
    return any(base in _serializable for base in (kind.__mro__ if _is_model(kind) else (kind,)))


class _Writer:
    def __init__(self) -> None:
        self._classes: dict[tuple[type, tuple[str, ...]], int] = {}
        self.numbers: list[bytes] = []
        self._end = 0

    def classes(self) -> list[list[Any]]:
        return [[_name_of(kind), fields] for kind, fields in self._classes]

    def write(self, value: Any, path: tuple[object, ...]) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if len(path) > _DEEPEST:
            raise NotSerializable(f"more than {_DEEPEST} values within one another")
        if kind is list:
            return self._all(value, path)
        if kind in (tuple, set, frozenset):
            return {kind.__name__: self._all(value, path)}
        if kind is dict:
            pairs = value.items()
            return {
                "dict": [
                    [self.write(k, (*path, "a key")), self.write(v, (*path, k))] for k, v in pairs
                ]
            }
        if isinstance(value, PurePath):
            return {"path": str(value)}
        if kind in (bytes, bytearray):
            return {kind.__name__: base64.b64encode(value).decode()}
        if isinstance(value, Exception):
            return self._error(value, path)
        if _travels(kind):
            return self._object(value, path)
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if numpy is not None and isinstance(value, numpy.generic):
            return {"scalar": self._array(value, path)}
        if numpy is not None and kind is numpy.ndarray:
            return {"array": self._array(value, path)}
        if torch is not None and kind is torch.Tensor:
            return self._tensor(value, path)
        raise NotSerializable(
            f"{_at(path)} is a {kind.__module__}.{kind.__qualname__}, which does not travel"
        )

    def _all(self, values: Any, path: tuple[object, ...]) -> list[Any]:
        return [self.write(value, (*path, number)) for number, value in enumerate(values)]

    def _object(self, value: Any, path: tuple[object, ...]) -> Any:
        kind, fields = type(value), _fields(value)
        number = self._classes.setdefault((kind, fields), len(self._classes))
        content = [self.write(getattr(value, field), (*path, field)) for field in fields]
        if _is_model(kind):
            return {"model": [number, sorted(value.model_fields_set), *content]}
        return {"object": [number, *content]}

    def _error(self, error: Exception, path: tuple[object, ...]) -> Any:
        kind = next((base for base in type(error).__mro__ if base in _ERRORS.values()), None)
        if kind is None:
            raise NotSerializable(f"{_at(path)} is a {type(error).__qualname__}, a fault")
        arguments: Sequence[Any] = error.args
        if isinstance(error, errors.MemberError):
            arguments = error.rank, error.kind, error.text
        agreed = bool(getattr(error, "agreed", False))
        return {"error": [kind.__name__, agreed, *self._all(arguments, path)]}

    def _array(self, value: Any, path: tuple[object, ...]) -> list[Any]:
        if value.dtype.kind not in _NUMBERS:
            raise NotSerializable(f"{_at(path)} is an array of {value.dtype}, not of numbers")
        return [value.dtype.str, list(value.shape), *self._place(value.tobytes())]

    def _tensor(self, value: Any, path: tuple[object, ...]) -> Any:
        name = str(value.dtype).removeprefix("torch.")
        if name not in _TENSORS or str(value.layout) != "torch.strided":
            raise NotSerializable(f"{_at(path)} is a tensor of {value.dtype}, {value.layout}")
        flat = value.detach().cpu().contiguous().reshape(-1)
        content = flat.view(sys.modules["torch"].uint8).numpy().tobytes() if len(flat) else b""
        return {"tensor": [name, list(value.shape), *self._place(content)]}

    def _place(self, content: bytes) -> tuple[int, int]:
        """Where the numbers begin, and how many bytes they are."""
        start = self._end
        padding = b"\0" * (-len(content) % _ALIGNED)
        self.numbers += [content, padding]
        self._end += len(content) + len(padding)
        return start, len(content)


def _at(path: tuple[object, ...]) -> str:
    return "the value" + "".join(f"[{key!r}]" for key in path)


class _ByteReader:
    def __init__(self, classes: Any, numbers: memoryview) -> None:
        self._names = [str(name) for name, _ in classes]
        self._classes = [(_class_of(name), tuple(fields)) for name, fields in classes]
        self._numbers = numbers
        self._known: dict[str, Callable[[Any], Any]] = {
            "tuple": lambda content: tuple(map(self.read, content)),
            "set": lambda content: set(map(self.read, content)),
            "frozenset": lambda content: frozenset(map(self.read, content)),
            "dict": lambda content: {self.read(k): self.read(v) for k, v in content},
            "path": Path,
            "bytes": lambda content: base64.b64decode(content, validate=True),
            "bytearray": lambda content: bytearray(base64.b64decode(content, validate=True)),
            "error": self._error,
            "object": self._object,
            "model": self._model,
            "array": self._array,
            "scalar": lambda content: self._array(content)[()],
            "tensor": self._tensor,
        }

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.read(one) for one in value]
        if isinstance(value, dict):
            ((tag, content),) = value.items()
            return self._known[tag](content)
        return value

    def _error(self, content: Any) -> Exception:
        name, agreed, *arguments = content
        error = _ERRORS[name](*map(self.read, arguments))
        if agreed:
            error.agreed = True  # type: ignore[attr-defined]
        return error

    def _object(self, content: Any) -> Any:
        number, *values = content
        kind, fields = self._classes[number]
        made = kind.__new__(kind)
        if dataclasses.is_dataclass(kind) and _fields(made) != fields:
            raise ValueError(f"{self._names[number]} has the fields {_fields(made)}, not {fields}")
        for field, value in zip(fields, values, strict=True):
            object.__setattr__(made, field, self.read(value))
        return made

    def _model(self, content: Any) -> Any:
        number, given, *values = content
        kind: Any
        kind, fields = self._classes[number]
        read = {field: self.read(v) for field, v in zip(fields, values, strict=True)}
        made = kind.model_validate(read)
        object.__setattr__(made, "__pydantic_fields_set__", set(given))
        return made

    def _array(self, content: Any) -> Any:
        import numpy

        name, shape, start, length = content
        kind = numpy.dtype(str(name))
        if kind.kind not in _NUMBERS:
            raise ValueError(f"an array of {kind}")
        if not length:
            return numpy.empty(shape, kind)
        return numpy.frombuffer(self._taken(start, length), kind).reshape(shape)

    def _tensor(self, content: Any) -> Any:
        import torch

        name, shape, start, length = content
        if name not in _TENSORS:
            raise ValueError(f"a tensor of {name}")
        kind = getattr(torch, name)
        if not length:
            return torch.empty(shape, dtype=kind)
        return torch.frombuffer(self._taken(start, length), dtype=kind).reshape(shape)

    def _taken(self, start: int, length: int) -> bytearray:
        if not 0 <= start <= start + length <= len(self._numbers):
            raise ValueError(f"numbers from {start} to {start + length} of {len(self._numbers)}")
        return bytearray(self._numbers[start : start + length])
