"""What one part of a visit found, as a file that is written whole at every step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from install.files import read_json, write_json

State = Literal["running", "done", "failed", "timed out", "cut off"]
"""``running`` in a file that nobody writes any more: its process was killed with the visit."""
Value = bool | int | float | str
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Record:
    """One part's."""

    part: str
    state: State
    device: str
    """``cuda`` or ``cpu``."""
    quantities: Mapping[str, Value] = field(default_factory=dict)
    """By name, the unit behind a comma; what was found before a part failed is there, too."""
    seconds: float = 0.0
    why: str = ""
    """The last words of one that did not end well."""
    small: bool = False
    """A trial of the program itself: no figure counts."""


def record_file(out: Path, part: str) -> Path:
    """Where it stands."""
    return out / f"{part}.json"


def log_file(out: Path, part: str) -> Path:
    """All that the part printed."""
    return out / f"{part}.log"


def write_record(out: Path, record: Record) -> None:
    """Whole or not at all."""
    pairs = [[name, value] for name, value in record.quantities.items()]  # in their order
    write_json(record_file(out, record.part), {**asdict(record), "quantities": pairs})


def read_record(out: Path, part: str) -> Record | None:
    """None: the part was never begun, or what is there is none."""
    found: dict[str, Any] | None = read_json(record_file(out, part))
    if found is None or found.get("state") not in STATES:
        return None
    try:
        return Record(**{**found, "quantities": dict(found["quantities"])})
    except (KeyError, TypeError, ValueError):  # of another version, or somebody's own
        return None


def noted(record: Record, quantity: str, value: Value) -> Record:
    """``record`` with one more."""
    return replace(record, quantities={**record.quantities, quantity: value})
