"""What won't work, or not well, in a row of the table, and what to change."""

from megdet_hvd.config.warnings import warnings as training_warnings
from megdet_hvd.plan.epochs import EPOCHS, epochs_to_target
from megdet_hvd.plan.memory import MARGIN
from megdet_hvd.plan.prediction import Prediction, cycle_ms, loaders, trained_precision
from megdet_hvd.plan.profiles import gpu_profiles
from megdet_hvd.plan.question import Question
from megdet_hvd.schedule.large_batch import LARGEST_SHOWN
from megdet_hvd.wording import counted

SMALL_BN_IMAGES = 16
"""MegDet on BN size: 2, 4 and 8 images are poor, 32 is best, 64 slightly worse."""
LARGE_SHARE = 0.2
"""Of a step, from which on BN messages or gradients are worth a word."""
FROZEN_FAILS = 128
"""Batch with frozen BN from which on the paper's runs fail, with warm-up and half the rate too."""
_FROZEN_HALF = 64


def advice(question: Question, row: Prediction) -> list[str]:
    """One line for each trouble of a row: what, its sum, and the remedy."""
    return [
        *training_warnings(row.config, row.derived),
        *_frozen(row),
        *_bn_size(row),
        *_memory(question, row),
        *_messages(question, row),
        *_gradients(row),
        *_data(question, row),
        *_shape(question, row),
        *outside(question, row),
        *_epochs(row),
    ]


def outside(question: Question, row: Prediction) -> list[str]:
    """Where the model has little to stand on, or nothing: what a step's time may be off by."""
    return [*_own_code(row), *_backbone(question, row), *_other_than_timed(question, row)]


def _own_code(row: Prediction) -> list[str]:
    lines = []
    if (named := row.config.model.detector) is not None:
        lines.append(
            f"model.detector={named} is your own, of which the plan knows nothing: times and "
            "memory are those of the Faster R-CNN that the other model settings describe; try a "
            "few steps of it, and see --compare"
        )
    if (named := row.config.learning.optimizer) is not None:
        lines.append(
            f"learning.optimizer={named} is your own: the memory is SGD's, with one number of "
            "momentum a parameter"
        )
    return lines


def _backbone(question: Question, row: Prediction) -> list[str]:
    ours, profile = row.config.model.backbone, question.profile
    if ours == profile.backbone:
        return []
    return [
        f"profile {profile.name} was timed with {profile.backbone}, and its times are scaled by "
        f"the multiply-adds of {ours}: bench profile --backbone {ours} --out FILE measures it, "
        "then --profile FILE"
    ]


def _frozen(row: Prediction) -> list[str]:
    """MegDet's Table 2, in words."""
    if row.config.model.norm != "frozen" or row.batch < 32:
        return []
    if row.batch >= FROZEN_FAILS:
        what = "fails in the paper even with warm-up and half the rate"
    elif row.batch >= _FROZEN_HALF:
        what = (
            "does not converge in the paper with warm-up alone; with half the rate "
            "(learning.rate_factor=0.5) it does, with markedly lower accuracy"
        )
    else:
        what = "may fail in the paper even with warm-up"
    return [
        f"batch {row.batch} with model.norm=frozen {what} (Table 2): set model.norm=cgbn, or keep "
        "to batch 16"
    ]


def _bn_size(row: Prediction) -> list[str]:
    lines = []
    sizes = sorted(set(row.derived.bn_images))
    if sizes and sizes[0] < SMALL_BN_IMAGES:
        wider = (
            ", or share them more widely (bn.scope=world with bn.size=32)"
            if row.gpus > row.group_ranks and row.config.model.norm == "cgbn"
            else ""
        )
        lines.append(
            f"BN statistics over {counted(sizes[0], 'image')}: the paper finds 2, 4 and 8 poor and "
            "32 best; give a GPU more images (--images-per-gpu 4, with memory.checkpoint=auto)"
            f"{wider}"
        )
    if len(sizes) > 1:
        lines.append(
            f"machines of {' and '.join(map(str, sorted(set(row.machine_sizes))))} GPUs take BN "
            f"statistics over {' and '.join(map(str, sizes))} images: take whole machines, or a "
            "bn.size that all can make"
        )
    if row.group_machines > 1:
        lines.append(
            f"BN statistics span {row.group_machines} machines, so that each of their messages "
            "crosses the network: bn.scope=machine, as in the paper, keeps them inside; more "
            "images a statistic come from --images-per-gpu 4 with memory.checkpoint=auto"
        )
    return lines


def _memory(question: Question, row: Prediction) -> list[str]:
    capacity = question.profile.memory_gib.value
    if row.fits:
        return []
    modes = {
        "none": "memory.checkpoint=auto recomputes activations for less",
        "blocks": "memory.checkpoint=stages needs a little less",
        "stages": "nothing is left to recompute",
    }
    return [
        f"{row.memory.gib:.1f} GiB a GPU are predicted with recomputation {row.memory.mode}, and "
        f"{capacity:g} GiB less {MARGIN:.0%} are {capacity * (1 - MARGIN):.1f}: "
        f"{modes[row.memory.mode]}; else fewer images a GPU, with learning.accumulation for the "
        "same batch"
    ]


