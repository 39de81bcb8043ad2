"""The plan's answer for one number of GPUs: T and its parts (docs/plan.md has the equations)."""

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache

from megdet_hvd.cluster.threads import cores_for_loading
from megdet_hvd.config.bn_groups import bn_groups, ranks_by_machine
from megdet_hvd.config.derive import Derived, derive
from megdet_hvd.config.gradient_order import gradient_order
from megdet_hvd.config.load import override
from megdet_hvd.config.schema import Config, ModelConfig
from megdet_hvd.data.worker_count import worker_count
from megdet_hvd.errors import UserError
from megdet_hvd.plan.bn_costs import messages_s, own_work_s
from megdet_hvd.plan.compute import Compute
from megdet_hvd.plan.evaluation import evaluation_s, evaluations_of
from megdet_hvd.plan.fit import Shared
from megdet_hvd.plan.horovod_costs import FUSION_BYTES, gradients_s, wait_s
from megdet_hvd.plan.memory import (
    SLOWER,
    Memory,
    Recomputation,
    backbone_factor,
    fits,
    predict_memory,
)
from megdet_hvd.plan.profiles import Profile, fabric
from megdet_hvd.plan.published import DATA
from megdet_hvd.plan.question import (
    COCO_CLASSES,
    Question,
    largest_pixels,
    mean_pixels,
    padded_pixels,
)
from megdet_hvd.plan.tensors import Tensors, bn_elements, count_tensors
from megdet_hvd.plan.work import count_work

DECODE_S = 0.0102
"""Processor seconds to read, decode, resize to 800/1333 and turn one picture. Measured here: 50
pictures of COCO, one core of an AMD EPYC."""
DECODE_PIXELS = mean_pixels((800,), 1333)
BLOCKING_CYCLE_MS, OWN_CYCLE_MS = 0.1, 1.0
"""``horovod.cycle_time_ms=auto``: on a GPU where CGBN waits for messages, and else."""


@cache
def shared_constants() -> Shared:
    """n₀ and σ as they were fitted: data/fitted.json, written by ``plan.page``."""
    found = json.loads((DATA / "fitted.json").read_text(encoding="utf-8"))
    return Shared(found["overhead_images"], found["spread"])


@dataclass(frozen=True)
class StepParts:
    """Seconds of a step; their sum is the step."""

    compute: float
    bn_work: float
    """CGBN's own, beside frozen BN."""
    bn_messages: float
    gradients: float
    """What shows of their all-reduce."""
    stragglers: float
    data: float
    """Waiting for pictures."""

    @property
    def total(self) -> float:
        """The step."""
        return math.fsum(astuple(self))


@dataclass(frozen=True)
class Prediction:
    """One row of the table. All of it is predicted."""

    gpus: int
    machine_sizes: tuple[int, ...]
    config: Config
    """With the batch of this row."""
    derived: Derived
    """What training itself would work out."""
    group_ranks: int
    """GPUs that share a BN statistic."""
    group_machines: int
    """Machines that they are on."""
    step: StepParts
    memory: Memory
    fits: bool
    evaluations: int
    evaluation_s: float
    """Of all of them."""
    efficiency: float = 1.0
    """Images a second and GPU, to those of the table's first row."""

    @property
    def batch(self) -> int:
        """Global."""
        return self.config.global_batch

    @property
    def images(self) -> int:
        """Of one GPU in a pass."""
        return self.derived.images_per_process_per_pass

    @property
    def images_per_s(self) -> float:
        """Of all GPUs."""
        return self.batch / self.step.total

    @property
    def training_s(self) -> float:
        """Without evaluations."""
        return self.derived.end_iteration * self.step.total

    @property
    def hours(self) -> float:
        """Of the whole run."""
        return (self.training_s + self.evaluation_s) / 3600

    @property
    def node_hours(self) -> float:
        """Machines, begun ones whole, times hours."""
        return len(self.machine_sizes) * self.hours


@dataclass(frozen=True)
class Refused:
    """A number of GPUs that can't train this."""

    gpus: int
    reason: str


def machine_sizes(gpus: int, per_machine: int) -> tuple[int, ...]:
    """Full machines, and one with the rest."""
    full, rest = divmod(gpus, per_machine)
    return (per_machine,) * full + ((rest,) if rest else ())


def predict(question: Question, gpus: int) -> Prediction:
    """The row for ``gpus``.

    Raises:
        UserError: the batch does not divide, the BN size can't be made, or a number is too large.
    """
    try:
        row = _predict(question, gpus)
        finite = math.isfinite(row.node_hours)
    except OverflowError:
        finite = False
    if not finite:
        raise UserError(
            "the time is too large for a number: look at --images, --images-per-gpu, "
            "learning.epochs, learning.accumulation and data.min_sizes"
        )
    return row


