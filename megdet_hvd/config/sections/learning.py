"""SGD, linear scaling, warm-up and policy, and how gradients travel."""

from typing import Literal

from pydantic import field_validator, model_validator

from megdet_hvd.config.named_code import check_name
from megdet_hvd.config.sections.section import (
    CodeName,
    Fraction,
    NotNegative,
    NotNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
)


class Milestone(Section):
    """A drop of the learning rate."""

    epoch: NotNegativeFloat
    """After this many passes over the data."""
    factor: PositiveFloat
    """The rate is multiplied by this."""


class LearningConfig(Section):
    """SGD, linear scaling, warm-up and policy (§3.2, §4)."""

    optimizer: CodeName | None = None
    """An optimizer of your own (docs/extending.md); None: SGD."""
    base_rate: PositiveFloat = 0.02
    """Reference rate r, for a batch of ``base_batch``."""
    base_batch: Positive = 16
    """Reference batch N."""
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    """With k = global_batch/N: ``linear`` (§3.2) k·r, ``sqrt`` √k·r, ``none`` r."""
    rate: PositiveFloat | Literal["auto"] = "auto"
    """Peak rate, whatever ``scaling`` says; ``auto``: by ``scaling``."""
    rate_factor: PositiveFloat = 1.0
    """Multiplies the peak rate. 0.5 with model.norm=frozen: Table 2's half-rate rows."""
    warmup_iterations: NotNegative | Literal["auto"] = "auto"
    """Length of the warm-up; ``auto``: 500, at most a tenth of the run (see ``large_batch``)."""
    warmup_images: NotNegative | None = None
    """Length of the warm-up in pictures instead, rounded up to whole iterations."""
    large_batch: Literal["lengthen", "warn", "ignore"] = "lengthen"
    """Above batch 256: warn, and ``lengthen`` an automatic warm-up (500·batch/256, at most a
    fifth of the run); only ``warn``; or ``ignore`` that the paper shows no such batch."""
    warmup_start_rate: PositiveFloat | Literal["auto"] = "auto"
    """Rate of the first iteration; ``auto``: the smaller of r and a third of the peak."""
    policy: Literal["normal", "long", "custom"] = "normal"
    """``normal``: ×0.1 at epochs 8 and 10, end at 11. ``long``: 11, 14, ×0.5 at 17, end at 18."""
    milestones: tuple[Milestone, ...] = ()
    """Policy ``custom``: the drops."""
    epochs: PositiveFloat | Literal["auto"] = "auto"
    """Policy ``custom``: where training ends. Otherwise the policy's own end."""
    max_iterations: Positive | None = None
    """Stop after this many iterations, whatever the policy says (the schedule stays)."""
    momentum: Fraction = 0.9
    """SGD momentum."""
    weight_decay: NotNegativeFloat = 1e-4
    """λ of eq. (1)."""
    decay_bn: bool = True
    """Weight decay on BN weights and biases too, as eq. (1) has it."""
    gradient_clip: PositiveFloat | None = None
    """Largest norm of the averaged gradient; None: no clipping."""
    accumulation: Positive = 1
    """Backward passes per step; they count in the global batch."""

    @field_validator("optimizer")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        return None if value is None else check_name("learning.optimizer", value)

    @model_validator(mode="after")
    def _one_warmup(self) -> "LearningConfig":
        if self.warmup_images is not None and self.warmup_iterations != "auto":
            raise ValueError(
                f"learning.warmup_iterations={self.warmup_iterations} and "
                f"learning.warmup_images={self.warmup_images} both give the warm-up's length: "
                "set learning.warmup_iterations=auto or learning.warmup_images=null"
            )
        return self

    @model_validator(mode="after")
    def _policy_fits(self) -> "LearningConfig":
        if self.policy == "custom" and self.epochs == "auto":
            raise ValueError("learning.policy=custom needs learning.epochs (and milestones)")
        if self.policy != "custom" and (self.milestones or self.epochs != "auto"):
            raise ValueError(
                f"learning.milestones and learning.epochs belong to learning.policy=custom, "
                f"not to policy={self.policy}: set learning.milestones=[] learning.epochs=auto too"
            )
        return self


class HorovodConfig(Section):
    """How gradients travel. A HOROVOD_… variable that you set yourself is never overridden."""

    compression: Literal["none", "fp16"] = "none"
    """``fp16``: float32 gradients travel as float16, half the bytes. Beyond 65504 they become
    infinite, which stops the run with a message: see ``predivide``."""
    predivide: PositiveFloat = 1.0
    """Gradients are divided by this before they are summed, and multiplied by it after: with
    ``compression=fp16``, the number of processes keeps sums as small as the gradients."""
    fusion_threshold_mib: NotNegative | Literal["auto"] = "auto"
    """Gradients are sent together up to so many MiB, 0: singly. ``auto``: Horovod's own, 128.
    With ``deterministic`` always 0."""
    cycle_time_ms: PositiveFloat | Literal["auto"] = "auto"
    """How often Horovod looks for messages. ``auto``: 0.1 on a GPU where CGBN waits for them,
    else Horovod's own, 1."""

    gradients: Literal["auto", "held", "as_ready"] = "auto"
    """When gradients go: ``as_ready``, beside the rest of the backward pass, or ``held`` until all
    of a step are there. ``auto``: held where BN sums go through Horovod too, which would wait
    behind them. With ``deterministic`` or ``bn.carrier=peer`` always held."""

    @field_validator("compression", mode="before")
    @classmethod
    def _no_bfloat16(cls, value: object) -> object:
        if isinstance(value, str) and value.lower() in ("bf16", "bfloat16"):
            raise ValueError(
                f"horovod.compression={value}: Horovod 0.28.1 has no bfloat16 type for torch, so "
                "gradients can't travel in it; use fp16 (with horovod.predivide) or none"
            )
        return value
