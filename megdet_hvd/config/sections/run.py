"""What a run evaluates, keeps, shows and watches."""

from typing import Literal

from pydantic import field_validator

from megdet_hvd.config.named_code import check_name
from megdet_hvd.config.sections.section import (
    CodeName,
    NotNegative,
    NotNegativeFloat,
    Positive,
    Section,
)


class EvaluationConfig(Section):
    """When validation runs, and on how much."""

    every_epochs: NotNegativeFloat = 1.0
    """Evaluate each time this many epochs have passed, and at the end; 0: at the end only."""
    untrained: bool = False
    """Evaluate once before training too."""
    images_per_process: Positive = 2
    """Pictures in one forward pass of one process."""
    max_images: Positive | None = None
    """Only the first so many validation pictures; None: all."""
    measures: tuple[CodeName, ...] = ()
    """Measures of your own (docs/extending.md), beside COCO's numbers."""

    @field_validator("measures")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_name("evaluation.measures", one) for one in value)


class CheckpointConfig(Section):
    """What is kept on disk."""

    every_epochs: NotNegativeFloat = 1.0
    """Write a checkpoint each time this many epochs have passed, and at the end."""
    every_iterations: Positive | None = None
    """And each time this many iterations have passed."""
    keep: Positive = 2
    """The newest so many stay, and the best by mmAP."""
    on_error: Literal["continue", "stop"] = "continue"
    """A checkpoint that can't be written (disk full): ``continue``, and try again when the next
    one is due, or ``stop``. The last one of a run, or of a requested stop, always stops."""


class ResumeConfig(Section):
    """A run carried on with other processes: its batch, rate and order of images stay."""

    other_bn_size: Literal["refuse", "continue"] = "refuse"
    """Where the new processes can't keep the BN size: ``refuse``, or ``continue`` with a warning.
    A BN size that changes in mid-run costs accuracy that no log shows, hence the default."""


class LogConfig(Section):
    """What a run shows."""

    every_iterations: Positive = 20
    """Iterations between two lines of metrics."""
    progress: Literal["auto", "bar", "lines"] = "auto"
    """``auto``: a bar where rank 0 writes to a terminal, lines elsewhere."""
    tensorboard: bool = True
    """Write TensorBoard event files too."""
    loggers: tuple[CodeName, ...] = ()
    """Loggers of your own (docs/extending.md): they get every metrics line."""

    @field_validator("loggers")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_name("log.loggers", one) for one in value)


class PipelineConfig(Section):
    """``python -m megdet_hvd.pipeline``: data prepared, and checkpoints evaluated, by MPI ranks."""

    evaluators: NotNegative = 1
    """Ranks that evaluate each checkpoint while the others train; 0: all train, and evaluate in
    line."""
    max_side: Positive | None = None
    """Training pictures whose longer side is above this, in pixels, are scaled down once, into
    ``folder``; at least ``data.max_size``. None: pictures stay as they are."""
    folder: str = "auto"
    """Sets of what was prepared, each named by its content; ``auto``: the folder ``prepared`` below
    ``output``."""


class WatchdogConfig(Section):
    """What ends a job that hangs, and says which rank stands where."""

    seconds: NotNegativeFloat = 60.0
    """So long a wait for ranks that will not come, or a rank so long silent, is a hang; 0: off.
    Keep it well above the time to parse an annotation file, during which a rank can't beat."""