def _predict(question: Question, gpus: int) -> Prediction:
    config = question.config
    if question.images_per_gpu is not None:
        batch = gpus * question.images_per_gpu * config.learning.accumulation
        config = override(config, [f"global_batch={batch}"])
    sizes = machine_sizes(gpus, question.gpus_per_machine)
    derived = derive(config, question.train_images, gpus, sizes)
    tensors = count_tensors(config.model, question.classes)
    ranks, machines = _widest_group(config, derived, sizes)
    memory = _memory(question, config, derived, tensors)
    step = _step(question, config, derived, tensors, (ranks, machines), memory.mode)
    evaluations = _evaluations(question, config, derived)
    each_s = evaluation_s(question.val_images, gpus, _inference_s(question, config))
    return Prediction(
        gpus=gpus,
        machine_sizes=sizes,
        config=config,
        derived=derived,
        group_ranks=ranks,
        group_machines=machines,
        step=step,
        memory=memory,
        fits=fits(memory, question.profile.memory_gib.value),
        evaluations=evaluations,
        evaluation_s=evaluations * each_s,
    )


def predict_all(question: Question, gpus: Sequence[int]) -> list[Prediction | Refused]:
    """A row for each number of GPUs, efficiency to the first that can train.

    Raises:
        UserError: none of them can.
    """
    rows: list[Prediction | Refused] = []
    first: Prediction | None = None
    for number in gpus:
        try:
            row = predict(question, number)
        except UserError as error:
            rows.append(Refused(number, str(error)))
            continue
        first = first or row
        each = row.images_per_s / row.gpus
        rows.append(replace(row, efficiency=each / (first.images_per_s / first.gpus)))
    if first is None:
        refused = (row for row in rows if isinstance(row, Refused))
        raise UserError("; ".join(f"{row.gpus} GPUs: {row.reason}" for row in refused))
    return rows


def _widest_group(config: Config, derived: Derived, sizes: Sequence[int]) -> tuple[int, int]:
    """Ranks and machines of the group whose BN messages take longest."""
    if config.model.norm != "cgbn":
        return 1, 1
    machine_of = [number for number, size in enumerate(sizes) for _ in range(size)]
    images = derived.images_per_process_per_pass
    groups = bn_groups(config.bn.scope, config.bn.size, images, ranks_by_machine(sizes)).groups
    return max((len(g), len({machine_of[rank] for rank in g})) for g in groups)


def _evaluations(question: Question, config: Config, derived: Derived) -> int:
    """Of the whole run, the untrained model's with it."""
    if not question.val_images:
        return 0
    settings, images = config.evaluation, derived.images_per_epoch
    after = evaluations_of(
        derived.end_iteration, config.global_batch, images, settings.every_epochs
    )
    return after + settings.untrained


def _timed_model(profile: Profile) -> ModelConfig:
    return ModelConfig(backbone=profile.backbone, frozen_stages=profile.frozen_stages)


def work_factors(question: Question, config: Config, images: int) -> tuple[float, float]:
    """Multiply-adds of an image's step to those of the steps that the profile was timed with.

    Args:
        question: its profile, and the classes.
        config: the model, and sizes of pictures.
        images: of a pass, whose largest picture all are padded to.

    Returns:
        With the backbone of ``config`` alone, all else as the profile had it; and with its heads
        and pictures.
    """
    profile, model = question.profile, config.model
    theirs = padded_pixels(profile.min_sizes, profile.max_size, profile.steps[0].images)
    timed = _timed_model(profile)
    known = count_work(timed, theirs, COCO_CLASSES, timed.roi.boxes_per_image).step
    backbone = ModelConfig(backbone=model.backbone, frozen_stages=model.frozen_stages)
    alone = count_work(backbone, theirs, COCO_CLASSES, backbone.roi.boxes_per_image).step
    ours = padded_pixels(config.data.min_sizes, config.data.max_size, images)
    whole = count_work(model, ours, question.classes, model.roi.boxes_per_image).step
    return alone / known, whole / known


def cycle_ms(config: Config) -> float:
    """Horovod's, as training would set it: on GPUs, unless ``device=cpu``."""
    if config.horovod.cycle_time_ms != "auto":
        return config.horovod.cycle_time_ms
    waits = config.model.norm == "cgbn" and config.bn.scope != "process"
    return BLOCKING_CYCLE_MS if waits and config.device != "cpu" else OWN_CYCLE_MS


def loaders(config: Config, cores_per_gpu: int) -> int:
    """Loader processes of a GPU that run at a time: no more than its cores.

    At least one: without loader processes a thread of the training process loads.
    """
    cores = cores_for_loading(cores_per_gpu, on_gpu=config.device != "cpu")
    processes = worker_count(config.data.workers, cores=cores, local_size=1)
    return max(min(processes, cores_per_gpu), 1)


