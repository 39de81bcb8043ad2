"""What a record must hold for tables, pictures and hypotheses to be made of it.

Records are files that come from other machines, too: one that says something else is refused by its
name, instead of ending a report with an error from somewhere inside.
"""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
)

from megdet_hvd.lab.records import LabRecord

Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f|<>`\[\]]{0,200}$")]
"""Text that a page or a terminal shows as it is."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Any(_Shape):
    machine: Line
    versions: dict[str, Line] = {}
    clock_s: FiniteFloat = 0.0


class _Divergence(_Shape):
    at: NonNegativeInt
    why: Line


class _Scores(_Shape):
    epoch: FiniteFloat
    AP: FiniteFloat | None


class _Again(_Shape):
    AP: FiniteFloat | None


class _Training(_Any):
    updates: NonNegativeInt
    epochs: FiniteFloat = 0.0
    diverged: _Divergence | None
    initial_loss: FiniteFloat | None
    loss: list[Annotated[list[FiniteFloat | None], Field(min_length=2, max_length=2)]]
    scores: list[_Scores]
    recalibrated: _Again | None = None


class _VarianceRow(_Shape):
    images: PositiveInt
    variance: PositiveFloat
    foreground: dict[str, Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]]


class _Variance(_Any):
    slope: FiniteFloat
    rows: Annotated[list[_VarianceRow], Field(min_length=2)]


class _Overhead(_Any):
    carrier: Line = "horovod"
    rows: Annotated[list[dict[Line, PositiveFloat]], Field(min_length=1)]


def fault_of(name: str, record: LabRecord) -> str | None:
    """What is wrong with the record of that name, in a few words; None: nothing."""
    kinds: dict[str, type[_Shape]] = {"overhead": _Overhead, "variance": _Variance}
    shape = kinds.get(name.partition("-")[0], _Training)
    try:
        shape.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where!a}: {first['msg']}"
    return None