def _messages(question: Question, row: Prediction) -> list[str]:
    share = (row.step.bn_messages + row.step.bn_work) / row.step.total
    if share < LARGE_SHARE:
        return []
    cycle = cycle_ms(row.config)
    if row.group_machines > 1:
        change = "bn.scope=machine keeps messages off the network"
    elif cycle > 0.1:
        change = f"horovod.cycle_time_ms=0.1 instead of {cycle:g} shortens each wait"
    else:
        change = "more images a GPU (--images-per-gpu 4) share the same messages"
    return [
        f"CGBN is {share:.0%} of a step of {1e3 * row.step.total:.0f} ms "
        f"({1e3 * row.step.bn_messages:.0f} ms of messages): {change}"
    ]


def _gradients(row: Prediction) -> list[str]:
    share = row.step.gradients / row.step.total
    if share < LARGE_SHARE:
        return []
    compressed = row.config.horovod.compression == "fp16"
    change = (
        "a faster --network, or more images a GPU"
        if compressed
        else "horovod.compression=fp16 halves the bytes (with horovod.predivide), or take a "
        "faster --network, or more images a GPU"
    )
    return [f"gradients show for {share:.0%} of a step of {1e3 * row.step.total:.0f} ms: {change}"]


def _data(question: Question, row: Prediction) -> list[str]:
    if row.step.data <= 0:
        return []
    count = loaders(row.config, question.cores_per_gpu)
    return [
        f"{count} loader process{'es' if count > 1 else ''} a GPU can't keep up: a step waits "
        f"{1e3 * row.step.data:.0f} ms for pictures; give a GPU more cores (--cpus-per-task in the "
        "template, --cores-per-gpu here) and data.workers=8, or scale pictures down once "
        "(pipeline.max_side)"
    ]


def _shape(question: Question, row: Prediction) -> list[str]:
    rest = row.gpus % question.gpus_per_machine
    if not rest or row.gpus < question.gpus_per_machine:
        return []
    whole = row.gpus - rest
    return [
        f"{row.gpus} GPUs leave a machine of {question.gpus_per_machine} partly used: take {whole} "
        f"or {whole + question.gpus_per_machine}"
    ]


def _other_than_timed(question: Question, row: Prediction) -> list[str]:
    lines = []
    if row.images == 1:
        lines.append(
            "1 image a GPU: published runs are up to half off the model there (docs/plan.md, c); "
            "take the row as a guess, or 2 images on half the GPUs"
        )
    config, profile = row.config, question.profile
    if config.device == "cpu" and profile.name in gpu_profiles():
        lines.append(
            f"device=cpu, and profile {profile.name} is a GPU's: bench profile --device cpu --out "
            "FILE measures this machine, then --profile FILE"
        )
    precision = trained_precision(question, config) or profile.precision
    if precision != profile.precision and "float32" in (precision, profile.precision):
        means = f" is {precision} there" if config.precision == "auto" else ""
        change = f"precision={profile.precision}" if config.precision == "auto" else "another --gpu"
        lines.append(
            f"precision={config.precision}{means}, and profile {profile.name} was timed with "
            f"{profile.precision}: take {change}, or measure your own (bench profile)"
        )
    if profile.norm == "cgbn" and config.model.norm in ("frozen", "none"):
        lines.append(
            f"profile {profile.name} was timed with CGBN, whose own work stays in the times of "
            f"model.norm={config.model.norm}: bench profile --norm frozen measures without"
        )
    if config.model.norm == "cgbn" and config.bn.carrier == "mpi":
        lines.append(
            "bn.carrier=mpi sums CPU tensors, and training on GPUs refuses it: set "
            "bn.carrier=horovod, whose times these are"
        )
    if config.model.norm == "cgbn" and config.bn.carrier == "peer":
        lines.append(
            "bn.carrier=peer has not run on GPUs yet: the times of BN messages are those of "
            "bn.carrier=horovod"
        )
    if config.deterministic or config.horovod.fusion_threshold_mib == 0:
        lines.append(
            "without fusion (deterministic, horovod.fusion_threshold_mib=0) each gradient goes by "
            "itself, which is not in these times: expect some more"
        )
    return lines


def _epochs(row: Prediction) -> list[str]:
    needed = epochs_to_target(row.batch)
    if needed is None:
        return [
            f"batch {row.batch}: no epochs to a target were published above 272 images with SGD; "
            f"the {row.derived.end_epoch:g} of the policy may be too few"
        ]
    first = EPOCHS[0][1]
    if needed <= first or row.batch > LARGEST_SHOWN:
        return []
    return [
        f"batch {row.batch} took MLPerf's runs {needed:g} epochs to box AP 0.377 instead of "
        f"{first:g} (frozen BN): with equal epochs, as here, count on lower AP or check "
        "learning.policy=long"
    ]
