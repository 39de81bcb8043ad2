"""The step's parts, each by hand."""

import math
import random

import pytest

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.engine.periods import due_by_epochs
from megdet_hvd.plan.bn_costs import messages_s, own_work_s
from megdet_hvd.plan.collectives import Fabric, allreduce_s
from megdet_hvd.plan.compute import Compute, TimedStep, from_one, from_two
from megdet_hvd.plan.epochs import epochs_to_target
from megdet_hvd.plan.evaluation import COCO_NUMBERS_S, evaluation_s, evaluations_of
from megdet_hvd.plan.horovod_costs import gradients_s, wait_s
from megdet_hvd.plan.memory import backbone_factor, fits, predict_memory
from megdet_hvd.plan.stragglers import expected_maximum, straggler_images
from megdet_hvd.plan.tensors import count_tensors

LINKS = Fabric("nvlink", 120.0, 42.5)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (1, 0),
        (2, 1 / math.sqrt(math.pi)),
        (3, 1.5 / math.sqrt(math.pi)),
        (10, 1.53875),
        (100, 2.50759),
    ],
)
def test_the_expected_maximum_is_that_of_the_tables(ranks: int, expected: float) -> None:
    assert expected_maximum(ranks) == pytest.approx(expected, abs=1e-5)


def test_the_expected_maximum_is_what_draws_give() -> None:
    draw = random.Random(0)
    mean = sum(max(draw.gauss(0, 1) for _ in range(16)) for _ in range(4000)) / 4000
    assert straggler_images(4, 16) == pytest.approx(2 * mean, rel=0.02)


@pytest.mark.parametrize(
    ("cycle", "machines", "micros"),
    [
        (0.1, 1, 448.0),
        (0.05, 1, 448.0),
        (1.0, 1, 1069.0),
        (0.55, 1, (448 + 1069) / 2),
        (3.0, 1, (1069 + 5106) / 2),
        (10.0, 1, 5106.0 + 5000),
        (0.1, 16, 448.0 + 2 * 4 * 5),
        (0.1, 3, 448.0 + 2 * 2 * 5),
    ],
)
def test_a_blocking_message_waits_for_the_cycle(cycle: float, machines: int, micros: float) -> None:
    assert 1e6 * wait_s(cycle, machines, LINKS) == pytest.approx(micros)


def test_a_measured_wait_takes_the_place_of_ours() -> None:
    assert wait_s(0.1, 1, LINKS, [(0.1, 100.0)]) == pytest.approx(100e-6)
    assert wait_s(1.1, 1, LINKS, [(0.1, 100.0)]) == pytest.approx(1100e-6)


def shown(size: float, *, compute_s: float, held: bool = False, ranks: int = 16) -> float:
    return gradients_s(size, ranks, 2, LINKS, compute_s=compute_s, waiting_s=1e-3, held_back=held)


def test_gradients_hide_behind_the_backward_pass() -> None:
    whole = 2 * (1e-3 + allreduce_s(100e6, 16, 2, LINKS))  # 200 MB are two messages of 128 MiB
    assert shown(200e6, compute_s=0.1, held=True) == pytest.approx(whole)
    assert shown(200e6, compute_s=0.003) == pytest.approx(whole - 0.002)
    last = 1e-3 + allreduce_s(2**20, 16, 2, LINKS)
    assert shown(200e6, compute_s=10.0) == pytest.approx(last)
    small = 1e-3 + allreduce_s(1000, 16, 2, LINKS)  # less than what a backward pass leaves over
    assert shown(1000, compute_s=10.0) == pytest.approx(small)
    assert gradients_s(2e8, 1, 1, LINKS, compute_s=0.0, waiting_s=1.0, held_back=True) == 0