def scaled_compute(question: Question, config: Config, images: int) -> Compute:
    """The profile's, for this model and these pixels.

    Smaller pictures, or fewer boxes, are like fewer pictures: launches cost a step as much. Those
    grow with the backbone.
    """
    found = question.profile.compute(shared_constants())
    backbone, whole = work_factors(question, config, images)
    return Compute(found.image_s * whole, found.overhead_s * backbone)


def _inference_s(question: Question, config: Config) -> float:
    """Of one picture; the profile's was of its largest size, with as many proposals as ours has."""
    profile, data, model = question.profile, config.data, config.model
    largest = max(data.min_sizes)
    size = largest if data.eval_min_size == "auto" else data.eval_min_size
    timed = _timed_model(profile)
    pixels = mean_pixels((size,), data.max_size)
    theirs = mean_pixels((max(profile.min_sizes),), profile.max_size)
    ours = count_work(model, pixels, question.classes, model.rpn.post_nms_test)
    known = count_work(timed, theirs, COCO_CLASSES, timed.rpn.post_nms_test)
    return profile.inference_s.value * ours.forward / known.forward


def trained_precision(question: Question, config: Config) -> str | None:
    """What ``precision`` means on this GPU; None: ``auto``, and the profile doesn't say."""
    if config.precision != "auto":
        return config.precision
    native = question.profile.bfloat16
    return None if native is None else "bfloat16" if native else "float32"


def _step(
    question: Question,
    config: Config,
    derived: Derived,
    tensors: Tensors,
    group: tuple[int, int],
    mode: Recomputation,
) -> StepParts:
    profile, gpus = question.profile, derived.world_size
    machines = len(derived.machine_sizes)
    links = fabric(profile, question.network)
    images, passes = derived.images_per_process_per_pass, config.learning.accumulation
    compute = scaled_compute(question, config, images)
    compute_s = passes * compute.seconds(images) * SLOWER[mode]
    waiting = wait_s(cycle_ms(config), machines, links, profile.blocking_sum_us)
    bn_work = 0.0
    if tensors.bn_layers and profile.norm == "frozen":
        pixels = padded_pixels(config.data.min_sizes, config.data.max_size, images)
        elements = images * bn_elements(tensors, pixels, config.model.roi.boxes_per_image)
        memory_gb_s = profile.memory_gb_s.value
        bn_work = passes * own_work_s(elements, profile.value_bytes, memory_gb_s)
    ranks, group_machines = group
    bn_messages = passes * messages_s(tensors, ranks, group_machines, links, waiting)
    wire = tensors.gradient_bytes // (2 if config.horovod.compression == "fp16" else 1)
    gradients = gradients_s(
        wire,
        gpus,
        machines,
        links,
        compute_s=compute_s / passes,
        waiting_s=waiting,
        held_back=gradient_order(config, bn_is_shared=ranks > 1).held,
        fusion_bytes=_fusion_bytes(config),
    )
    spread = shared_constants().spread
    stragglers = compute.stragglers_s(images * passes, gpus, spread) * SLOWER[mode]
    rest = compute_s + bn_work + bn_messages + gradients + stragglers
    decode = DECODE_S * mean_pixels(config.data.min_sizes, config.data.max_size) / DECODE_PIXELS
    loading = images * passes * decode / loaders(config, question.cores_per_gpu)
    return StepParts(
        compute_s, bn_work, bn_messages, gradients, stragglers, max(0.0, loading - rest)
    )


def _fusion_bytes(config: Config) -> float:
    """As configured; without fusion each tensor goes by itself, which is not counted: as one."""
    threshold = config.horovod.fusion_threshold_mib
    if threshold == "auto" or threshold == 0 or config.deterministic:
        return FUSION_BYTES
    return threshold * 2**20


def _memory(question: Question, config: Config, derived: Derived, tensors: Tensors) -> Memory:
    frozen = config.model.norm in ("frozen", "none")
    whole = config.model.model_copy(update={"norm": "cgbn", "frozen_stages": 0})
    backbone = backbone_factor(count_tensors(whole, question.classes))
    precision = trained_precision(question, config)

    def of(mode: Recomputation) -> Memory:
        return predict_memory(
            tensors,
            derived.images_per_process_per_pass,
            largest_pixels(config.data.min_sizes, config.data.max_size),
            value_bytes=4 if precision == "float32" else question.profile.value_bytes,
            mode=mode,
            frozen=frozen,
            size_factor=backbone,
        )

    wanted = config.memory.checkpoint
    if wanted != "auto":
        return of(wanted)
    none = of("none")
    if fits(none, question.profile.memory_gib.value):
        return none
    modes: tuple[Recomputation, ...] = ("blocks", "stages")
    return min(map(of, modes), key=lambda memory: memory.live_bytes)
