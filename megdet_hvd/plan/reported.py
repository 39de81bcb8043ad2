"""Published figures set beside the model without a goal: data/reported.json."""

import json
import statistics
from dataclasses import dataclass
from functools import cache
from typing import Any

from megdet_hvd.config.schema import ModelConfig, RoiConfig
from megdet_hvd.plan.bn_costs import messages_s, own_work_s
from megdet_hvd.plan.collectives import Fabric, allreduce_s
from megdet_hvd.plan.compute import Compute, TimedStep, from_one
from megdet_hvd.plan.epochs import epochs_to_target
from megdet_hvd.plan.fit import Shared
from megdet_hvd.plan.horovod_costs import gradients_s, wait_s
from megdet_hvd.plan.memory import predict_memory
from megdet_hvd.plan.prediction import OWN_CYCLE_MS
from megdet_hvd.plan.profiles import built_in, fabric, network
from megdet_hvd.plan.published import DATA, mlperf_runs
from megdet_hvd.plan.question import largest_pixels, mean_pixels, padded_pixels
from megdet_hvd.plan.tensors import MASK_HEAD, bn_elements, count_tensors
from megdet_hvd.plan.work import count_work

_GB = 1e9
_GIB = 2**30
_IMAGES_PER_EPOCH = 117_266


@cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "reported.json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class Beside:
    """A published figure and the model's."""

    what: str
    published: tuple[float, float]
    """Both ends of a range, which may be one."""
    predicted: float
    address: str

    @property
    def error(self) -> float:
        """To the nearer end, 0 within the range."""
        low, high = self.published
        if low <= self.predicted <= high:
            return 0.0
        near = low if self.predicted < low else high
        return self.predicted / near - 1


def collectives() -> tuple[Beside, ...]:
    """All-reduces, µs."""
    found = []
    for row in _data()["collectives"]:
        between = network(row["network"])
        links = Fabric(row["link"], row["inside_gb_s"], between.gb_s, between.hops)
        micros = 1e6 * allreduce_s(row["bytes"], row["ranks"], row["machines"], links)
        low, high = row["micros"]
        size = _size(row["bytes"])
        found.append(Beside(f"{row['what']}: {size}", (low, high), micros, row["address"]))
    return tuple(found)


def _size(count: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count} B"


def aws(shared: Shared) -> tuple[Beside, ...]:
    """Seconds of an iteration on 8, 16 and 32 GPUs, from the 8's own.

    12 epochs more take the hours of 24 epochs less those of 12, so that the start is not in them.
    """
    data = _data()["aws"]
    images = data["images"]
    links = fabric(built_in("v100"), network("efa"))
    size = 4 * (count_tensors(ModelConfig(norm="frozen", frozen_stages=2), 80).trained + MASK_HEAD)
    measured = {}
    for row in data["hours"]:
        iterations = 12 * data["images_per_epoch"] / (row["gpus"] * images)
        measured[row["gpus"]] = 3600 * (row["epochs_24"] - row["epochs_12"]) / iterations
    known = TimedStep(images, 8, measured[8])
    compute = from_one(known, shared.overhead_images, shared.spread)
    found = []
    for gpus, seconds in measured.items():
        machines = gpus // 8
        step = compute.seconds(images) + compute.stragglers_s(images, gpus, shared.spread)
        if machines > 1:
            step += gradients_s(
                size,
                gpus,
                machines,
                links,
                compute_s=compute.seconds(images),
                waiting_s=wait_s(OWN_CYCLE_MS, machines, links),
                held_back=False,
            )
        what = (
            f"AWS, {gpus} V100 on {machines} machine{'s' if machines > 1 else ''}, s an iteration"
        )
        if gpus == 8:
            what += " (known)"
        found.append(Beside(what, (seconds, seconds), step, data["address"]))
    return tuple(found)


def synchronised_bn() -> Beside:
    """detectron2's SyncBN, what it adds to a step in parts of it: NCCL's messages, no Horovod."""
    data = _data()["syncbn"]
    model = ModelConfig(fpn_norm="same", roi=RoiConfig(head="conv", norm="same"))
    tensors = count_tensors(model, 80)
    gpu = built_in("v100")
    links = fabric(gpu, network(gpu.network))
    elements = 2 * bn_elements(tensors, mean_pixels((800,), 1333), 512)
    added = own_work_s(elements, 4, gpu.memory_gb_s.value) + messages_s(tensors, 8, 1, links, 0.0)
    measured = data["syncbn_s"] / data["frozen_s"] - 1
    what = "detectron2, synchronised BN, part of a step that it adds"
    return Beside(what, (measured, measured), added / data["frozen_s"], data["address"])


def other_models(shared: Shared) -> tuple[Beside, ...]:
    """Another backbone and other pictures than a profile was timed with, by multiply-adds."""
    data = _data()
    gpu = built_in("v100")
    (known,) = gpu.steps

    def work(backbone: str, pixels: float) -> float:
        model = ModelConfig.model_validate(
            {"backbone": backbone, "frozen_stages": gpu.frozen_stages}
        )
        return count_work(model, pixels, 80, model.roi.boxes_per_image).step

    fixed = mean_pixels((800,), 1333)
    deeper = data["resnet101"]
    ratio = deeper["resnet101_s"] / deeper["resnet50_s"]
    whole = data["torchvision"]
    timed = padded_pixels(gpu.min_sizes, gpu.max_size, known.images)
    compute, factor = gpu.compute(shared), work("resnet50", fixed) / work("resnet50", timed)
    larger = Compute(compute.image_s * factor, compute.overhead_s)
    step_s = larger.seconds(known.images)
    step_s += larger.stragglers_s(known.images, known.gpus, shared.spread)
    return (
        Beside(
            "detectron2, ResNet-101's step to ResNet-50's",
            (ratio, ratio),
            work("resnet101", fixed) / work("resnet50", fixed),
            deeper["address"],
        ),
        Beside(
            "torchvision, 8 V100, sides of 800 instead of detectron2's 640 to 800, s an iteration",
            (whole["step_s"], whole["step_s"]),
            step_s,
            whole["address"],
        ),
    )


def memory() -> tuple[Beside, ...]:
    """Of one GPU, GB."""
    found = []
    for row in _data()["memory"]:
        tensors = count_tensors(ModelConfig(norm=row["norm"], frozen_stages=2), 80)
        predicted = predict_memory(
            tensors,
            row["images"],
            largest_pixels((800,), 1333),
            value_bytes=4,
            mode="none",
            frozen=row["norm"] == "frozen",
            size_factor=1.0,
        )
        gb = predicted.gib * _GIB / _GB
        found.append(Beside(f"{row['what']}, GB", (row["gb"], row["gb"]), gb, row["address"]))
    return tuple(found)


def paper_hours() -> dict[int, float]:
    """GPUs and hours of the abstract."""
    return {row["gpus"]: float(row["hours"]) for row in _data()["megdet"]["hours"]}


def whole_runs() -> tuple[int, float, float]:
    """Minutes of MLPerf's runs from their own steps and the epochs by batch, against those taken.

    Returns:
        How many, median and worst error: what epochs(B) and all outside of steps leave open.
    """
    errors = []
    for run in mlperf_runs():
        epochs = epochs_to_target(run.batch)
        assert epochs is not None, run
        minutes = epochs * _IMAGES_PER_EPOCH / run.batch * run.step_s / 60
        errors.append(abs(minutes / run.minutes - 1))
    return len(errors), statistics.median(errors), max(errors)