def test_bn_messages_are_added_up() -> None:
    tensors = count_tensors(ModelConfig(), 80)
    sizes = [8 * (2 * x.channels + k) for x in tensors.bn_layers for k in (1, 0)]
    by_hand = sum(2e-4 + allreduce_s(size, 8, 1, LINKS) for size in sizes)
    assert messages_s(tensors, 8, 1, LINKS, 2e-4) == pytest.approx(by_hand)
    assert messages_s(tensors, 1, 1, LINKS, 2e-4) == 0
    assert messages_s(count_tensors(ModelConfig(norm="frozen"), 80), 8, 1, LINKS, 2e-4) == 0
    assert own_work_s(1e9, 4, 900) == pytest.approx(16 / 900)


def test_two_points_give_both_numbers_and_one_gives_the_slope() -> None:
    spread = 0.2
    truth = Compute(0.01, 0.03)

    def at(images: int, ranks: int) -> TimedStep:
        late = truth.stragglers_s(images, ranks, spread)
        return TimedStep(images, ranks, truth.seconds(images) + late)

    found = from_two(at(12, 8), at(2, 64), spread)
    assert found.image_s == pytest.approx(0.01) and found.overhead_s == pytest.approx(0.03)
    alone = from_one(at(12, 8), 3.0, spread)
    assert alone.image_s == pytest.approx(0.01) and alone.overhead_s == pytest.approx(0.03)
    assert truth.seconds(4) == pytest.approx(0.07)


@pytest.mark.parametrize(
    ("batch", "epochs"),
    [(16, 14), (128, 14), (136, 14.5), (144, 15), (200, 16), (256, 17), (272, 17)],
)
def test_epochs_to_the_target(batch: int, epochs: float) -> None:
    assert epochs_to_target(batch) == epochs
    assert epochs_to_target(512) is None


@pytest.mark.parametrize("every", [1.0, 2.0, 0.0, 0.1, 0.3, 2.5, 11.0, 20.0, 1e-9])
@pytest.mark.parametrize("images", [100, 101])
def test_evaluations_are_counted_as_training_does(every: float, images: int) -> None:
    """By its own rule, at each iteration; also where a run ends early, or batches are large."""
    for batch in (4, 16, 150):
        whole = -(-3 * images // batch)
        for iterations in {whole, 1, whole // 2, whole - 1} - {0}:
            due = [due_by_epochs(i, every, images, batch) for i in range(1, iterations + 1)]
            expected = sum(due[:-1]) + 1
            assert evaluations_of(iterations, batch, images, every) == expected


def test_an_evaluation_is_the_slowest_ranks_pictures_and_the_numbers() -> None:
    assert evaluation_s(5000, 8, 0.04) == pytest.approx(625 * 0.04 + COCO_NUMBERS_S)
    assert evaluation_s(5000, 7, 0.04) == pytest.approx(715 * 0.04 + COCO_NUMBERS_S)


def test_memory_is_what_was_measured_where_it_was_measured() -> None:
    """docs/benchmarks.md: 349 MiB at 2 × 256², 1105 and 440 at 2 × 512²; weights stand beside."""
    tensors = count_tensors(ModelConfig(), 80)

    def live(pixels: float, **more: object) -> float:
        words = {"value_bytes": 4, "mode": "none", "frozen": False, "size_factor": 1.0, **more}
        return predict_memory(tensors, 2, pixels, **words).live_bytes / 2**20  # type: ignore[arg-type]

    assert live(256**2) == pytest.approx(349)
    assert live(512**2) == pytest.approx(1105)
    assert live(512**2, mode="blocks") == pytest.approx(440, rel=0.15)
    assert live(256**2, frozen=True) == pytest.approx(241)
    assert live(512**2, value_bytes=2) < 0.6 * live(512**2)
    whole = predict_memory(
        tensors, 2, 800 * 1344, value_bytes=4, mode="none", frozen=False, size_factor=1.0
    )
    assert whole.model_bytes == 12 * tensors.trained + 128 * 2**20
    assert fits(whole, 16) and not fits(whole, whole.gib / 0.851)
    assert backbone_factor(tensors) == pytest.approx(1, abs=0.01)
    assert backbone_factor(count_tensors(ModelConfig(backbone="resnet101"), 80)) > 1.4
