"""What every group of settings shares: frozen, no other keys than its own, finite numbers."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from megdet_hvd.serialize import serializable

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


@dataclass(frozen=True)
class InWords:
    """What a text must be, said in the lists of settings in the place of ``text``."""

    words: str


CodeName = Annotated[str, InWords("module:name")]
"""Code of the user's own, see :mod:`megdet_hvd.config.named_code`."""


@serializable
class Section(BaseModel):
    """A frozen group of settings that knows no other keys than its own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
