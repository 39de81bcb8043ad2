"""Pictures: rendered scenes or COCO files, and how they are scaled."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from megdet_hvd.config.named_code import check_name
from megdet_hvd.config.sections.section import (
    CodeName,
    Fraction,
    NotNegative,
    Positive,
    Section,
)

ValueRange = tuple[float, float] | Literal["auto"]
"""What is black and what is white in pictures of more than 8 bits."""
ResizeSetting = Literal["auto", "torch", "pillow"]
"""Who resizes pictures."""


class AnnotationSource(Section):
    """One COCO-format annotation file and the folder its pictures lie in."""

    annotations: str
    """The annotation file (JSON). ``~`` and ``${VARIABLE}`` are expanded."""
    images: str
    """The folder that the ``file_name`` entries are relative to. Expanded likewise."""


class ScenesConfig(Section):
    """The embedded default: rendered scenes, made on first use into a cache folder."""

    train_images: Positive = 1200
    """Number of training scenes."""
    val_images: Positive = 200
    """Number of validation scenes, drawn from seeds that training never uses."""
    size: Annotated[int, Field(ge=64, le=1024)] = 160
    """Longer side of a scene, in pixels."""
    cache: str = "auto"
    """Folder the scenes are kept in; ``auto``: ``$MEGDET_CACHE`` or ``~/.cache/megdet_hvd``."""


class DataConfig(Section):
    """Which pictures, and what is done to them on their way to the model."""

    kind: Literal["scenes", "coco", "own"] = "scenes"
    """``scenes``: the embedded default. ``coco``: the annotation files named below. ``own``: what
    ``dataset`` opens."""
    dataset: CodeName | None = None
    """A data set of your own (docs/extending.md), where ``kind`` is ``own``."""
    scenes: ScenesConfig = ScenesConfig()
    """The rendered scenes, where ``kind`` is ``scenes``."""
    train: tuple[AnnotationSource, ...] = ()
    """Training annotation files; several are read as one data set."""
    val: tuple[AnnotationSource, ...] = ()
    """Validation annotation files. Categories must be those of training; some may be missing."""
    index_cache: str = "auto"
    """Folder for what was read of large annotation files, so that they are read once a machine;
    ``off``: none. ``auto``: the cache folder, or a temporary one where that isn't a local disk."""
    min_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (800,)
    """Shorter side in training, pixels; with several, each picture draws one (multi-scale)."""
    max_size: Positive = 1333
    """Longer side at most, pixels."""
    eval_min_size: Positive | Literal["auto"] = "auto"
    """Shorter side in evaluation; ``auto``: the largest of ``min_sizes``."""
    resize: ResizeSetting = "auto"
    """Who resizes pictures: ``torch``, or ``pillow``, a third as quick, as all runs did before
    there was this setting. ``auto``: torch; a run that is carried on keeps to its own."""
    value_range: ValueRange = "auto"
    """What is black and what is white in pictures of more than 8 bits a value: [0,4095] for a
    12-bit camera. ``auto``: 16-bit pictures use all bits, floats are fractions or 0…255."""
    flip_probability: Fraction = 0.5
    """Probability of a horizontal flip in training."""
    keep_empty: bool = False
    """Keep training pictures without boxes. Decides N, and with it every iteration number."""
    invalid_boxes: Literal["stop", "drop"] = "stop"
    """Boxes with NaN, no area, or wholly outside: ``stop`` before training, or ``drop`` them.
    What is measured against stays as its file has it."""
    unreadable_images: Literal["stop", "skip"] = "stop"
    """A picture that can't be decoded in mid-run: ``stop`` all ranks, or ``skip`` and count it."""
    aspect_grouping: NotNegative = 2
    """Pictures of like orientation follow each other in chunks of this many; 0 or 1: off."""
    workers: NotNegative | Literal["auto"] = "auto"
    """Loader processes per rank; ``auto``: cores per rank less one (on a GPU three), at most 4."""

    @field_validator("dataset")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        return None if value is None else check_name("data.dataset", value)

    @model_validator(mode="after")
    def _own_has_a_name(self) -> "DataConfig":
        if self.kind == "own" and self.dataset is None:
            raise ValueError("data.kind=own needs data.dataset: a data set of yours, module:name")
        if self.kind != "own" and self.dataset is not None:
            raise ValueError(
                f"data.dataset={self.dataset} belongs to data.kind=own, not to data.kind="
                f"{self.kind}: set data.kind=own, or leave data.dataset out"
            )
        return self

    @field_validator("value_range")
    @classmethod
    def _has_width(cls, value: ValueRange) -> ValueRange:
        if value != "auto":
            low, high = value
            if low >= high:
                raise ValueError(
                    f"data.value_range=[{low:g},{high:g}] must be two numbers, black and then "
                    "white, the second above the first: [0,4095] for 12 bits"
                )
        return value
