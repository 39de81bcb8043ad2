"""The typed, frozen configuration, one docstring per field.

The global batch is the dial: what follows from it (rate, warm-up, iterations, images per
process, BN groups) is computed in :mod:`megdet_hvd.config.derive`, and a field left at
``auto`` takes that value. Learning settings stand apart from system settings.
"""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen group of settings that knows no other keys than its own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


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

    kind: Literal["scenes", "coco"] = "scenes"
    """``scenes``: the embedded default. ``coco``: the annotation files named below."""
    scenes: ScenesConfig = ScenesConfig()
    """The rendered scenes, where ``kind`` is ``scenes``."""
    train: tuple[AnnotationSource, ...] = ()
    """Training annotation files; several are read as one data set."""
    val: tuple[AnnotationSource, ...] = ()
    """Validation annotation files. All files must declare the same categories."""
    min_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (800,)
    """Shorter side in training, pixels; with several, each picture draws one (multi-scale)."""
    max_size: Positive = 1333
    """Longer side at most, pixels."""
    eval_min_size: Positive | Literal["auto"] = "auto"
    """Shorter side in evaluation; ``auto``: the largest of ``min_sizes``."""
    flip_probability: Fraction = 0.5
    """Probability of a horizontal flip in training."""
    keep_empty: bool = False
    """Keep training pictures without boxes. Decides N, and with it every iteration number."""
    invalid_boxes: Literal["stop", "drop"] = "stop"
    """Boxes with NaN, no area, or wholly outside: ``stop`` before training, or ``drop`` them."""
    unreadable_images: Literal["stop", "skip"] = "stop"
    """A picture that can't be decoded in mid-run: ``stop`` all ranks, or ``skip`` and count it."""
    aspect_grouping: NotNegative = 2
    """Pictures of like orientation follow each other in chunks of this many; 0 or 1: off."""
    workers: NotNegative | Literal["auto"] = "auto"
    """Loader processes per rank; ``auto``: cores per rank less one, at most 4."""


class RpnConfig(Section):
    """The region proposal network (RPN)."""

    conv_depth: Positive = 1
    """Number of 3×3 convolutions before its two outputs."""
    anchors_per_image: Positive = 256
    """Anchors sampled for the loss of one picture."""
    positive_fraction: Fraction = 0.5
    """Largest share of positives among them."""
    foreground_iou: Fraction = 0.7
    """An anchor at or above this IoU with a box is positive."""
    background_iou: Fraction = 0.3
    """An anchor below this IoU with every box is negative."""
    pre_nms_train: Positive = 2000
    """Proposals per level before NMS, in training."""
    pre_nms_test: Positive = 1000
    """The same in evaluation."""
    post_nms_train: Positive = 2000
    """Proposals per picture after NMS, in training."""
    post_nms_test: Positive = 1000
    """The same in evaluation."""
    nms_iou: Fraction = 0.7
    """IoU above which the lower-scored proposal goes."""


class RoiConfig(Section):
    """The second stage: box head and final detections."""

    head: Literal["mlp", "conv"] = "mlp"
    """``mlp``: two fully connected layers. ``conv``: four convolutions and one such layer."""
    width: Positive = 1024
    """Units of the fully connected layers."""
    norm: Literal["none", "same"] = "none"
    """``same``: the backbone's normalisation after each convolution of the ``conv`` head."""
    boxes_per_image: Positive = 512
    """Boxes (RoIs) sampled for the loss of one picture."""
    positive_fraction: Fraction = 0.25
    """Largest share of positives among them."""
    foreground_iou: Fraction = 0.5
    """A proposal at or above this IoU with a box is positive; below it is background."""
    score_threshold: Fraction = 0.05
    """Detections below this score are dropped."""
    nms_iou: Fraction = 0.5
    """IoU above which the lower-scored detection of a class goes."""
    detections_per_image: Positive = 100
    """Detections kept per picture."""


