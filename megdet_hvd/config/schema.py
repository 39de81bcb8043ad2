"""The typed, frozen configuration, one docstring per field.

The global batch is the dial: what follows from it (rate, warm-up, iterations, images per
process, BN groups) is computed in :mod:`megdet_hvd.config.derive`, and a field left at
``auto`` takes that value. Learning settings stand apart from system settings.
"""

import math
from typing import Literal

from pydantic import model_validator

from megdet_hvd.config.sections.data import (
    AnnotationSource,
    DataConfig,
    ScenesConfig,
)
from megdet_hvd.config.sections.learning import (
    HorovodConfig,
    LearningConfig,
    Milestone,
)
from megdet_hvd.config.sections.model import (
    BatchNormConfig,
    MemoryConfig,
    ModelConfig,
    RoiConfig,
    RpnConfig,
)
from megdet_hvd.config.sections.run import (
    CheckpointConfig,
    EvaluationConfig,
    LogConfig,
    PipelineConfig,
    ResumeConfig,
    WatchdogConfig,
)
from megdet_hvd.config.sections.section import NotNegative, Positive, Section

__all__ = [
    "AnnotationSource",
    "BatchNormConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "HorovodConfig",
    "LearningConfig",
    "LogConfig",
    "MemoryConfig",
    "Milestone",
    "ModelConfig",
    "PipelineConfig",
    "ResumeConfig",
    "RoiConfig",
    "RpnConfig",
    "ScenesConfig",
    "Section",
    "WatchdogConfig",
]


class Config(Section):
    """A whole run."""

    global_batch: Positive = 16
    """The dial: pictures per optimizer step, over all processes and accumulated passes."""
    seed: NotNegative = 0
    """Seed of weights, order, augmentation and sampling."""
    deterministic: bool = False
    """Bit-for-bit repeatable on equally many processes and threads: fusion off, exact kernels."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Mixed precision; ``auto``: bfloat16 on GPUs that have it, float32 on CPU."""
    output: str = "runs"
    """Folder under which the run folder is made."""
    name: str = "auto"
    """Name of the run folder; ``auto``: the configuration file's name and the date."""
    data: DataConfig = DataConfig()
    """Pictures."""
    model: ModelConfig = ModelConfig()
    """Detector."""
    bn: BatchNormConfig = BatchNormConfig()
    """Scope of BN statistics."""
    memory: MemoryConfig = MemoryConfig()
    """Recomputation of activations."""
    learning: LearningConfig = LearningConfig()
    """Optimizer and schedule."""
    horovod: HorovodConfig = HorovodConfig()
    """Messages between processes."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Validation."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    resume: ResumeConfig = ResumeConfig()
    """Carrying on with other processes."""
    log: LogConfig = LogConfig()
    """Log and metrics."""
    pipeline: PipelineConfig = PipelineConfig()
    """An MPI program around the training."""
    watchdog: WatchdogConfig = WatchdogConfig()
    """When a hang ends the job."""
    preflight: Literal["auto", "always", "never"] = "auto"
    """Check data and links before training; ``auto``: on several machines, and in Slurm jobs."""

    @model_validator(mode="after")
    def _batch_fits(self) -> "Config":
        passes = self.learning.accumulation
        rest = self.global_batch % passes
        if rest:
            above = self.global_batch - rest + passes
            raise ValueError(
                f"global_batch={self.global_batch} does not divide over "
                f"learning.accumulation={passes} passes "
                f"({self.global_batch} % {passes} = {rest}); try global_batch={above}"
            )
        if self.bn.size is not None and self.model.norm != "cgbn":
            raise ValueError(
                f"bn.size={self.bn.size} belongs to model.norm=cgbn, not to "
                f"model.norm={self.model.norm}: set model.norm=cgbn, or leave bn.size out"
            )
        if self.data.kind == "coco" and not self.data.train:
            raise ValueError(
                "data.kind=coco needs data.train: a list of {annotations: FILE, images: FOLDER}"
            )
        if self.name.startswith("/") or ".." in self.name.split("/"):
            raise ValueError(
                f"name={self.name} leads out of the folder output={self.output}: give the run "
                "folder's name alone, and its place with output=FOLDER or --run FOLDER"
            )
        side = self.pipeline.max_side
        if side is not None and side < self.data.max_size:
            raise ValueError(
                f"pipeline.max_side={side} is below data.max_size={self.data.max_size}: training "
                f"would enlarge again what was scaled down; set pipeline.max_side="
                f"{self.data.max_size} or more"
            )
        if side is not None and self.data.kind == "own":
            raise ValueError(
                f"pipeline.max_side={side} with data.kind=own: pictures of a data set of your own "
                "are not prepared; scale them there, and leave pipeline.max_side out"
            )
        if not math.isfinite(self.learning.base_rate):
            raise ValueError(f"learning.base_rate={self.learning.base_rate} must be finite")
        return self