class ModelConfig(Section):
    """Faster R-CNN with a feature pyramid (FPN) and ROIAlign."""

    backbone: Literal["resnet18", "resnet50", "resnet101"] = "resnet50"
    """The residual network below the pyramid."""
    backbone_weights: str | None = None
    """None: random weights. A torchvision name (``IMAGENET1K_V1``), or a local file."""
    init_from: str | None = None
    """Fine-tuning: a checkpoint of ours or torchvision's. A predictor that doesn't fit is new."""
    norm: Literal["cgbn", "frozen", "bn", "none"] = "cgbn"
    """``cgbn``: Cross-GPU BN. ``frozen``: fixed statistics. ``bn``: each process's own."""
    norm_eps: NotNegativeFloat = 1e-5
    """ε of every normalisation layer. torchvision's COCO weights were trained with 0."""
    norm_momentum: Fraction | None = 0.1
    """Weight of the newest batch in the running statistics; None: cumulative mean."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """Stages kept as loaded: 1 is the stem, 2 adds layer1, … 5 is the whole backbone."""
    fpn_channels: Positive = 256
    """Channels of P2…P6."""
    fpn_norm: Literal["none", "same"] = "none"
    """``same``: the backbone's normalisation after each convolution of the pyramid."""
    anchor_sizes: Annotated[tuple[PositiveFloat, ...], Field(min_length=5, max_length=5)] = (
        32,
        64,
        128,
        256,
        512,
    )
    """Anchor side on P2…P6, pixels of the resized picture."""
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height : width of the anchors."""
    rpn: RpnConfig = RpnConfig()
    """First stage."""
    roi: RoiConfig = RoiConfig()
    """Second stage."""

    @model_validator(mode="after")
    def _iou_order(self) -> "ModelConfig":
        if self.rpn.background_iou > self.rpn.foreground_iou:
            raise ValueError(
                f"rpn.background_iou={self.rpn.background_iou} must not exceed "
                f"rpn.foreground_iou={self.rpn.foreground_iou}"
            )
        return self


class BatchNormConfig(Section):
    """Over which processes BN statistics are shared (§3.3)."""

    scope: Literal["machine", "world", "process"] = "machine"
    """``machine``: the processes of one machine, as in the paper. ``world``: all of them."""
    size: Positive | None = None
    """Images per statistic: divides the scope, or a process's images. None: all of the scope."""
    carrier: Literal["horovod", "mpi"] = "horovod"
    """Who sums: ``hvd.allreduce``, or mpi4py's (CPU tensors, under MPI launchers)."""


class MemoryConfig(Section):
    """Sublinear memory (§3.3; Chen et al. 2016): activations dropped and computed again."""

    checkpoint: Literal["none", "blocks", "stages", "auto"] = "none"
    """What is kept: everything, the borders of ``blocks`` or ``stages``, or as memory allows."""


class Milestone(Section):
    """A drop of the learning rate."""

    epoch: NotNegativeFloat
    """After this many passes over the data."""
    factor: PositiveFloat
    """The rate is multiplied by this."""


class LearningConfig(Section):
    """SGD, linear scaling, warm-up and policy (§3.2, §4)."""

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

    @field_validator("compression", mode="before")
    @classmethod
    def _no_bfloat16(cls, value: object) -> object:
        if isinstance(value, str) and value.lower() in ("bf16", "bfloat16"):
            raise ValueError(
                f"horovod.compression={value}: Horovod 0.28.1 has no bfloat16 type for torch, so "
                "gradients can't travel in it; use fp16 (with horovod.predivide) or none"
            )
        return value


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


class PipelineConfig(Section):
    """``python -m megdet_hvd.pipeline``: data prepared, and checkpoints evaluated, by MPI ranks."""

    evaluators: NotNegative = 1
    """Ranks that evaluate each checkpoint while the others train; 0: all train, and evaluate in
    line."""
    max_side: Positive | None = None
    """Training pictures whose longer side is above this, in pixels, are scaled down once, into
    ``folder``; at least ``data.max_size``. None: pictures stay as they are."""
    folder: str = "auto"
    """What was prepared; ``auto``: the folder ``prepared`` below ``output``."""


class WatchdogConfig(Section):
    """What ends a job that hangs, and says which rank stands where."""

    seconds: NotNegativeFloat = 60.0
    """So long a wait for ranks that will not come, or a rank so long silent, is a hang; 0: off.
    Keep it well above the time to parse an annotation file, during which a rank can't beat."""


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
        side = self.pipeline.max_side
        if side is not None and side < self.data.max_size:
            raise ValueError(
                f"pipeline.max_side={side} is below data.max_size={self.data.max_size}: training "
                f"would enlarge again what was scaled down; set pipeline.max_side="
                f"{self.data.max_size} or more"
            )
        if not math.isfinite(self.learning.base_rate):
            raise ValueError(f"learning.base_rate={self.learning.base_rate} must be finite")
        return self
